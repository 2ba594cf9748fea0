"""Tell people of refusals: an event for each, but never more than the store should carry.

Successful changes tell of themselves, in the transaction that makes them (`Access.event`). A refusal has no
transaction, costs whoever asks nothing, and may be repeated without end: the same one is told once a minute, and the
queue is bounded. All of them are in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque

from loguru import logger

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.leases import RollingLease
from cloudless.core import keys
from cloudless.core.model import EventRecord, Severity
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.errors import CloudlessError, LeaseLost
from cloudless.ports import Clock, Ids

QUEUE_LENGTH_MAX = 200
TOLD_MAX = 1_000
TOLD_AGAIN_AFTER_S = 60.0
WRITE_TIMEOUT_S = 5.0
RETRY_PAUSE_S = 0.5
TRIES_MAX = 3


class Auditor:
    """Writes refusals as events. `run` it."""

    def __init__(self, own_id: str, committer: Committer, lease: RollingLease, clock: Clock, ids: Ids) -> None:
        self._own_id, self._committer, self._lease, self._clock, self._ids = own_id, committer, lease, clock, ids
        self._waiting: deque[EventRecord] = deque()
        self._told_s: dict[tuple[str, str, str], float] = {}
        self._arrived = asyncio.Event()
        self.refusals_total = 0
        self.untold_total = 0

    def refused(self, subject: str, actor: str, method: str, reason: str) -> None:
        """Tell that `actor` (or somebody at an address) was refused `method` on `subject`. Returns at once."""
        self.refusals_total += 1
        logger.warning("refused: {} by {} from {}: {}", method, actor or "nobody known", subject, reason)
        now_s = self._clock.monotonic_s()
        told = (actor or subject, method, reason)
        before_s = self._told_s.pop(told, None)
        if before_s is not None and now_s - before_s < TOLD_AGAIN_AFTER_S:
            self._told_s[told] = before_s
            return
        self._told_s[told] = now_s
        if len(self._told_s) > TOLD_MAX:
            del self._told_s[next(iter(self._told_s))]
        if len(self._waiting) >= QUEUE_LENGTH_MAX:
            self.untold_total += 1
            return
        at_ms = self._clock.wall_ms()
        self._waiting.append(
            EventRecord(
                id=f"{at_ms:013d}-{self._ids.new()[:8]}",
                at_ms=at_ms,
                kind="AccessRefused",
                subject=subject,
                message=f"{method}: {reason}",
                severity=Severity.WARNING,
                source=self._own_id,
                actor=actor,
            )
        )
        self._arrived.set()

    async def run(self) -> None:
        """Write what is to be told until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._write(self._waiting.popleft())

    async def _write(self, record: EventRecord) -> None:
        key = keys.event(record.id)
        for _ in range(TRIES_MAX):
            try:
                change = Change(
                    puts=(PutRecord(key, record, await self._lease.current()),),
                    preconditions=(Precondition(key, 0),),
                    reason="audit",
                )
                await self._committer.commit(change, timeout_s=WRITE_TIMEOUT_S)
                return
            except LeaseLost:
                self._lease.forget()
            except CloudlessError as error:  # an event informs: the log has it too
                logger.debug("refusal not recorded: {}", error)
                await self._clock.sleep(RETRY_PAUSE_S)
        self.untold_total += 1
