"""Calls over HTTP: what comes in as JSON reaches the handlers of gRPC, and what is wrong with it is named."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cloudless.coordinator.httpapi import api
from cloudless.errors import AgentUnreachable, CommitUncertain, Denied
from cloudless.rpc.v1 import node_pb2, workload_pb2
from tests.unit.http.serving import MANIFEST, PAGE, OpenDoor, serving

WEB = "/v1/workloads/default/web"
# verb, path, what else is sent, the field that is wrong, what is said of it
FAULTS: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("GET", "/v1/nodes?limt=3", {}, "limt", "is no parameter of GET /v1/nodes"),
    ("GET", "/v1/nodes?limit=three", {}, "limit", "must be a whole number of 64 bits"),
    ("GET", "/v1/nodes?limit=1&limit=2", {}, "limit", "more than once"),
    ("GET", "/v1/nodes?selector=zone", {}, "selector", "must be key=value"),
    ("GET", "/v1/nodes?consistency=fresh", {}, "consistency", "linearizable, bounded, stale"),
    ("GET", "/v1/nodes?limit=%ff", {}, "query", "UTF-8"),
    ("GET", f"{WEB}?name=other", {}, "name", "said by the path"),
    ("GET", f"{WEB}?withManifest=yes", {}, "withManifest", "must be true or false"),
    ("GET", "/v1/nodes", {"data": b"{}"}, "body", "is not taken here"),
    ("DELETE", WEB, {"json": {"name": "web"}}, "body", "is not taken here"),
    ("PUT", f"{WEB}/scale", {"json": {"replica": 3}}, "replica", "did you mean replicas?"),
    ("PUT", f"{WEB}/scale", {"json": {"replicas": "many"}}, "replicas", "must be a whole number"),
    ("PUT", f"{WEB}/scale", {"json": {"replicas": 1.5}}, "replicas", "must be a whole number"),
    ("PUT", f"{WEB}/scale", {"json": {"name": "other"}}, "name", "is said by the path"),
    ("PUT", f"{WEB}/scale?replicas=3", {}, "replicas", "give it in the body"),
    ("PUT", f"{WEB}/scale", {"data": b"{"}, "body", "is not JSON"),
    ("PUT", f"{WEB}/scale", {"data": b"[1]"}, "body", "must be a JSON object"),
    ("PUT", f"{WEB}/scale", {"data": b'{"replicas": NaN}'}, "body", "NaN"),
    ("PUT", f"{WEB}/scale", {"data": b'{"replicas": 1, "replicas": 2}'}, "body", "given twice"),
    ("PUT", f"{WEB}/scale", {"data": b"\xff\xfe"}, "body", "is not JSON"),
    ("PUT", f"{WEB}/scale", {"data": b"[" * 100_000}, "body", "is not JSON"),
    ("PUT", f"{WEB}/scale", {"data": b"<x/>", "headers": {"Content-Type": "text/xml"}}, "Content-Type", "text/xml"),
    ("PUT", f"{WEB}/scale", {"headers": {"If-Match": "yesterday"}}, "If-Match", "must be the revision"),
    ("PUT", f"{WEB}/scale", {"headers": {"Request-Timeout": "1h"}}, "Request-Timeout", "must be seconds"),
    ("PUT", "/v1/workloads", {"data": b"\xff"}, "body", "is not UTF-8"),
    ("POST", "/v1/cluster/transfer-leader", {"headers": {"If-Match": '"3"'}}, "If-Match", "is not taken"),
    ("POST", "/v1/cluster/transfer-leader", {"headers": {"Idempotency-Key": "3"}}, "Idempotency-Key", "not taken"),
    (
        "PATCH", "/v1/nodes/n1", {"json": {"setTaints": [{"key": "a"}, {"key": "b", "efect": "X"}]}},
        "setTaints[1].efect", "did you mean effect?",
    ),
    ("PATCH", "/v1/nodes/n1", {"json": {"setTaints": [{"effect": "X"}]}}, "setTaints[0].effect", "NO_SCHEDULE"),
    ("PATCH", "/v1/nodes/n1", {"json": {"set_labels": {"a": 1}}}, "set_labels", "must be an object with texts"),
    ("PATCH", "/v1/nodes/n1", {"json": {"setLabels": {}, "set_labels": {}}}, "set_labels", "is the same as"),
    (
        "POST", "/v1/WorkloadService/ScaleWorkload",
        {"json": {"options": {"requestId": "a"}}, "headers": {"Idempotency-Key": "b"}}, "options", "something else",
    ),
]  # fmt: skip


async def test_a_workload_lives_from_its_manifest_to_its_end() -> None:
    async with serving() as served:
        status, applied, _ = await served.ask("PUT", "/v1/workloads", data=MANIFEST)
        assert (status, applied["results"][0]["action"]) == (200, "created")
        status, got, headers = await served.ask("GET", WEB, params={"withManifest": "true"})
        assert (status, got["workload"]["summary"]["desired"]) == (200, "2")
        assert "replicas: 2" in got["manifest"]
        assert headers["ETag"] == f'"{got["workload"]["revision"]}"'
        _, scaled, _ = await served.ask(
            "PUT", f"{WEB}/scale", json={"replicas": 5}, headers={"If-Match": headers["ETag"]}
        )
        assert scaled["workload"]["record"]["spec"]["replicas"] == "5"
        status, problem, _ = await served.ask("DELETE", WEB, headers={"If-Match": headers["ETag"]})
        assert (status, problem["code"]) == (409, "conflict")
        assert (await served.ask("DELETE", WEB))[0] == 200
        assert served.replica.machine.workloads["default", "web"].record.deleted_at_ms


async def test_a_method_is_reached_by_its_own_name_with_its_request_as_the_body() -> None:
    async with serving() as served:
        request = {"manifest": MANIFEST, "dry_run": True}  # both spellings are taken
        status, answer, _ = await served.ask("POST", "/v1/WorkloadService/ApplyWorkload", json=request)
        assert (status, answer["results"][0]["action"]) == (200, "created")
        assert not served.replica.machine.workloads
        assert served.door.entered == ["cloudless.rpc.v1.WorkloadService/ApplyWorkload"]
        ((_, checked),) = served.door.checked
        assert checked == workload_pb2.ApplyWorkloadRequest(manifest=MANIFEST, dry_run=True)


async def test_the_same_key_has_one_effect_and_one_answer() -> None:
    async with serving() as served:
        keyed: dict[str, Any] = {"headers": {"Idempotency-Key": "once"}, "data": MANIFEST}
        first = await served.ask("PUT", "/v1/workloads", **keyed)
        again = await served.ask("PUT", "/v1/workloads", **keyed)
        assert first[1]["results"] == again[1]["results"]
        status, problem, _ = await served.ask("PUT", "/v1/workloads", **{**keyed, "data": MANIFEST.replace("2", "3")})
        assert (status, problem["code"]) == (409, "conflict")


async def test_a_read_is_as_fresh_as_the_query_asks() -> None:
    async with serving() as served:
        asked: list[node_pb2.ListNodesRequest] = []

        async def list_nodes(request: node_pb2.ListNodesRequest, context: Any) -> node_pb2.ListNodesResponse:
            asked.append(request)
            return node_pb2.ListNodesResponse()

        served.handlers["ListNodes"] = list_nodes
        query = [("consistency", "bounded"), ("max_staleness_s", "2.5"), ("minRevision", "7")]
        query += [("selector", "zone=a"), ("selector", "disk=ssd=1"), ("limit", "3")]
        status, answer, _ = await served.ask("GET", "/v1/nodes", params=query)
        assert (status, answer) == (200, {"nodes": [], "nextToken": ""})
        (request,) = asked
        assert (request.read.consistency, request.read.max_staleness_s, request.read.min_revision) == (2, 2.5, 7)
        assert dict(request.selector) == {"zone": "a", "disk": "ssd=1"}
        assert request.limit == 3


async def test_what_is_wrong_is_refused_by_the_name_of_its_field() -> None:
    async with serving() as served:
        for verb, path, options, field, words in FAULTS:
            status, problem, headers = await served.ask(verb, path, **options)
            assert (status, problem["code"], problem["status"]) == (400, "invalid-spec", 400), (path, problem)
            assert headers["Content-Type"].startswith("application/problem+json")
            assert [one["field"] for one in problem["problems"]] == [field], (path, problem)
            assert words in problem["problems"][0]["message"]


async def test_all_that_is_wrong_is_told_at_once() -> None:
    async with serving() as served:
        _, problem, _ = await served.ask("PATCH", "/v1/nodes/n1", json={"cordned": True, "draining": "no", "x": {}})
        assert [one["field"] for one in problem["problems"]] == ["cordned", "draining", "x"]


async def test_a_path_that_is_not_there_and_a_verb_that_it_does_not_take() -> None:
    async with serving() as served:
        for path in ("/v1", "/v1/", "/v1/nodes/", "/v1/workloads/default", "/v1/none", "/%00", "/v1/%0a"):
            status, problem, _ = await served.ask("GET", path)
            assert (status, problem["code"]) == (404, "not-found"), path
        status, problem, headers = await served.ask("PUT", "/v1/nodes")
        assert (status, problem["code"], headers["Allow"]) == (405, "wrong-verb", "GET, HEAD, OPTIONS")
        assert (await served.ask("POST", PAGE))[2]["Allow"] == "GET, HEAD, OPTIONS"
        assert (await served.ask("POST", "/v1/watch"))[2]["Allow"] == "GET, OPTIONS"
        status, nothing, headers = await served.ask("OPTIONS", WEB)
        assert (status, nothing, headers["Allow"]) == (204, None, "DELETE, GET, HEAD, OPTIONS")
        assert (await served.ask("HEAD", "/v1/nodes"))[:2] == (200, None)


async def test_what_is_for_machines_only_is_not_there() -> None:
    async with serving() as served:
        for method in ("UsageService/CollectUsage", "IdentityService/FetchClusterKey", "AgentService/Session"):
            assert (await served.ask("POST", f"/v1/{method}", json={}))[0] == 404
        assert (await served.ask("POST", "/v1/BackupService/SaveBackup", json={}))[0] == 404, "a stream of bytes"


async def test_names_are_taken_as_they_were_meant() -> None:
    async with serving() as served:
        status, problem, _ = await served.ask("GET", "/v1/workloads/default/a%2Fb")
        assert (status, problem["detail"]) == (404, "there is no workload default/a/b")
        status, problem, _ = await served.ask("GET", "/v1/nodes/n2")
        assert (status, problem["hint"], problem["coordinatorId"]) == (404, "see cloudless node list", "c1")
        assert int(problem["revision"]) > 0


@pytest.mark.parametrize(
    ("error", "status"), [(Denied("no"), 403), (AgentUnreachable("away"), 503), (CommitUncertain("?"), 504)]
)
async def test_an_error_has_the_status_of_the_table_and_is_counted(error: Exception, status: int) -> None:
    async with serving() as served:

        async def fail(request: Any, context: Any) -> Any:
            raise error

        served.handlers["GetNode"] = fail
        found, problem, headers = await served.ask("GET", "/v1/nodes/n1")
        assert (found, problem["detail"]) == (status, str(error))
        assert ("Retry-After" in headers) == problem["retryable"] == (status > 500)
        assert served.outcomes == [("cloudless.rpc.v1.NodeService/GetNode", problem["code"])]


async def test_a_bug_is_an_answer_and_the_next_call_is_served() -> None:
    async with serving() as served:

        async def fail(request: Any, context: Any) -> Any:
            raise KeyError("oops")

        served.handlers["GetNode"] = fail
        status, problem, _ = await served.ask("GET", "/v1/nodes/n1")
        assert (status, problem["code"]) == (500, "internal")
        assert (await served.ask("GET", "/v1/nodes"))[0] == 200
        assert [outcome for _, outcome in served.outcomes] == ["internal", "ok"]


async def test_a_caller_that_may_not_is_refused_before_its_body_is_looked_at() -> None:
    class ShutDoor(OpenDoor):
        def enter(self, method: str, context: Any) -> None:
            assert context.peer().startswith("ipv4:127.0.0.1")
            raise Denied("not you")

    async with serving(ShutDoor()) as served:
        assert (await served.ask("PUT", f"{WEB}/scale", data=b"{"))[0] == 403
        assert (await served.ask("GET", "/v1/watch"))[0] == 403
        assert [outcome for _, outcome in served.outcomes] == ["denied", "denied"]


async def test_a_call_ends_at_the_time_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "GRACE_S", 0.05)
    async with serving() as served:
        left: list[float] = []

        async def sleep(request: Any, context: Any) -> Any:
            left.append(context.time_remaining())
            await asyncio.Event().wait()

        served.handlers["GetNode"] = sleep
        status, problem, _ = await served.ask("GET", "/v1/nodes/n1", headers={"Request-Timeout": "0.2"})
        assert (status, problem["code"]) == (504, "commit-uncertain")
        assert 0 < left[0] <= 0.2


async def test_calls_at_once_are_bounded_and_one_that_left_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "CALLS_MAX", 1)
    async with serving() as served:
        begun = asyncio.Event()

        async def sleep(request: Any, context: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

        served.handlers["GetNode"] = sleep
        first = asyncio.create_task(served.ask("GET", "/v1/nodes/n1"))
        await begun.wait()
        assert (await served.ask("GET", "/v1/nodes"))[0] == 429
        first.cancel()  # the connection is closed, and the call with it
        async with asyncio.timeout(5):
            while (await served.ask("GET", "/v1/nodes"))[0] != 200:
                await asyncio.sleep(0.01)
        assert served.outcomes[0] == ("cloudless.rpc.v1.NodeService/GetNode", "cancelled")


async def test_a_body_larger_than_any_manifest_is_refused() -> None:
    async with serving() as served:
        status, problem, _ = await served.ask("PUT", "/v1/workloads", data=b"#" * (3 << 20))
        assert (status, problem["code"]) == (413, "too-large")
