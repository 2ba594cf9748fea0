"""The clients against real gRPC servers: failover, request ids, typed errors, streams that resume."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from cloudless.cli.aio import AsyncClient
from cloudless.cli.client import Client
from cloudless.cli.failures import to_error
from cloudless.cli.methods import GET_NODE, LIST_NODES, SCALE_WORKLOAD, TRANSFER_LEADER, WATCH
from cloudless.cli.watch import follow
from cloudless.errors import (
    CloudlessError,
    CommitUncertain,
    InvalidSpec,
    NotFound,
    NotLeader,
    Problem,
    Unavailable,
    all_errors,
    outcome_of,
)
from cloudless.rpc.v1.cluster_pb2 import TransferLeaderRequest
from cloudless.rpc.v1.common_pb2 import ErrorDetail
from cloudless.rpc.v1.event_pb2 import WatchRequest, WatchResponse
from cloudless.rpc.v1.node_pb2 import GetNodeRequest, ListNodesRequest, ListNodesResponse, Node
from cloudless.rpc.v1.workload_pb2 import ScaleWorkloadRequest, ScaleWorkloadResponse
from tests.unit.cli_coordinator import FakeCoordinator

CLOSED = "127.0.0.1:1"


@pytest.fixture
def coordinators() -> Iterator[list[FakeCoordinator]]:
    made = [FakeCoordinator() for _ in range(3)]
    yield made
    for coordinator in made:
        coordinator.stop()


def test_the_next_coordinator_is_asked_when_one_is_away(coordinators: list[FakeCoordinator]) -> None:
    coordinators[0].answer(LIST_NODES, ListNodesResponse(nodes=[Node(id="n1")]))
    with Client((CLOSED, coordinators[0].address)) as client:
        assert client.call(LIST_NODES, ListNodesRequest()).nodes[0].id == "n1"


def test_a_write_keeps_its_request_id_over_all_attempts(coordinators: list[FakeCoordinator]) -> None:
    coordinators[0].answer(SCALE_WORKLOAD, NotLeader("the leader is away"))
    coordinators[1].answer(SCALE_WORKLOAD, CommitUncertain("no answer from the store"))
    coordinators[2].answer(SCALE_WORKLOAD, ScaleWorkloadResponse())
    with Client([c.address for c in coordinators]) as client:
        client.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="hello", replicas=2))
    ids = {request.options.request_id for c in coordinators for request in c.requests}
    assert len(ids) == 1
    assert all(ids)


def test_a_request_id_given_is_kept(coordinators: list[FakeCoordinator]) -> None:
    coordinators[0].answer(SCALE_WORKLOAD, ScaleWorkloadResponse())
    request = ScaleWorkloadRequest(name="hello")
    request.options.request_id = "mine"
    with Client((coordinators[0].address,)) as client:
        client.call(SCALE_WORKLOAD, request)
    assert coordinators[0].requests[0].options.request_id == "mine"


def test_the_coordinator_that_answered_is_asked_first_next_time(coordinators: list[FakeCoordinator]) -> None:
    coordinators[1].answer(LIST_NODES, ListNodesResponse())
    with Client((CLOSED, coordinators[1].address, coordinators[2].address)) as client:
        client.call(LIST_NODES, ListNodesRequest())
        started_s = time.monotonic()
        client.call(LIST_NODES, ListNodesRequest())
    assert time.monotonic() - started_s < 0.5
    assert len(coordinators[1].requests) == 2
    assert coordinators[2].requests == []


def test_a_coordinator_that_hangs_is_left_after_one_attempt(coordinators: list[FakeCoordinator]) -> None:
    def hang(_: ListNodesRequest) -> ListNodesResponse:
        time.sleep(4)
        return ListNodesResponse()

    coordinators[0].answer(LIST_NODES, hang)
    coordinators[1].answer(LIST_NODES, ListNodesResponse(nodes=[Node(id="n1")]))
    with Client([c.address for c in coordinators[:2]]) as client:
        assert client.call(LIST_NODES, ListNodesRequest()).nodes


def test_nobody_there_is_said_within_two_seconds_or_so() -> None:
    started_s = time.monotonic()
    with Client((CLOSED,)) as client, pytest.raises(Unavailable, match="no coordinator answers"):
        client.call(LIST_NODES, ListNodesRequest())
    assert time.monotonic() - started_s < 5


def test_a_write_without_an_answer_is_uncertain(coordinators: list[FakeCoordinator]) -> None:
    def hang(_: ScaleWorkloadRequest) -> ScaleWorkloadResponse:
        time.sleep(1)
        return ScaleWorkloadResponse()

    coordinators[0].answer(SCALE_WORKLOAD, hang)
    with Client((coordinators[0].address,), timeout_s=0.5) as client, pytest.raises(CommitUncertain):
        client.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="hello"))


def test_a_transfer_without_an_answer_is_not_repeated(coordinators: list[FakeCoordinator]) -> None:
    def hang(_: TransferLeaderRequest) -> None:
        time.sleep(1)

    for coordinator in coordinators:
        coordinator.answer(TRANSFER_LEADER, hang)
    client = Client([c.address for c in coordinators], timeout_s=0.5)
    with client, pytest.raises(CommitUncertain):
        client.call(TRANSFER_LEADER, TransferLeaderRequest())
    assert sum(len(c.requests) for c in coordinators) == 1


@pytest.mark.parametrize("error_class", list(all_errors()))
def test_every_typed_error_arrives_as_itself(error_class: type[CloudlessError]) -> None:
    detail = ErrorDetail(code=error_class.code, message="what happened", hint="what to do")
    error = to_error(detail)
    assert error.code == error_class.code
    assert outcome_of(type(error)) == outcome_of(error_class)
    assert (error.message, error.hint) == ("what happened", "what to do")


def test_an_error_of_a_newer_version_is_still_an_error() -> None:
    assert type(to_error(ErrorDetail(code="of-the-future", message="m"))) is CloudlessError


def test_problems_travel_one_by_one(coordinators: list[FakeCoordinator]) -> None:
    problems = (Problem("spec.replicas", "must not be negative"), Problem("spec.image", "is empty"))
    coordinators[0].answer(GET_NODE, InvalidSpec(problems))
    with Client((coordinators[0].address,)) as client, pytest.raises(InvalidSpec) as caught:
        client.call(GET_NODE, GetNodeRequest(node_id="n1"))
    assert caught.value.problems == problems


def test_a_watch_resumes_at_another_coordinator_without_gap_or_repeat(coordinators: list[FakeCoordinator]) -> None:
    def first(request: WatchRequest) -> Iterator[object]:
        yield from (WatchResponse(revision=r) for r in (request.from_revision, request.from_revision + 1))
        yield Unavailable("stopping")

    def second(request: WatchRequest) -> Iterator[object]:
        yield from (WatchResponse(revision=r) for r in range(request.from_revision, request.from_revision + 5))

    coordinators[0].answer(WATCH, first)
    coordinators[1].answer(WATCH, second)
    with Client([c.address for c in coordinators[:2]]) as client:
        seen = [answer.revision for answer in itertools.islice(follow(client, 10, ()), 5)]
    assert seen == [10, 11, 12, 13, 14]


async def test_the_asyncio_client_fails_over_under_one_request_id(coordinators: list[FakeCoordinator]) -> None:
    coordinators[0].answer(SCALE_WORKLOAD, NotLeader("away"))
    coordinators[1].answer(SCALE_WORKLOAD, ScaleWorkloadResponse())
    async with AsyncClient((CLOSED, *(c.address for c in coordinators[:2]))) as client:
        await client.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="hello"))
    ids = {request.options.request_id for c in coordinators for request in c.requests}
    assert len(ids) == 1


async def test_the_asyncio_client_raises_typed_errors(coordinators: list[FakeCoordinator]) -> None:
    coordinators[0].answer(GET_NODE, NotFound("no node n9", hint="`cloudless node list`"))
    async with AsyncClient((coordinators[0].address,)) as client:
        with pytest.raises(NotFound, match="no node n9"):
            await client.call(GET_NODE, GetNodeRequest(node_id="n9"))
