"""`workload endpoints`: what a person sees of them, and how a watch goes on when a coordinator dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import pytest
from click.testing import CliRunner

from cloudless.cli import methods
from cloudless.cli.client import Client
from cloudless.cli.endpoints import Step, follow_endpoints
from cloudless.cli.main import cli
from cloudless.cli.views import print_step
from cloudless.errors import HistoryGone, NotFound, Unavailable
from cloudless.rpc.v1.names_pb2 import (
    Endpoint,
    EndpointKey,
    ListEndpointsResponse,
    WatchEndpointsRequest,
    WatchEndpointsResponse,
)
from tests.unit.cli_coordinator import FakeCoordinator


def build(task_id: str, port: int = 20_001, **fields: object) -> Endpoint:
    known: dict[str, object] = {
        "namespace": "default", "workload": "web", "task_id": task_id, "node_id": "agent-1", "zone": "zone-a",
        "host": "10.0.0.1", "port_name": "http", "port": port, "protocol": "tcp", "distance": "node",
    }  # fmt: skip
    return Endpoint(**{**known, **fields})  # type: ignore[arg-type]


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    yield made
    made.stop()


def run(coordinator: FakeCoordinator, *words: str) -> str:
    result = CliRunner().invoke(cli, ["--coordinator", coordinator.address, "workload", "endpoints", *words])
    assert result.exit_code == 0, result.stderr
    return result.stdout + result.stderr


def test_endpoints_are_a_table_and_plain_values(coordinator: FakeCoordinator) -> None:
    endpoints = [build("web-1"), build("web-2", host="[fd00::1]", doubtful=True)]
    coordinator.answer(methods.LIST_ENDPOINTS, ListEndpointsResponse(endpoints=endpoints))
    rows = [line.split() for line in run(coordinator, "web", "--near", "agent-1").splitlines()]
    assert rows[1] == ["10.0.0.1:20001", "http", "tcp", "web-1", "agent-1", "zone-a", "node"]
    assert rows[2][0] == "[fd00::1]:20001"
    assert rows[2][-1] == "?"
    assert coordinator.requests[-1].near_node_id == "agent-1"
    plain = json.loads(run(coordinator, "web", "-o", "json"))
    assert [one["taskId"] for one in plain] == ["web-1", "web-2"]


def test_none_says_where_to_learn_why(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.LIST_ENDPOINTS, ListEndpointsResponse())
    assert "cloudless workload explain web" in run(coordinator, "web")


def test_a_workload_that_does_not_exist_is_an_error(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.LIST_ENDPOINTS, NotFound("there is no workload default/web"))
    result = CliRunner().invoke(cli, ["--coordinator", coordinator.address, "workload", "endpoints", "web"])
    assert result.exit_code == 4


def test_a_watch_that_breaks_begins_anew_and_tells_only_the_difference(coordinator: FakeCoordinator) -> None:
    lives: list[list[object]] = [
        [
            WatchEndpointsResponse(complete=True, put=[build("web-1"), build("web-2")], revision=10),
            WatchEndpointsResponse(put=[build("web-3")], revision=11),
            WatchEndpointsResponse(revision=12),
            Unavailable("this coordinator is stopping"),
        ],
        [
            WatchEndpointsResponse(complete=True, put=[build("web-1", 30_000), build("web-3")], revision=14),
            HistoryGone("the store was restored"),
        ],
        [
            WatchEndpointsResponse(complete=True, put=[build("web-1", 30_000)], revision=3),
            WatchEndpointsResponse(gone=[EndpointKey(task_id="web-1", port_name="http")], revision=4),
        ],
    ]
    coordinator.answer(methods.WATCH_ENDPOINTS, lambda request: lives.pop(0))
    with Client([coordinator.address]) as client:
        steps = list(islice(follow_endpoints(client, WatchEndpointsRequest(workload="web")), 5))
    told = [({e.task_id for e in step.put}, {e.task_id for e in step.gone}) for step in steps]
    assert told == [
        ({"web-1", "web-2"}, set()),
        ({"web-3"}, set()),
        ({"web-1"}, {"web-2"}),
        (set(), {"web-3"}),
        (set(), {"web-1"}),
    ]
    assert [request.min_revision for request in coordinator.requests] == [0, 12, 0]


def test_changes_are_printed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    step = Step((build("web-3", doubtful=True),), (build("web-1"),))
    print_step("table", step)
    gone, put = capsys.readouterr().out.splitlines()
    assert gone.split() == ["-", "10.0.0.1:20001", "http", "web-1", "on", "agent-1"]
    assert put.startswith("+ ")
    assert put.endswith("web-3 on agent-1, unreachable")
    print_step("json", step)
    plain = json.loads(capsys.readouterr().out)
    assert plain["gone"] == [{"taskId": "web-1", "portName": "http"}]
