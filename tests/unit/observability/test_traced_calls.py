"""A call at its door: it goes on with its caller's trace, and its log lines say what is being served."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from cloudless.adapters.grpc.server import GrpcServer
from cloudless.cli.aio import AsyncClient
from cloudless.cli.methods import GET_STATUS
from cloudless.coordinator.api.access import Access, Decided
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.core import keys
from cloudless.core.plan import Change, PutRecord
from cloudless.errors import NotFound, Unavailable
from cloudless.observability import tracing
from cloudless.observability.logs import LogSettings, configure_logs
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import common_pb2
from cloudless.testing.builders import build_workload
from cloudless.testing.virtual_time import virtually
from tests.unit.http.serving import serving
from tests.unit.leading import CLOCK, Cluster, leading
from tests.unit.observability.recorded import Recorded
from tests.unit.observability.test_tracing import NOT_RECORDED

Serve = Callable[[], pb.GetStatusResponse]
SERVICE = pb.DESCRIPTOR.services_by_name["ClusterService"]


class Served:
    """A coordinator's server with one method, which does what the test says; and a client of it."""

    serve: Serve = staticmethod(pb.GetStatusResponse)
    client: AsyncClient


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()

    async def get_status(request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        return made.serve()

    server = GrpcServer("127.0.0.1:0", "c1")
    server.add(SERVICE, lambda method: get_status)
    async with AsyncClient([f"127.0.0.1:{await server.start()}"], timeout_s=2.0) as made.client:
        yield made
    await server.stop(0)


async def test_a_call_goes_on_with_its_callers_trace(served: Served) -> None:
    recorded = Recorded()
    with tracing.span("cloudless cluster status"):
        await served.client.call(GET_STATUS, pb.GetStatusRequest())
    assert recorded.parents() == {"cloudless cluster status": "", "GetStatus": "cloudless cluster status"}
    attributes = recorded.spans()["GetStatus"].attributes
    assert attributes is not None
    assert attributes["rpc.service"] == "cloudless.rpc.v1.ClusterService"


async def test_a_call_of_nobodys_trace_begins_one(served: Served) -> None:
    recorded = Recorded()
    await served.client.call(GET_STATUS, pb.GetStatusRequest())
    assert recorded.parents() == {"GetStatus": ""}


async def test_a_caller_that_does_not_record_is_followed_in_that(served: Served) -> None:
    recorded = Recorded()
    with tracing.span("quiet", parent=NOT_RECORDED):
        await served.client.call(GET_STATUS, pb.GetStatusRequest())
    assert recorded.spans() == {}


async def test_a_refusal_is_told_by_its_code(served: Served) -> None:
    recorded = Recorded()

    def refuse() -> pb.GetStatusResponse:
        raise NotFound("nothing here")

    served.serve = refuse  # type: ignore[method-assign]
    with pytest.raises(NotFound):
        await served.client.call(GET_STATUS, pb.GetStatusRequest())
    attributes = recorded.spans()["GetStatus"].attributes
    assert attributes is not None
    assert attributes["error.type"] == NotFound.code


async def test_lines_of_a_call_say_which_and_a_bug_has_its_stack(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(LogSettings(form="json", process="coordinator", node_id="c1"))

    def fail() -> pb.GetStatusResponse:
        logger.info("almost there")
        raise RuntimeError("a bug")

    served.serve = fail  # type: ignore[method-assign]
    with pytest.raises(Exception, match="a bug"):
        await served.client.call(GET_STATUS, pb.GetStatusRequest(), timeout_s=0.5)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["method"] for line in lines} == {"cloudless.rpc.v1.ClusterService/GetStatus"}
    assert lines[0]["message"] == "almost there"
    assert lines[1]["exception"].endswith("RuntimeError: a bug")


def build_access(cluster: Cluster, require_room: Callable[[], None] = lambda: None) -> Access:
    leases = RecordLeases(RollingLease(cluster.store, CLOCK), RollingLease(cluster.store, CLOCK))
    ids = SimpleNamespace(new=lambda: "id")
    return Access("c1", cluster.replica, cluster.committer, leases, CLOCK, ids, require_room)


@virtually
async def test_a_write_carries_its_trace_and_binds_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    recorded = Recorded()
    configure_logs(LogSettings(form="json"))
    async with leading() as cluster:
        access = build_access(cluster, lambda: logger.info("there is room"))
        record, key = build_workload(), keys.workload("default", "web")
        change = Change(puts=(PutRecord(key, record),), reason="apply")
        options = common_pb2.WriteOptions(request_id="apply-1")
        with tracing.span("ApplyWorkload"):
            await access.write(options, b"apply", lambda view: Decided(change, {}), None)
        stored = cluster.replica.machine.workloads["default", "web"].record
        commit = recorded.spans()["commit"]
        assert recorded.parents() == {"ApplyWorkload": "", "commit": "ApplyWorkload"}
        assert commit.context is not None
        assert stored.traceparent == f"00-{commit.context.trace_id:032x}-{commit.context.span_id:016x}-01"
        options = common_pb2.WriteOptions(request_id="apply-2")
        await access.write(options, b"apply", lambda view: Decided(change, {}), None)
        assert cluster.replica.machine.workloads["default", "web"].record.traceparent == ""
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["request_id"] for line in lines if line["message"] == "there is room"] == ["apply-1", "apply-2"]


def test_unavailable_is_a_failure_of_ours() -> None:
    recorded = Recorded()
    with pytest.raises(Unavailable), tracing.span("call"):
        raise Unavailable("no quorum")
    assert not recorded.spans()["call"].status.is_ok


async def test_a_call_over_http_goes_on_with_its_callers_trace() -> None:
    recorded = Recorded()
    asked = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving() as served:
        assert (await served.ask("GET", "/v1/nodes/n1", headers={"traceparent": asked}))[0] == 200
    assert recorded.parents()["GetNode"] == "elsewhere"
    assert recorded.trace_ids() == {asked[3:35]}
