"""The newest report of each task, and which of them a coordinator has acknowledged.

Only the newest report of a task is kept: a thousand changes while nobody listens are one message later. A
session takes what it has not sent yet, or sent long ago without an answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from cloudless.core.model import TaskObserved
from cloudless.observability.secrets import without_kept


class ReportBook:
    """What there is to report. `changed` is set by every new report, and when the node's own facts changed."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._newest: dict[str, TaskObserved] = {}
        self._pending: dict[str, TaskObserved] = {}

    def put(self, report: TaskObserved) -> None:
        """Take a report. What a program said of its failure may quote its environment: everybody would read that."""
        words = without_kept(report.message)
        report = report if words == report.message else replace(report, message=words)
        held = self._newest.get(report.task_id)
        self._newest[report.task_id] = report
        if held is None or held.sequence != report.sequence or report.task_id in self._pending:
            self._pending[report.task_id] = report
        self.changed.set()

    def forget(self, task_id: str) -> None:
        self._newest.pop(task_id, None)
        self._pending.pop(task_id, None)

    def acknowledge(self, task_id: str, sequence: int) -> None:
        report = self._pending.get(task_id)
        if report is not None and sequence >= report.sequence:
            del self._pending[task_id]

    def all(self) -> list[TaskObserved]:
        return list(self._newest.values())

    def pending(self) -> list[TaskObserved]:
        """Return the newest reports that nobody has acknowledged."""
        return list(self._pending.values())

    @property
    def pending_count(self) -> int:
        return len(self._pending)


@dataclass(slots=True)
class Outbox:
    """What one session has sent of the book, and when."""

    book: ReportBook
    resend_s: float
    resent: int = 0
    _sent: dict[str, tuple[int, float]] = field(default_factory=dict)

    def take_all(self, now_s: float) -> list[TaskObserved]:
        """Return every task's report: a coordinator that becomes primary is told everything."""
        return self._mark(self.book.all(), now_s)

    def take_due(self, now_s: float, count_max: int) -> list[TaskObserved]:
        """Return what is new since it was last sent, or unanswered for too long, at most `count_max`."""
        due = []
        for report in self.book.pending():
            sequence, sent_s = self._sent.get(report.task_id, (0, 0.0))
            if sequence != report.sequence or now_s - sent_s >= self.resend_s:
                self.resent += sequence == report.sequence
                due.append(report)
            if len(due) == count_max:
                break
        return self._mark(due, now_s)

    def _mark(self, reports: list[TaskObserved], now_s: float) -> list[TaskObserved]:
        for report in reports:
            self._sent[report.task_id] = (report.sequence, now_s)
        return reports
