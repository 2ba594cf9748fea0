"""The HTTP API of a real cluster: with certificates, through any coordinator, watched over the loss of one; and without
TLS everything that its OpenAPI document promises, tried at random.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cloudless.adapters.pki.request import build_request, key_to_pem, new_key
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary
from tests.integration.http_caller import HttpCaller, context_of
from tests.integration.trusted import Trusted, identity_dir

__all__ = ["binary"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
WEB = "/v1/workloads/default/web"
NODE_SPEC = "nodes/agent-1/spec"
EXAMPLES_MAX = {True: 1, False: 3}
"""For a method by its own name, and for a path of a resource: what is behind both is the same."""
# They take long, or wait for somebody else; the streams have no end.
LEFT_OUT = {"MakeRoom", "StoreBackup", "JoinRaftCluster", "Watch", "WatchEndpoints", "ReadLogs"}


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    root = tmp_path_factory.mktemp("http")
    cluster = LocalCluster(root, binary.path, trust=Trusted(root))
    cluster.add_coordinators()
    cluster.found_together()
    cluster.add_agent("agent-1")
    try:
        cluster.start(*COORDINATORS)
        cluster.trust.begin(cluster.coordinators)  # until then the test is a founder, whom others may not know yet
        cluster.wait_formed()
        cluster.start("agent-1")
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path_factory.mktemp("plain"), binary.path)
    cluster.add_coordinators(COORDINATORS[:1])
    cluster.bootstrap_with(COORDINATORS[0])
    cluster.add_agent("agent-1")
    try:
        cluster.start(COORDINATORS[0], "agent-1")
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.close()


def caller(cluster: LocalCluster, name: str, tls: ssl.SSLContext | None = None) -> HttpCaller:
    """Return who asks one coordinator; as the admin if nothing else is said."""
    return HttpCaller(cluster.processes[name].address("http"), tls or cluster.trust.web())


# --- with certificates ---


def test_who_calls_is_known_by_its_certificate_and_may_what_its_role_may(trusted: LocalCluster, tmp_path: Path) -> None:
    admin = caller(trusted, COORDINATORS[0])
    me = admin.get("/v1/whoami")
    assert (me["name"], me["role"]) == ("admin", "ROLE_ADMIN")

    nobody = caller(trusted, COORDINATORS[0], context_of(identity_dir(trusted.processes["agent-1"]), shown=False))
    told = nobody.ask("GET", "/v1/nodes")
    assert (told.status, told.json["code"]) == (401, "unauthenticated")
    assert nobody.ask("GET", "/openapi.json").status == 403
    assert nobody.ask("GET", "/livez").status == 200

    agent = caller(trusted, COORDINATORS[1], context_of(identity_dir(trusted.processes["agent-1"])))
    told = agent.ask("PUT", "/v1/workloads", manifest_of("web"))
    assert (told.status, told.json["code"]) == (403, "denied")
    assert agent.get("/v1/whoami")["role"] == "ROLE_AGENT"
    trusted.until(
        lambda: any(
            event["kind"] == "AccessRefused"
            and event["actor"] == "agent/agent-1"
            and "ApplyWorkload" in event["message"]
            for event in admin.get("/v1/events")["events"]
        ),
        "the refusal is an event",
    )

    viewer = caller(trusted, COORDINATORS[2], enrol_over_http(admin, nobody, tmp_path))
    assert viewer.get("/v1/whoami")["namespaces"] == ["default"]
    assert viewer.get("/v1/workloads?namespace=default")["workloads"] == []
    assert viewer.ask("GET", "/v1/workloads?namespace=other").status == 403
    assert viewer.ask("PUT", "/v1/workloads", manifest_of("web")).status == 403
    assert admin.ask("POST", "/v1/identities/person/vera/revoke", {"reason": "left"}).status == 200
    trusted.until(lambda: viewer.ask("GET", "/v1/nodes").status == 401, "who is revoked is nobody")


def enrol_over_http(admin: HttpCaller, nobody: HttpCaller, folder: Path) -> ssl.SSLContext:
    """Return what vera asks with, a viewer of one namespace, who needed nothing but HTTP to become one."""
    made = admin.ask("POST", "/v1/tokens", {"role": "ROLE_VIEWER", "names": ["vera"], "namespaces": ["default"]})
    assert made.status == 200, made.body
    key = new_key()
    request = {"token": made.json["token"], "name": "vera", "csrPem": build_request(key)}
    enrolled = nobody.ask("POST", "/v1/enrol", request)
    assert enrolled.status == 200, enrolled.body
    issued = enrolled.json["issued"]
    (folder / "identity.pem").write_text(key_to_pem(key) + issued["chainPem"])
    (folder / "roots.pem").write_text(issued["rootsPem"])
    return context_of(folder)


def test_any_coordinator_takes_a_change_and_tells_it(trusted: LocalCluster) -> None:
    first, second, third = (caller(trusted, name) for name in COORDINATORS)
    applied = first.ask("PUT", "/v1/workloads", manifest_of("web", replicas=2), Idempotency_Key="apply-web")
    assert applied.status == 200, applied.body
    again = second.ask("PUT", "/v1/workloads", manifest_of("web", replicas=2), Idempotency_Key="apply-web")
    assert again.json["results"] == applied.json["results"]
    revision = applied.json["header"]["revision"]
    seen = third.ask("GET", f"{WEB}?consistency=stale&minRevision={revision}")
    assert seen.json["workload"]["record"]["spec"]["replicas"] == "2"
    refused = second.ask("PUT", f"{WEB}/scale", {"replicas": 3}, If_Match='"1"')
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    scaled = second.ask("PUT", f"{WEB}/scale", {"replicas": 1}, If_Match=seen.headers["ETag"])
    assert scaled.status == 200, scaled.body
    trusted.until(lambda: third.get(WEB)["workload"]["summary"]["running"] == "1", "it runs")
    task = third.get("/v1/tasks?workload=web&namespace=default")["tasks"][0]
    assert task["desired"]["nodeId"] == "agent-1"
    assert first.ask("DELETE", WEB).status == 200
    trusted.until(lambda: third.ask("GET", WEB).status == 404, "it is gone")
    assert trusted.asked(COORDINATORS[0], "WorkloadService/ApplyWorkload") == 1
    applied_by = [one["actor"] for one in first.get("/v1/events")["events"] if one["kind"] == "WorkloadApplied"]
    assert applied_by == ["person/admin"]


def test_one_coordinator_is_the_leader_for_load_balancers_and_two_are_not(trusted: LocalCluster) -> None:
    leader = trusted.leader()
    for name in COORDINATORS:
        trusted.wait_http(name, "/leader", 200 if name == leader else 503)
        trusted.wait_http(name, "/follower", 503 if name == leader else 200)
        trusted.wait_http(name, "/read-only", 200)
        health = caller(trusted, name).get("/healthz")
        assert (health["ready"], health["leader"], health["coordinator"]) == (True, leader, name)


def test_a_watch_sees_a_change_and_goes_on_at_another_coordinator(trusted: LocalCluster) -> None:
    follower, *others = trusted.followers()
    path = "/v1/watch?kinds=node-spec"
    with caller(trusted, follower).watch(path) as watch:
        next(watch.events())
        change_label(trusted, "a")
        assert watch.until_key(NODE_SPEC)["record"]["nodeSpec"]["labels"] == {"seen": "a"}
        trusted.stop(follower)
        rest = list(watch.events())  # raises if the connection was cut off
        assert watch.ended
        assert not [event for event in rest if "code" in event]
    missed = change_label(trusted, "b")
    with caller(trusted, others[0]).watch(path, Last_Event_ID=watch.last_id) as watch:
        change = watch.until_key(NODE_SPEC)
        assert (change["revision"], change["record"]["nodeSpec"]["labels"]) == (missed, {"seen": "b"})
    trusted.start(follower)
    trusted.wait_ready()


def change_label(cluster: LocalCluster, value: str) -> str:
    """Label the node through the leader; return the revision of that."""
    told = caller(cluster, cluster.leader()).ask("PATCH", "/v1/nodes/agent-1", {"setLabels": {"seen": value}})
    assert told.status == 200, told.body
    return str(told.json["header"]["revision"])


# --- without ---


def no_bug(context: Any, response: Any, case: Any) -> None:
    """A status of 500 and above says that something cannot be done now; never that something broke."""
    if response.status_code >= 500:
        problem = response.json()
        assert problem["code"] != "internal", response.text
        assert problem["retryable"] or response.status_code == 500, response.text


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_asked_the_answer_is_as_the_document_says(plain: LocalCluster, mode: GenerationMode) -> None:
    base = f"http://{plain.processes[COORDINATORS[0]].address('http')}"
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    operations: list[Any] = [one.ok() for one in schema.get_all_operations()]  # type: ignore[union-attr]
    methods = {one.label: one.definition.raw.get("x-method", "").rpartition("/")[2] for one in operations}
    chosen = [one for one in operations if methods[one.label] and methods[one.label] not in LEFT_OUT]
    assert len(chosen) > 100
    for operation in chosen:

        @settings(
            max_examples=EXAMPLES_MAX["Service/" in operation.path], deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            if mode.is_positive or "Request-Timeout" not in case.headers:
                case.headers["Request-Timeout"] = "0.2"  # a read may wait for a revision of the far future
            excluded: list[Any] = [not_a_server_error, positive_data_acceptance]
            case.call_and_validate(base_url=base, additional_checks=[no_bug], excluded_checks=excluded)

        ask()
    assert "Traceback" not in plain.processes[COORDINATORS[0]].log.read_text()
