"""What becomes of tasks, counted from the changes of the state as this coordinator sees them go by."""

from __future__ import annotations

from cloudless.core.keys import Kind
from cloudless.core.model import TaskObserved, TaskState
from cloudless.core.state import Applied


class TaskTally:
    """Give `on_applied` to the replica. All count from this coordinator's start; a fresh read counts for nothing."""

    def __init__(self) -> None:
        self.restarts_total = 0
        self.failures_total = 0
        self.probe_failures_total = 0

    def on_applied(self, applied: Applied) -> None:
        for transition in applied.transitions:
            if transition.kind is Kind.TASK_OBSERVED:
                self._count(transition.before, transition.after)

    def _count(self, before: object, after: object) -> None:
        """Count what is new in `after`; without a report before it, what it tells may have been long ago."""
        if not (isinstance(before, TaskObserved) and isinstance(after, TaskObserved)):
            return
        self.restarts_total += max(0, after.restarts - before.restarts)
        self.probe_failures_total += max(0, after.probe_failures - before.probe_failures)
        self.failures_total += after.state is TaskState.FAILED and before.state is not TaskState.FAILED
