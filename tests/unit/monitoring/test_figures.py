"""What is counted as it happens: commits, restarts of tasks, heartbeats that came late; and etcd's own, passed on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.agent.steps import StepLog
from cloudless.coordinator.commit_figures import CommitFigures
from cloudless.coordinator.orchestrator import _most_in_the_way
from cloudless.coordinator.sessions import AgentSession
from cloudless.coordinator.task_tally import TaskTally
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import NodeInfo, TaskDesired, TaskObserved, TaskState
from cloudless.core.scheduling import Diagnosis
from cloudless.core.state import Applied, Transition
from cloudless.core.taskflow import accept
from cloudless.errors import Unavailable
from cloudless.observability.metrics import NO_NODES, OTHER
from cloudless.testing.builders import build_task_template

REPORT = TaskObserved(task_id="t1", node_id="n1", sequence=1, state=TaskState.RUNNING, attempt=1)
DESIRED = TaskDesired(
    id="t1", namespace="default", workload="web", workload_uid="u1", task_generation=1, slot=0, node_id="n1",
    spec=build_task_template(),
)  # fmt: skip


def told(before: TaskObserved | None, after: TaskObserved | None) -> Applied:
    return Applied(9, (Transition(keys.task_observed("t1"), Kind.TASK_OBSERVED, before, after, 9),))


def test_figures_add_up_and_tell_of_each_transaction() -> None:
    heard: list[tuple[int, float]] = []
    figures = CommitFigures(on_transaction=lambda changes, took_s: heard.append((changes, took_s)))
    figures.note(3, 0.25)
    figures.note(1, 0.5)
    assert (figures.transactions_total, figures.changes_total) == (2, 4)
    assert heard == [(3, 0.25), (1, 0.5)]


def test_restarts_and_failures_count_by_what_is_new_in_a_report() -> None:
    tally = TaskTally()
    again = replace(REPORT, sequence=2, restarts=2, attempt=3, probe_failures=1)
    failed = replace(again, sequence=3, state=TaskState.FAILED)
    for before, after in ((None, REPORT), (REPORT, again), (again, failed), (failed, failed), (failed, None)):
        tally.on_applied(told(before, after))
    assert (tally.restarts_total, tally.probe_failures_total, tally.failures_total) == (2, 1, 1)


def test_a_report_seen_for_the_first_time_may_be_old_and_counts_for_nothing() -> None:
    tally = TaskTally()
    tally.on_applied(told(None, replace(REPORT, restarts=7, state=TaskState.FAILED)))
    assert (tally.restarts_total, tally.failures_total) == (0, 0)


@pytest.mark.parametrize(
    ("beats_s", "missed"),
    [((0.0, 1.0, 2.1, 2.9), 0), ((0.0, 1.4, 2.4), 0), ((0.0, 2.0), 1), ((0.0, 1.0, 4.1, 5.0), 2)],
)
def test_a_heartbeat_that_comes_late_tells_how_many_are_missing(beats_s: tuple[float, ...], missed: int) -> None:
    session = AgentSession(NodeInfo(id="n1"), incarnation=1)
    session.period_told_s = 1.0
    assert sum(session.beat(100.0 + at_s) for at_s in beats_s) == missed


def test_nothing_is_missed_before_an_agent_was_told_how_often_to_beat() -> None:
    session = AgentSession(NodeInfo(id="n1"), incarnation=1)
    assert [session.beat(at_s) for at_s in (100.0, 190.0)] == [0, 0]


def test_starts_are_counted_by_attempts() -> None:
    steps, new = StepLog(), accept(DESIRED, sequence=1)
    first = replace(new, attempt=1, state=TaskState.STARTING)
    running = replace(first, state=TaskState.RUNNING)
    second = replace(first, attempt=2)
    for before, after in ((new, first), (first, running), (running, second)):
        steps.note(before, after)
    assert (steps.starts_total, steps.restarts_total) == (2, 1)


@pytest.mark.parametrize(
    ("diagnosis", "label"),
    [
        (Diagnosis(3, (("lack cpu", 2), ("is offline", 1)), ("capacity", "offline")), "capacity"),
        (Diagnosis(0, ()), NO_NODES),
        (Diagnosis(3, (("of a later version", 3),), ("later",)), OTHER),
    ],
)
def test_a_task_without_a_node_is_counted_under_what_most_nodes_have_in_the_way(
    diagnosis: Diagnosis, label: str
) -> None:
    assert _most_in_the_way(diagnosis) == label


class Member(BaseHTTPRequestHandler):
    """Answers as an etcd does whose metrics are asked for."""

    body: ClassVar[bytes] = b"etcd_server_has_leader 1\n"
    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/metrics" else 404)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        return None


async def ask_member(bytes_max: int, **answers: object) -> str:
    handler = type("Handler", (Member,), answers)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving = Thread(target=server.serve_forever, daemon=True)
    serving.start()
    admin = EtcdAdmin(f"http://127.0.0.1:{server.server_address[1]}")
    try:
        return await admin.metrics(bytes_max)
    finally:
        admin.close()
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def test_a_members_metrics_are_passed_on_as_they_are() -> None:
    assert await ask_member(1000) == "etcd_server_has_leader 1\n"


async def test_a_member_that_says_too_much_is_cut_off() -> None:
    with pytest.raises(Unavailable, match="more than 1000 bytes"):
        await ask_member(1000, body=b"x" * 5000)


async def test_a_member_that_refuses_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await ask_member(1000, status=500)


async def test_a_member_that_is_down_is_unavailable() -> None:
    admin = EtcdAdmin("http://127.0.0.1:1")
    try:
        with pytest.raises(Unavailable):
            await admin.metrics(1000)
    finally:
        admin.close()
