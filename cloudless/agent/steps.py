"""What is told of every step of a task: a line in the log when its state changes, and how often it was started."""

from __future__ import annotations

from cloudless.agent.task_telling import log_change
from cloudless.core.localtask import LocalTask


class StepLog:
    """`starts_total` counts attempts begun, `restarts_total` those of them that were not the first of their task."""

    def __init__(self) -> None:
        self.starts_total = 0
        self.restarts_total = 0

    def note(self, before: LocalTask, after: LocalTask) -> None:
        """Take a step."""
        if after.attempt > before.attempt:
            self.starts_total += 1
            self.restarts_total += before.attempt > 0
        if after.state is not before.state:
            log_change(before, after)
