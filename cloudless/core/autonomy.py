"""What becomes of tasks whose node reaches no coordinator: they go on, but no longer than their `stop_after_s`.

Whoever wants at most one task of a kind alive sets it below the workload's `lost_after_s`: the node then has ended the
task before the leader starts another elsewhere. Time runs from the last word of any coordinator, on a clock that no
clock setting moves and that goes on while the machine sleeps. No clock survives a reboot: after one nobody can say how
long it was, so it counts as too long; the same goes for an agent that has no record of that last word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloudless.core.lifecycle import is_final
from cloudless.core.localtask import LocalTask

NOTE_PERIOD_MAX_S = 30.0
NOTE_SHARE = 0.1
"""The last word is noted on disk so often, by the shortest `stop_after_s`: a restarted agent errs by that, on the early
side."""


@dataclass(frozen=True, slots=True)
class LastWord:
    """When a coordinator was last heard: monotonic seconds of the boot `boot_id`."""

    heard_s: float = 0.0
    boot_id: str = ""

    def silence_s(self, now_s: float, boot_id: str) -> float:
        """Return for how long no coordinator was heard; infinite if nobody can say."""
        return max(0.0, now_s - self.heard_s) if self.boot_id and self.boot_id == boot_id else float("inf")


def find_overdue(tasks: Iterable[LocalTask], silence_s: float) -> tuple[str, ...]:
    """Return the ids of tasks that must not go on after so long a silence, in order."""
    return tuple(sorted(task.id for task in tasks if _is_bounded(task) and silence_s >= _stop_after_s(task)))


def describe_overdue(task: LocalTask, silence_s: float) -> str:
    """Return why the task is stopped."""
    limit = f"stopAfter is {_stop_after_s(task):g} s"
    if silence_s == float("inf"):
        return f"stopped: nobody can say for how long no coordinator was reached ({limit})"
    return f"stopped: no coordinator was reached for {silence_s:.0f} s ({limit})"


def note_period_s(tasks: Iterable[LocalTask]) -> float | None:
    """Return how old the note of the last word may become; None: no task asks for it."""
    limits = [_stop_after_s(task) for task in tasks if _is_bounded(task)]
    return min(NOTE_PERIOD_MAX_S, min(limits) * NOTE_SHARE) if limits else None


def _is_bounded(task: LocalTask) -> bool:
    return _stop_after_s(task) > 0 and task.wanted and not is_final(task.state)


def _stop_after_s(task: LocalTask) -> float:
    return task.desired.spec.stop_after_s
