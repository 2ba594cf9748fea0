"""What the leader tells people of tasks: their probes, and their moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudless.adapters.system import RandomIds
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.recorder import EVENTS_A_CHANGE, Recorder, describe
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import Desired, TaskDesired, TaskObserved, TaskState
from cloudless.core.state import Transition
from cloudless.testing.builders import build_task_template
from cloudless.testing.faulty_store import ANSWER_LOST, script
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.leading import CLOCK, leading

SEEN = TaskObserved(task_id="t1", node_id="n1", sequence=1, state=TaskState.RUNNING, attempt=1, ready=False)


def told(before: TaskObserved | None, **fields: Any) -> list[tuple[str, str]]:
    after = replace(before or SEEN, sequence=2, **fields)
    transition = Transition(keys.task_observed("t1"), Kind.TASK_OBSERVED, before, after, 2)
    return [(kind, message) for kind, _, message, _ in describe(transition)]


def test_readiness_is_told_when_it_changes() -> None:
    assert told(SEEN, ready=True, ready_since_ms=5) == [("TaskReady", "on n1, attempt 1")]
    ready = replace(SEEN, ready=True, ready_since_ms=5)
    assert told(ready, message="other") == []
    assert told(ready, ready=False, ready_since_ms=9, message="not ready: no") == [("TaskNotReady", "not ready: no")]
    assert told(SEEN, message="not ready: no") == [], "it never was ready"


def test_a_liveness_failure_is_told_once() -> None:
    ailing = replace(SEEN, probe_failures=1, message="the liveness probe failed: no")
    assert told(SEEN, probe_failures=1, message=ailing.message) == [("TaskUnhealthy", ailing.message)]
    assert told(ailing) == []


def test_an_end_seen_with_its_liveness_failure_tells_both() -> None:
    after = told(SEEN, probe_failures=1, state=TaskState.BACKOFF, message="the liveness probe failed: no; restart 1")
    assert [kind for kind, _ in after] == ["TaskUnhealthy", "TaskRestarting"]


def test_an_end_is_told_though_only_what_came_after_it_was_reported() -> None:
    again = "ended by signal 9; started again"
    assert told(SEEN, state=TaskState.STARTING, attempt=2, signal=9) == [("TaskRestarting", again)]
    waits = replace(SEEN, state=TaskState.BACKOFF, signal=9, message="ended by signal 9; restart 1 in 1 s")
    assert told(waits, state=TaskState.STARTING, attempt=2, message="") == [], "it was told when it ended"
    assert told(waits, state=TaskState.RUNNING, attempt=4, signal=0, exit_code=3, message="") == [
        ("TaskRestarting", "2 attempts ended, the last one with exit code 3; started again"),
        ("TaskRunning", "on n1, attempt 4"),
    ]
    assert told(SEEN, state=TaskState.FAILED, attempt=2, exit_code=1, message="gave up") == [
        ("TaskRestarting", "ended with exit code 1; started again"),
        ("TaskFailed", "gave up"),
    ]
    fresh = TaskObserved(task_id="t1", node_id="n1", sequence=4, state=TaskState.RUNNING, attempt=2, signal=9)
    transition = Transition(keys.task_observed("t1"), Kind.TASK_OBSERVED, None, fresh, 2)
    assert [kind for kind, *_ in describe(transition)] == ["TaskRestarting", "TaskRunning"]


def test_a_move_is_told_by_the_task_that_gives_way() -> None:
    task = TaskDesired(
        id="web-1", namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
        spec=build_task_template(),
    )  # fmt: skip
    marked = replace(task, successor_id="web-2")

    def kinds(before: TaskDesired, after: TaskDesired) -> list[tuple[str, str, str]]:
        transition = Transition(keys.task_desired("web-1"), Kind.TASK_DESIRED, before, after, 2)
        return [(kind, subject, message) for kind, subject, message, _ in describe(transition)]

    told_once = [("TaskMoving", "task/web-1", "from n1: gives way to web-2 once that is available")]
    assert kinds(task, marked) == told_once
    assert kinds(marked, marked) == kinds(marked, task) == []
    stopped = replace(marked, desired=Desired.STOPPED, reason="replaced by web-2")
    assert kinds(marked, stopped) == [("TaskStopping", "task/web-1", "replaced by web-2")]


@virtually
async def test_many_events_are_written_together_and_once_though_an_answer_is_lost() -> None:
    """One group and a bit: all are told, each once, and in far fewer changes than there are events."""
    tasks = EVENTS_A_CHANGE + 10
    async with leading() as cluster:
        recorder = Recorder("c1", cluster.replica, RollingLease(cluster.store, CLOCK), CLOCK, RandomIds())
        async with running(recorder.run(1, cluster.committer)):
            await eventually(lambda: len(cluster.replica.machine.events) == 1, within_s=10)  # that it leads
            cluster.store.choose = script(ANSWER_LOST)
            before = cluster.committer.figures.changes_total
            for number in range(tasks):
                await cluster.add_task(f"t{number}", "n1")
            await eventually(lambda: len(cluster.replica.machine.events) >= tasks + 1, within_s=60)
            await CLOCK.sleep(5.0)
        told = [event.subject for event in cluster.replica.machine.events.values() if event.kind == "TaskCreated"]
        assert sorted(told) == sorted(f"task/t{number}" for number in range(tasks))
        assert cluster.committer.figures.changes_total - before < tasks
