"""How a move that `rebalance` began ends if it does not end well.

The old task bears the mark of its successor. While that one is in the slot, and its node is no reason against it, the
old one waits to be stopped. If the successor fails or is not available in time, the mark stays: the task is not moved
again. If its node is lost or drained, both the successor and the mark go: that says nothing of the next try.
"""

from __future__ import annotations

from dataclasses import replace

from cloudless.core import keys
from cloudless.core.model import WorkloadRecord
from cloudless.core.orchestration.changes import Decider, stop_task
from cloudless.core.plan import Change, PutRecord
from cloudless.core.state.view import Task

SUCCESSOR_DEADLINE_S = 600.0
"""How long a successor may take where the workload sets no progress deadline."""


def remaining_s(record: WorkloadRecord, successor: Task, now_ms: int) -> float:
    """Return for how long a successor is still waited for, 0 if no more."""
    allowed_s = record.spec.rollout.progress_deadline_s or SUCCESSOR_DEADLINE_S
    passed_s = (now_ms - successor.desired.created_at_ms) / 1000
    return max(0.0, allowed_s - passed_s) if passed_s >= 0 else 0.0  # a clock that went back must not prolong it


def take_back(successor: Task, old: Task, decider: Decider, reason: str) -> Change:
    """Return the change that stops a successor and takes its mark off the old task, which goes on as it was seen."""
    unmarked = replace(old.desired, successor_id="", term=decider.term)
    stop = stop_task(successor, decider, reason, replaced_by=old)
    return replace(stop, puts=(*stop.puts, PutRecord(keys.task_desired(old.id), unmarked)))
