"""A change's trace: into the workload's record, over the leader's plan, to the task's; and no further than it may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.coordinator.change_trace import CARRIED_MS, Scheduling, carrying_trace, report_span
from cloudless.coordinator.failover_trace import FailoverTrace
from cloudless.core import keys
from cloudless.core.model import LeaderRecord, TaskDesired, TaskState
from cloudless.core.orchestration import plan_workload
from cloudless.core.plan import Change, PutRecord
from cloudless.core.state import Candidate
from cloudless.observability import tracing
from cloudless.rpc.codec import decode_record, encode_record
from cloudless.testing.builders import TestCluster, build_workload
from tests.unit.observability.recorded import Recorded
from tests.unit.observability.test_tracing import ELSEWHERE

NOW_MS = 5_000_000


def cluster_of(traceparent: str, updated_at_ms: int = NOW_MS) -> TestCluster:
    cluster = TestCluster()
    cluster.add_node("n1")
    cluster.add_workload(replace(build_workload(replicas=2), traceparent=traceparent, updated_at_ms=updated_at_ms))
    return cluster


def schedule(cluster: TestCluster, now_ms: int = NOW_MS) -> list[TaskDesired]:
    """Plan and commit as the leader does; return the tasks that were made."""
    view = cluster.machine
    planned = plan_workload(view, "default", "web", now_ms, 7, {})
    scheduling = Scheduling(view, now_ms, 7, tracing.now_ns())
    changes = scheduling.carry(planned.changes)
    assert not cluster.commit(changes)
    scheduling.end(0)
    return [task.desired for task in cluster.machine.tasks.values()]


def test_a_workloads_record_carries_the_context_of_its_last_change_only() -> None:
    record = build_workload()
    key = keys.workload("default", "web")
    traced = carrying_trace(Change(puts=(PutRecord(key, record),)), ELSEWHERE)
    (put,) = traced.puts
    assert replace(record, traceparent=ELSEWHERE) == put.record
    parsed = keys.parse(key)
    assert parsed is not None
    assert decode_record(parsed, encode_record(put.record)) == put.record
    (after,) = carrying_trace(traced, "").puts
    assert after.record == record


def test_an_untraced_change_is_left_as_it_is() -> None:
    change = Change(puts=(PutRecord(keys.workload("default", "web"), build_workload()),))
    assert carrying_trace(change, "") is change


def test_tasks_go_on_with_the_leaders_own_span() -> None:
    recorded = Recorded()
    tasks = schedule(cluster_of(ELSEWHERE))
    (span,) = recorded.spans().values()
    assert span.name == "schedule"
    assert span.attributes is not None
    assert (span.attributes["cloudless.workload"], span.attributes["cloudless.term"]) == ("web", 7)
    assert span.context is not None
    own = f"00-{ELSEWHERE[3:35]}-{span.context.span_id:016x}-01"
    assert [task.traceparent for task in tasks] == [own, own]


def test_a_leader_that_does_not_trace_hands_the_context_on() -> None:
    assert [task.traceparent for task in schedule(cluster_of(ELSEWHERE))] == [ELSEWHERE, ELSEWHERE]


@pytest.mark.parametrize("held", ["", "spoilt", ELSEWHERE.upper()])
def test_tasks_carry_nothing_where_there_is_nothing_good_to_carry(held: str) -> None:
    assert [task.traceparent for task in schedule(cluster_of(held))] == ["", ""]


def test_a_task_placed_long_after_the_change_is_not_its_work() -> None:
    cluster = cluster_of(ELSEWHERE, updated_at_ms=NOW_MS - CARRIED_MS - 1)
    assert [task.traceparent for task in schedule(cluster)] == ["", ""]


@pytest.mark.parametrize(
    ("state", "attempt", "told"),
    [
        (TaskState.RUNNING, 1, True),
        (TaskState.FAILED, 1, True),
        (TaskState.STARTING, 1, False),
        (TaskState.RUNNING, 2, False),
    ],
)
def test_the_first_attempts_news_are_part_of_the_trace(state: TaskState, attempt: int, told: bool) -> None:
    recorded = Recorded()
    cluster = cluster_of(ELSEWHERE)
    task_id = schedule(cluster)[0].id
    task = cluster.machine.tasks[task_id]
    cluster.report(task_id, state, attempt=attempt)
    reported = cluster.machine.tasks[task_id].observed
    assert reported is not None
    with report_span(task, reported):
        pass
    assert ("report task" in recorded.spans()) is told
    assert report_span(cluster.machine.tasks[task_id], reported) is tracing.NO_SPAN  # it is known already


def candidate(term: int, coordinator_id: str) -> Candidate:
    return Candidate(keys.election(term), LeaderRecord(coordinator_id=coordinator_id), term)


def take_office(trace: FailoverTrace, term: int) -> None:
    for step in ("elected", "barrier", "running"):
        trace.step(step)
    trace.tell(term, "c2")


def test_a_failover_is_one_trace_of_what_took_how_long() -> None:
    recorded, trace = Recorded(ratio=0.0), FailoverTrace()
    trace.seen([candidate(3, "c1"), candidate(5, "c2")])
    trace.doubted(candidate(3, "c1"))
    trace.seen([candidate(5, "c2")])
    take_office(trace, 5)
    parents = recorded.parents()
    assert parents == {"failover": "", **dict.fromkeys(("depose", "elect", "barrier", "start controllers"), "failover")}
    whole = recorded.spans()["failover"]
    assert whole.attributes is not None
    assert {name.partition(".")[2]: value for name, value in whole.attributes.items()} == {
        "term": 5, "leader": "c2", "term_before": 3, "leader_before": "c1", "lost": True,
    }  # fmt: skip


def test_a_hand_over_begins_when_the_key_went() -> None:
    recorded, trace = Recorded(), FailoverTrace()
    trace.seen([candidate(3, "c1")])
    trace.seen([])
    take_office(trace, 5)
    whole = recorded.spans()["failover"]
    assert whole.attributes is not None
    assert whole.attributes["cloudless.lost"] is False


def test_the_first_leader_follows_nobody_and_tells_nothing() -> None:
    recorded, trace = Recorded(), FailoverTrace()
    trace.seen([candidate(3, "c2")])
    take_office(trace, 3)
    assert recorded.spans() == {}


def test_one_failover_is_told_once() -> None:
    recorded, trace = Recorded(), FailoverTrace()
    trace.seen([candidate(3, "c1")])
    trace.seen([candidate(5, "c2")])
    take_office(trace, 5)
    count = len(recorded.spans())
    trace.tell(5, "c2")
    assert len(recorded.spans()) == count == 5
