"""Pages in a browser may use the API only from here, or from where the settings say."""

from __future__ import annotations

import pytest

from cloudless.errors import BadSettings
from cloudless.settings import read_coordinator_settings
from tests.unit.http.serving import MANIFEST, serving

CONSOLE = "https://console.example.org"
NAMED = {"CLOUDLESS_NODE_ID": "coordinator-1"}


async def test_by_default_no_page_of_elsewhere_may_do_anything() -> None:
    async with serving() as served:
        for origin in (CONSOLE, "null", "http://127.0.0.1:1", "x["):
            status, problem, headers = await served.ask(
                "PUT", "/v1/workloads", data=MANIFEST, headers={"Origin": origin, "Content-Type": "text/plain"}
            )
            assert (status, problem["code"]) == (403, "denied"), origin
            assert not [name for name in headers if name.startswith("Access-Control")]
        assert not served.replica.machine.workloads
        assert (await served.ask("GET", "/v1/nodes", headers={"Origin": served.base}))[0] == 200


async def test_a_page_that_the_settings_name_may() -> None:
    async with serving(http_cors_origins=(CONSOLE,)) as served:
        asked = {"Origin": CONSOLE, "Access-Control-Request-Method": "PUT"}
        status, _, headers = await served.ask("OPTIONS", "/v1/workloads", headers=asked)
        assert (status, headers["Access-Control-Allow-Origin"]) == (204, CONSOLE)
        assert "PUT" in headers["Access-Control-Allow-Methods"]
        assert "Idempotency-Key" in headers["Access-Control-Allow-Headers"]
        status, _, headers = await served.ask("PUT", "/v1/workloads", data=MANIFEST, headers={"Origin": CONSOLE})
        assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (200, CONSOLE, "Origin")
        status, _, headers = await served.ask("GET", "/v1/none", headers={"Origin": CONSOLE})
        assert (status, headers["Access-Control-Allow-Credentials"]) == (404, "true")
        async with served.session.get(f"{served.base}/v1/watch", headers={"Origin": CONSOLE}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == CONSOLE
        assert (await served.ask("GET", "/v1/nodes", headers={"Origin": f"{CONSOLE}.evil.example"}))[0] == 403


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:8081", True),
        ("coordinator-1:8081", True),
        ("[::1]:8081", True),
        ("10.0.0.1", True),
        ("c1.example.org:8081", True),
        ("rebound.example.com:8081", False),
        ("10.0.0.1.example.com", False),
    ],
)
async def test_without_tls_a_name_that_somebody_else_made_lead_here_is_not_answered_to(host: str, ours: bool) -> None:
    async with serving(advertise_address="c1.example.org:8080") as served:
        found = (await served.ask("GET", "/v1/nodes", headers={"Host": host}))[0]
        assert found == (200 if ours else 403)


def test_origins_are_read_as_browsers_write_them() -> None:
    given = "https://console.example.org, http://[::1]:3000,https://console.example.org"
    settings = read_coordinator_settings({**NAMED, "CLOUDLESS_HTTP_CORS_ORIGINS": given})
    assert settings.http_cors_origins == (CONSOLE, "http://[::1]:3000")
    assert read_coordinator_settings(NAMED).http_cors_origins == ()


@pytest.mark.parametrize("origins", ["*", "console.example.org", f"{CONSOLE}/", f"{CONSOLE}:443", "ftp://x", "null"])
def test_what_is_no_origin_is_refused_by_the_name_of_the_setting(origins: str) -> None:
    with pytest.raises(BadSettings, match="CLOUDLESS_HTTP_CORS_ORIGINS"):
        read_coordinator_settings({**NAMED, "CLOUDLESS_HTTP_CORS_ORIGINS": origins})
