"""What the leader tells people of a task's probes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudless.coordinator.recorder import describe
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import TaskObserved, TaskState
from cloudless.core.state import Transition

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
