"""Keep two sessions to two different coordinators: one PRIMARY, one WARM.

Each of two slots dials a coordinator that the other does not have, in random order, and dials again when its
session ends. Whenever there is no primary and a welcomed session, that one is promoted, so a broken primary is
replaced as fast as its end is noticed. The old stream is always cancelled before a new primary is named.

Addresses come from `phonebook`: the settings' seeds and what the coordinators say of each other. Names among the
seeds are looked up while a slot seeks an address, never while both sessions stand. An address that failed rests for a
random part of a growing pause (full jitter), so that a thousand agents do not come back in step. While a primary
stands, and for one that is there but slow to answer, the pause grows further, and each try to connect to that one is
given more time than the last: a coordinator that is slow because thousands knock must not be kept slow by tries that
are given up half done. In a large cluster, as the heartbeat period tells, an agent that still has one session dials
the second after a random pause: a coordinator's end sends a part of all agents to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from loguru import logger

from cloudless.agent.assignments import Gate, Refused
from cloudless.agent.config import AgentLimits
from cloudless.agent.phonebook import Phonebook, Seeds, read_told
from cloudless.agent.session import EndKind, Session, SessionEnd, SessionOver, SessionParts
from cloudless.core.discovery.endpoints import order_endpoints
from cloudless.rpc.v1 import agent_pb2

SLOTS = 2


@dataclass(slots=True)
class _Address:
    """What the agent knows of one coordinator's address. `hurries`: without a primary it is tried again soon."""

    failures: int = 0
    rest_until_s: float = 0.0
    hurries: bool = True


class Links:
    """The agent's sessions. `run` keeps them up until it is cancelled."""

    def __init__(self, seeds: Seeds, parts: SessionParts) -> None:
        self.ends: Counter[EndKind] = Counter()
        self.dialled = 0
        self._parts = parts
        self._book = Phonebook(seeds, parts.gate, parts.clock)
        self._limits: AgentLimits = parts.limits
        self._gate: Gate = parts.gate
        self._known: dict[str, _Address] = {}
        self._open: list[Session] = []
        self._primary: Session | None = None
        self._period_s = self._limits.heartbeat_period_default_s
        self._second_from_s = 0.0
        self._freed = asyncio.Event()
        self._seekers = 0
        self._seeking = asyncio.Event()
        self._looked_up = asyncio.Event()

    @property
    def primary(self) -> Session | None:
        return self._primary

    def addresses(self) -> list[str]:
        """Return where coordinators may be found: at the seeds, and where the cluster said they are."""
        return [endpoint.address for endpoint in self._book.endpoints(cut_off=self._primary is None)]

    def count_warm(self) -> int:
        return sum(session.welcomed and session is not self._primary for session in self._open)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as slots:
            slots.create_task(self._keep_seeds())
            for _ in range(SLOTS):
                slots.create_task(self._keep_one())

    async def _keep_seeds(self) -> None:
        """Look the seeds up again when that is due and a slot seeks an address."""
        while (pause_s := self._book.pause_s()) < math.inf:
            if pause_s > 0:
                await self._parts.clock.sleep(pause_s)
            await self._seeking.wait()
            if await self._book.refresh():
                self._freed.set()
            self._looked_up.set()
        self._looked_up.set()

    async def _keep_one(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.seeds_first_wait_s):
                self._seeking.set()
                await self._looked_up.wait()
        while True:
            address = await self._next_address()
            session = Session(address, self._parts, self, self._patience_s(address))
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
        self._book.meet(session.address, session.coordinator_id)
        self._address(session.address).failures = 0
        await self._gate.join_cluster(welcome.cluster_id or self._gate.head.cluster_id)
        await self.on_coordinators(read_told(welcome))
        self._promote_one()

    async def on_coordinators(self, told: Mapping[str, str]) -> None:
        """Take the coordinators' own list as the learned one; an empty list teaches nothing."""
        if await self._book.follow(told):
            self._freed.set()

    def is_useless(self, session: Session) -> bool:
        """Return whether we do better without it: another serves, or it is the second of two and the rest can serve."""
        known = len(self._gate.head.coordinators)
        rest_can = all(one.cut_off for one in self._open) and known - len(self._open) > known // 2
        return session.cut_off and (self.has_other(session) or (rest_can and session is not self._primary))

    def has_other(self, session: Session) -> bool:
        return any(other is not session for other in self._serving())

    def _serving(self) -> list[Session]:
        return [session for session in self._open if session.welcomed and not session.cut_off]

    def on_end(self, session: Session, end: SessionEnd) -> None:
        """Rest the address, and promote the warm session if this was the primary."""
        self._open.remove(session)
        if end.kind is EndKind.LEFT:
            return
        self.ends[end.kind] += 1
        address = self._address(session.address)
        address.rest_until_s = self._parts.clock.monotonic_s() + self._pause_s(address, end)
        address.failures += 1
        if session.welcomed:
            self._period_s = session.period_s
        if session.welcomed or end.late:
            self._second_from_s = self._parts.clock.monotonic_s() + self._spread_s()
        address.hurries = end.kind in (EndKind.UNREACHABLE, EndKind.BROKEN, EndKind.SILENT) and not end.late
        was_primary = session is self._primary
        if was_primary:
            self._primary = None
            self._hurry()
            logger.warning("primary coordinator {} lost: {}", session.coordinator_id, end.message)
        elif end.kind is EndKind.FOREIGN:
            logger.warning(
                "coordinator at {}: {}; it is not followed: CLOUDLESS_COORDINATOR_ADDR must lead to one cluster only",
                session.address,
                end.message,
            )
        elif end.kind in (EndKind.REFUSED, EndKind.SHED):
            logger.warning("coordinator at {}: {}", session.address, end.message)
        self._freed.set()
        self._promote_one()
        if was_primary and self._primary is None:
            logger.warning("no coordinator; tasks run on")

    def _promote_one(self) -> None:
        welcomed, serving = [session for session in self._open if session.welcomed], self._serving()
        if self._primary is None and welcomed:
            self._primary = (serving or welcomed)[0]
            self._primary.promote()
            logger.info("primary coordinator is {} ({})", self._primary.coordinator_id, self._primary.address)

    # --- addresses --------------------------------------------------------------------------------

    async def _next_address(self) -> str:
        """Return an address that is rested and not in use, as soon as there is one: the best, else at random."""
        self._seekers += 1
        self._seeking.set()
        try:
            while True:
                self._freed.clear()
                used = {session.address for session in self._open}
                endpoints = self._book.endpoints(cut_off=self._primary is None)
                candidates = [one for one in endpoints if one.address not in used]
                self._forget_all_but({*used, *(one.address for one in endpoints)})
                now_s = self._parts.clock.monotonic_s()
                earliest_s = self._second_from_s if used else 0.0
                due_s = {one: max(earliest_s, self._address(one.address).rest_until_s) for one in candidates}
                rested = [one for one in candidates if due_s[one] <= now_s]
                if rested:
                    return order_endpoints(rested, self._parts.random.random)[0].address
                wakes_s = [due_s[one] - now_s for one in candidates]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wakes_s, default=None)):
                        await self._freed.wait()
        finally:
            self._seekers -= 1
            if not self._seekers:
                self._seeking.clear()

    def _address(self, address: str) -> _Address:
        return self._known.setdefault(address, _Address())

    def _hurry(self) -> None:
        """Without a primary, none that is not known to be slow rests for longer than `retry_max_s`."""
        latest_s = self._parts.clock.monotonic_s() + self._limits.retry_max_s
        for known in self._known.values():
            if known.rest_until_s > latest_s and known.hurries:
                known.rest_until_s = latest_s - self._parts.random.uniform(0, self._limits.retry_max_s)

    def _patience_s(self, address: str) -> float:
        failures = self._address(address).failures + (self._limits.second_failures if self._primary else 0)
        longer_s = self._limits.connect_timeout_s * 2.0 ** min(failures, 16)
        return min(self._limits.connect_timeout_max_s, longer_s)

    def _forget_all_but(self, addresses: set[str]) -> None:
        """A name may lead through many addresses in an agent's life: what is no longer dialled is not remembered."""
        if len(self._known) > self._limits.addresses_kept_max:
            self._known = {address: known for address, known in self._known.items() if address in addresses}

    def _spread_s(self) -> float:
        longer_s = max(0.0, self._period_s - self._limits.heartbeat_period_default_s)
        return self._parts.random.uniform(0, self._limits.second_spread * longer_s)

    def _pause_s(self, address: _Address, end: SessionEnd) -> float:
        match end.kind:
            case EndKind.SHED:
                pause_s = self._limits.shed_pause_s
            case EndKind.REFUSED:
                pause_s = self._limits.refused_pause_s
            case EndKind.FOREIGN | EndKind.DUPLICATE:
                pause_s = self._limits.foreign_pause_s
            case _:
                first_s = self._limits.retry_first_s
                longest_s = self._limits.retry_late_max_s if end.late else self._limits.retry_max_s
                if self._primary is not None:
                    first_s *= max(1.0, self._period_s / self._limits.heartbeat_period_default_s)
                    longest_s = self._limits.retry_second_max_s
                pause_s = min(longest_s, first_s * 2.0 ** min(address.failures, 16))
                return self._parts.random.uniform(0, pause_s)
        return self._parts.random.uniform(pause_s / 2, pause_s)
