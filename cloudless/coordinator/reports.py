"""Write what agents report of their tasks: only the newest report of a task, each written once.

Reports of one task are conflated while an earlier one is being written, so a task that changes a
thousand times a second costs what the store can take, and delays nobody else's. A report is done with
when it is durable, when a later one overtook it, or when nobody knows the task any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from loguru import logger

from cloudless.coordinator.change_trace import report_span
from cloudless.coordinator.commit import Committer, PreconditionFailed
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import TaskObserved
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.errors import CloudlessError, Stale
from cloudless.ports import Clock

WRITE_TIMEOUT_S = 10.0
RETRY_PAUSE_S = 0.1


class ReportWriter:
    """Writes the reports of one session's node; `acknowledge(task_id, sequence)` for each done with."""

    def __init__(
        self,
        node_id: str,
        committer: Committer,
        replica: Replica,
        clock: Clock,
        acknowledge: Callable[[str, int], None],
    ) -> None:
        self._node_id, self._committer, self._replica, self._clock = node_id, committer, replica, clock
        self._acknowledge = acknowledge
        self._pending: dict[str, TaskObserved] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}

    def take(self, report: TaskObserved) -> None:
        """Accept a report; an older one of the same task that still waits is dropped."""
        waiting = self._pending.get(report.task_id)
        if waiting is not None and waiting.sequence >= report.sequence:
            return
        self._pending[report.task_id] = report
        if report.task_id not in self._writing:
            task = asyncio.create_task(self._write_all(report.task_id), name=f"report-{report.task_id}")
            self._writing[report.task_id] = task

    def close(self) -> asyncio.Future[list[Any]]:
        """Drop what waits, at once: the agent keeps it and reports to its next coordinator.

        Await the result to be sure that nothing is under way any more.
        """
        self._pending.clear()
        tasks = list(self._writing.values())
        for task in tasks:
            task.cancel()
        return asyncio.gather(*tasks, return_exceptions=True)

    async def _write_all(self, task_id: str) -> None:
        try:
            while (report := self._pending.pop(task_id, None)) is not None:
                if await self._write(report):
                    self._acknowledge(task_id, report.sequence)
                elif task_id not in self._pending:
                    self._pending[task_id] = report
                    await self._clock.sleep(RETRY_PAUSE_S)
        finally:
            self._writing.pop(task_id, None)

    async def _write(self, report: TaskObserved) -> bool:
        """Return whether the report is done with."""
        task = self._replica.machine.tasks.get(report.task_id)
        if task is None or task.desired.node_id != self._node_id:
            return True
        if task.ended or (task.observed is not None and task.observed.sequence >= report.sequence):
            return True
        observed_key = keys.task_observed(report.task_id)
        change = Change(
            puts=(PutRecord(observed_key, report),),
            preconditions=(
                Precondition(observed_key, self._replica.machine.mod_revision(observed_key)),
                Precondition(keys.task_desired(report.task_id), task.desired_revision),
            ),
            reason="report",
        )
        try:
            with report_span(task, report):
                await self._committer.commit(change, timeout_s=WRITE_TIMEOUT_S)
            return True
        except PreconditionFailed as error:
            await self._catch_up(error.revision)
        except CloudlessError as error:
            logger.debug("report of {task} not written yet: {}", error, task=report.task_id)
        return False

    async def _catch_up(self, revision: int) -> None:
        try:
            await self._replica.wait_for(revision, timeout_s=2.0)
        except Stale as error:
            logger.debug("{}", error)
