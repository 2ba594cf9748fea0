"""Keep two sessions to two different coordinators: one PRIMARY, one WARM.

Each of two slots dials a coordinator that the other does not have, in random order, and dials again when its
session ends. Whenever there is no primary and a welcomed session, that one is promoted, so a broken primary is
replaced as fast as its end is noticed. The old stream is always cancelled before a new primary is named.

Addresses come from the settings and from the coordinators themselves, and are kept in the journal's head. An
address that failed rests for a random part of a growing pause (full jitter), so that a thousand agents do not
come back in step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from loguru import logger

from cloudless.agent.assignments import Gate, Refused
from cloudless.agent.config import AgentLimits
from cloudless.agent.session import EndKind, Session, SessionEnd, SessionOver, SessionParts
from cloudless.rpc.v1 import agent_pb2

SLOTS = 2


@dataclass(slots=True)
class _Address:
    """What the agent knows of one coordinator's address."""

    failures: int = 0
    rest_until_s: float = 0.0


class Links:
    """The agent's sessions. `run` keeps them up until it is cancelled."""

    def __init__(self, configured: tuple[str, ...], parts: SessionParts) -> None:
        self.ends: Counter[EndKind] = Counter()
        self.dialled = 0
        self._configured = configured
        self._parts = parts
        self._limits: AgentLimits = parts.limits
        self._gate: Gate = parts.gate
        self._known: dict[str, _Address] = {}
        self._open: list[Session] = []
        self._primary: Session | None = None
        self._freed = asyncio.Event()

    @property
    def primary(self) -> Session | None:
        return self._primary

    def count_warm(self) -> int:
        return sum(session.welcomed and session is not self._primary for session in self._open)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as slots:
            for _ in range(SLOTS):
                slots.create_task(self._keep_one())

    async def _keep_one(self) -> None:
        while True:
            address = await self._next_address()
            session = Session(address, self._parts, self)
            self._open.append(session)
            self.dialled += 1
            end = await session.run()
            logger.debug("session to {}: {} ({})", address, end.kind.value, end.message)

    # --- what sessions tell -----------------------------------------------------------------------

    async def on_welcome(self, session: Session, welcome: agent_pb2.Welcome) -> None:
        """Take a session in, or end it with SessionOver."""
        try:
            self._gate.check_cluster(welcome.cluster_id)
        except Refused as error:
            self._parts.on_refused(error.kind)
            raise SessionOver(EndKind.FOREIGN, str(error)) from error
        if any(other.coordinator_id == session.coordinator_id for other in self._open if other.welcomed):
            raise SessionOver(EndKind.DUPLICATE, f"is {session.coordinator_id}, to whom a session is open")
        session.welcomed = True
        self._address(session.address).failures = 0
        await self._gate.join_cluster(welcome.cluster_id or self._gate.head.cluster_id)
        if welcome.coordinator_addresses:
            await self.on_coordinators(tuple(welcome.coordinator_addresses))
        self._promote_one()

    async def on_coordinators(self, addresses: tuple[str, ...]) -> None:
        """Take the coordinators' own list as the learned one; an empty list teaches nothing."""
        learned = tuple(sorted({address for address in addresses if address}))[: self._limits.coordinators_max]
        if learned and learned != self._gate.head.coordinators:
            await self._gate.learn_coordinators(learned)
            self._freed.set()

    def on_end(self, session: Session, end: SessionEnd) -> None:
        """Rest the address, and promote the warm session if this was the primary."""
        self._open.remove(session)
        if end.kind is EndKind.LEFT:
            return
        self.ends[end.kind] += 1
        address = self._address(session.address)
        address.rest_until_s = self._parts.clock.monotonic_s() + self._pause_s(address, end.kind)
        address.failures += 1
        was_primary = session is self._primary
        if was_primary:
            self._primary = None
            logger.warning("primary coordinator {} lost: {}", session.coordinator_id, end.message)
        elif end.kind in (EndKind.FOREIGN, EndKind.REFUSED, EndKind.SHED):
            logger.warning("coordinator at {}: {}", session.address, end.message)
        self._freed.set()
        self._promote_one()
        if was_primary and self._primary is None:
            logger.warning("no coordinator; tasks run on")

    def _promote_one(self) -> None:
        welcomed = [session for session in self._open if session.welcomed]
        if self._primary is None and welcomed:
            self._primary = welcomed[0]
            self._primary.promote()
            logger.info("primary coordinator is {} ({})", self._primary.coordinator_id, self._primary.address)

    # --- addresses --------------------------------------------------------------------------------

    async def _next_address(self) -> str:
        """Return a random address that is rested and not in use, as soon as there is one."""
        while True:
            self._freed.clear()
            used = {session.address for session in self._open}
            candidates = [a for a in dict.fromkeys((*self._configured, *self._gate.head.coordinators)) if a not in used]
            now_s = self._parts.clock.monotonic_s()
            rested = [a for a in candidates if self._address(a).rest_until_s <= now_s]
            if rested:
                return self._parts.random.choice(rested)
            wakes_s = [self._address(a).rest_until_s - now_s for a in candidates]
            try:
                async with asyncio.timeout(min(wakes_s, default=None)):
                    await self._freed.wait()
            except TimeoutError:
                continue

    def _address(self, address: str) -> _Address:
        return self._known.setdefault(address, _Address())

    def _pause_s(self, address: _Address, kind: EndKind) -> float:
        match kind:
            case EndKind.SHED:
                pause_s = self._limits.shed_pause_s
            case EndKind.REFUSED:
                pause_s = self._limits.refused_pause_s
            case EndKind.FOREIGN | EndKind.DUPLICATE:
                pause_s = self._limits.foreign_pause_s
            case _:
                pause_s = min(self._limits.retry_max_s, self._limits.retry_first_s * 2.0 ** min(address.failures, 16))
                return self._parts.random.uniform(0, pause_s)
        return self._parts.random.uniform(pause_s / 2, pause_s)
