"""What an ended task means for its slot: start another, after how long, or leave it at that.

The agent has already restarted the task by its policy; an end that reaches us is final. `exhausted`
means that all starts in the slot, the agent's and ours, have used up max_retries.

    ============  =========================  =======================================
    condition     COMPLETED                  FAILED (or STOPPED without being told)
    ============  =========================  =======================================
    ALWAYS        again, after a back-off    again, after a back-off
    ON_FAILURE    done                       exhausted: done, else again, after a back-off
    NEVER         done                       done
    ============  =========================  =======================================

`max_retries` 0 means no limit. The next task avoids the node the last one failed on, if another fits.

Back-off: the n-th end in a row waits min(60, 2**(n-1)) s since it happened. An end after a stable
minute of running starts the count again. Times are wall clocks of other machines: one that cannot be
true is replaced by the time we created the task, so a wrong clock can neither block a slot nor let it spin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudless.core.model import RestartCondition, RestartPolicy, TaskState
from cloudless.core.state.view import Task

BACKOFF_MAX_S = 60.0
STABLE_MS = 60_000
ENDS_REMEMBERED = 7
"""Ends in a row after which the back-off no longer grows; `reap` keeps that many."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the ended tasks of one slot ask for.

    `done` is the task that fills the slot for good. Otherwise the slot may be filled in `resume_in_s`
    seconds, after `ends` ends in a row; `last` is the newest end, None if there was none.
    """

    done: Task | None = None
    last: Task | None = None
    ends: int = 0
    resume_in_s: float = 0.0


def judge_ending(ended: Sequence[Task], policy: RestartPolicy, now_ms: int) -> Ending:
    """Judge the tasks of one slot and the present template that were wanted and ended by themselves, oldest first."""
    if not ended:
        return Ending()
    last = ended[-1]
    if is_done(ended, policy):
        return Ending(done=last, last=last)
    ends = _ends_in_a_row(ended)
    delay_s = min(BACKOFF_MAX_S, 2.0 ** (min(ends, ENDS_REMEMBERED) - 1))
    return Ending(last=last, ends=ends, resume_in_s=_remaining_s(last, delay_s, now_ms))


def is_done(ended: Sequence[Task], policy: RestartPolicy) -> bool:
    """Return whether the newest of the ended tasks fills its slot for good."""
    match policy.condition:
        case RestartCondition.ALWAYS:
            return False
        case RestartCondition.NEVER:
            return True
        case RestartCondition.ON_FAILURE:
            return ended[-1].state is TaskState.COMPLETED or _exhausted(ended, policy)


def _exhausted(ended: Sequence[Task], policy: RestartPolicy) -> bool:
    starts = sum(1 + (task.observed.restarts if task.observed else 0) for task in ended)
    return policy.max_retries > 0 and starts - 1 >= policy.max_retries


def _ends_in_a_row(ended: Sequence[Task]) -> int:
    count = 1
    for task in reversed(ended[:-1]):
        if _was_stable(task):
            break
        count += 1
    return 1 if _was_stable(ended[-1]) else count


def _was_stable(task: Task) -> bool:
    seen = task.observed
    return seen is not None and 0 < seen.started_at_ms <= seen.finished_at_ms - STABLE_MS


def _remaining_s(last: Task, delay_s: float, now_ms: int) -> float:
    finished_ms = last.observed.finished_at_ms if last.observed else 0
    created_ms = last.desired.created_at_ms
    ended_ms = finished_ms if created_ms <= finished_ms <= now_ms else created_ms
    remaining_s = delay_s - (now_ms - ended_ms) / 1000
    return remaining_s if 0 < remaining_s <= 2 * delay_s else 0.0


def describe_end(task: Task) -> str:
    """Return in words how a task ended."""
    seen = task.observed
    if seen is None:
        return "no report"
    if seen.message:
        return seen.message[:120]
    if seen.signal:
        return f"signal {seen.signal}"
    return f"exit code {seen.exit_code}" if seen.exit_code >= 0 else seen.state.value
