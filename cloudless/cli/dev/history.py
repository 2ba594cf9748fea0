"""Record every change of the writer's workloads, from whichever coordinator lives, without a gap.

What the acknowledgements are checked against: a value overwritten since can no longer be read, but it must have
been delivered at its revision.
"""

from __future__ import annotations

import asyncio
import time

from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev.writer import ANNOTATION, NAMESPACE
from cloudless.cli.methods import WATCH
from cloudless.errors import CloudlessError, HistoryGone
from cloudless.rpc.v1.event_pb2 import Change, WatchRequest

_PAUSE_S = 0.05


class History:
    """`values` maps (name, revision) to the number written; `gaps` are revision ranges that could not be recorded."""

    def __init__(self, client: AsyncClient, from_revision: int) -> None:
        self._client = client
        self._next_revision = from_revision
        self._after_gap = False
        self.values: dict[tuple[str, int], int] = {}
        self.gaps: list[tuple[int, int]] = []
        self.refusals: list[str] = []

    async def record(self) -> None:
        """Record until cancelled."""
        while True:
            try:
                await self._follow()
            except HistoryGone:
                # Only what comes from now on can be had; the first answer tells where the gap ends.
                self._after_gap = True
            except CloudlessError as error:
                if not error.retryable:
                    self.refusals.append(f"watch: {error.code}: {error.message}")
            await asyncio.sleep(_PAUSE_S)

    async def wait_for(self, revision: int, timeout_s: float) -> bool:
        """Return whether everything up to `revision` was recorded in time."""
        deadline_s = time.monotonic() + timeout_s
        while self._next_revision <= revision:
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(_PAUSE_S)
        return True

    async def _follow(self) -> None:
        start = 0 if self._after_gap else self._next_revision
        async for answer in self._client.stream(WATCH, WatchRequest(from_revision=start, kinds=["workload"])):
            if self._after_gap:
                self._after_gap = False
                self.gaps.append(
                    (self._next_revision, min((c.revision for c in answer.changes), default=answer.revision + 1) - 1)
                )
            for change in answer.changes:
                self._keep(change)
            self._next_revision = max(self._next_revision, answer.revision + 1)

    def _keep(self, change: Change) -> None:
        record = change.record.workload
        number = record.annotations.get(ANNOTATION, "")
        if not change.deleted and record.namespace == NAMESPACE and number.isdigit():
            self.values[record.name, change.revision] = int(number)
