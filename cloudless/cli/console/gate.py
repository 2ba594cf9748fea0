"""Who may use the proxy, which acts with a person's certificate: the page it gave out itself, and nobody else.

Against other pages in the same browser: the Host must be the loopback address it listens on (no name of theirs can
stand for it), the Origin its own, and every call carries the token in a header, which no other page can send or know.
Against other users of this machine: the token, 256 random bits, which is in the fragment of the address that is
printed. It is no cookie: those are sent to every port of a host, whoever listens there.
"""

from __future__ import annotations

import json
import secrets

from cloudless.adapters.http.exchange import Answer, Asked
from cloudless.core.discovery.addresses import join_address

PROBLEM_JSON = "application/problem+json"
SCHEME = "bearer "
OWN_SITES = ("", "same-origin", "none")
"""What a browser says of where a request comes from (Sec-Fetch-Site): nothing, this page, or the person."""


class Gate:
    """Judges what is asked of the proxy on `host:port`."""

    def __init__(self, host: str, port: int, token: str = "") -> None:
        self._token = token or secrets.token_urlsafe(32)
        self._hosts = {join_address(name, port) for name in (host, "localhost")}
        self._address = join_address(host, port)

    @property
    def url(self) -> str:
        """Return where the page is, with the token: for the person alone."""
        return f"http://{self._address}/console/#token={self._token}"

    def refuse_page(self, asked: Asked) -> Answer | None:
        """Return why a file of the page is not given, None if it is."""
        if asked.headers.get("host", "").lower() not in self._hosts:
            return problem(403, "denied", "this is not the name of the console", f"ask for http://{self._address}/")
        origin = asked.headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self._hosts}:
            return problem(403, "denied", "pages of other origins may not use the console")
        return None

    def refuse(self, asked: Asked) -> Answer | None:
        """Return why a call is not handed on, None if it is."""
        refusal = self.refuse_page(asked)
        if refusal is not None:
            return refusal
        if asked.headers.get("sec-fetch-site", "").lower() not in OWN_SITES:
            return problem(403, "denied", "other pages may not use the console")
        said = asked.headers.get("authorization", "")
        given = said[len(SCHEME) :] if said.lower().startswith(SCHEME) else ""
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return problem(
                401, "no-token", "this page has no token, or one of an earlier `cloudless console`",
                "open the address that `cloudless console` printed",
            )  # fmt: skip
        return None


def problem(status: int, code: str, detail: str, hint: str = "", *, retryable: bool = False) -> Answer:
    """Return a problem document as a coordinator would write it."""
    document = {
        "type": f"urn:cloudless:error:{code}", "title": code.replace("-", " "), "status": status, "code": code,
        "detail": detail, "hint": hint, "retryable": retryable, "problems": [], "coordinatorId": "",
    }  # fmt: skip
    return Answer(status, json.dumps(document) + "\n", PROBLEM_JSON, {"Cache-Control": "no-store"})
