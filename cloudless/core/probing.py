"""When a running task's probes are tried, and what their answers come to.

::

    answer ──► count ──► tally ──► judge ──► True: passed │ False: failed │ None: not settled
                                                └──► the event Probed, for `core.taskflow`

Each probe of a task is counted for itself: `failure_threshold` failures in a row settle it as failed,
`success_threshold` successes in a row as passed, and in between the last verdict stands. A try that could not be
made at all (the container engine is away) is no answer: it counts as neither and ends no row.

A task that is found again after its agent restarted keeps the readiness it had; the counts begin anew, so it takes
a full row of failures to lose it. Its delay counts from when the attempt started, and tries that would all be due at
once are spread over one period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from zlib import crc32

from cloudless.core.localtask import LocalTask, ProbePurpose
from cloudless.core.model import Probe, TaskState


class Answer(Enum):
    """What one try came to. UNKNOWN: it could not be made, for a reason that is not the task's."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of one kind in a row; at most one of the two is not zero."""

    successes: int = 0
    failures: int = 0


def count(tally: Tally, answer: Answer) -> Tally:
    """Return the tally with one more answer."""
    match answer:
        case Answer.SUCCESS:
            return Tally(successes=tally.successes + 1)
        case Answer.FAILURE:
            return Tally(failures=tally.failures + 1)
        case Answer.UNKNOWN:
            return tally


def judge(probe: Probe, tally: Tally) -> bool | None:
    """Return whether the probe has passed or failed; None: the row is not long enough for either."""
    if tally.failures >= probe.failure_threshold:
        return False
    if tally.successes >= probe.success_threshold:
        return True
    return None


def probes_of(task: LocalTask) -> Iterator[tuple[ProbePurpose, Probe]]:
    """Yield what is to be asked of the task as it is now: nothing unless it runs and is to go on."""
    if task.state is not TaskState.RUNNING or task.ailing or not task.wanted:
        return
    spec = task.desired.spec
    if spec.liveness_probe is not None:
        yield ProbePurpose.LIVENESS, spec.liveness_probe
    if spec.readiness_probe is not None:
        yield ProbePurpose.READINESS, spec.readiness_probe


def first_try_s(task: LocalTask, probe: Probe, now_s: float) -> float:
    """Return when the probe is first tried, on the clock of `now_s` (monotonic seconds).

    That is the delay after the attempt began. For one that began long ago (adopted) it is a moment of the coming period
    that depends on the task's id: hundreds of tasks found again at once are not all asked at once.
    """
    due_s = task.begun_s + probe.initial_delay_s
    if due_s + probe.period_s >= now_s:
        return max(due_s, now_s)
    return now_s + probe.period_s * crc32(task.id.encode()) / 2**32


def next_try_s(probe: Probe, due_s: float, now_s: float) -> float:
    """Return when to try again after the try that was due at `due_s` has ended: one period on, never in the past.

    Tries that were missed meanwhile are not made up for.
    """
    return max(due_s + probe.period_s, now_s)
