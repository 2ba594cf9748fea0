"""Restart the member of etcd when it has to trust another authority: it reads whom to trust at its start only.

One member at a time (`core.identity.turns`), and only while all the others are well, so that a quorum stays; but not
put off for ever for one that stays away. Before that the offices go elsewhere: what the restart would cost is then an
election nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from loguru import logger

from cloudless.adapters.member.supervisor import MemberSupervisor
from cloudless.coordinator.membership import Members
from cloudless.core.identity.turns import TURN_S, until_turn_s
from cloudless.errors import CloudlessError, MemberFailed
from cloudless.ports import Clock

SETTLE_S = 3.0
"""The authorities of members and of clients are replaced one right after the other: one restart does for both."""
UNWELL_PATIENCE_S = 120.0
HAND_OVER_S = 2.0
GRACE_S = 1.0
"""It leads nothing any more, and what it has acknowledged is on its disk: being killed costs it nothing."""


class MemberRestart:
    """One coordinator's restarts. `hand_over` gives its office away, if it leads."""

    def __init__(
        self,
        own_id: str,
        supervisor: MemberSupervisor,
        members: Members,
        hand_over: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._own_id, self._supervisor, self._members = own_id, supervisor, members
        self._hand_over, self._clock = hand_over, clock
        self._wanted = asyncio.Event()

    def ask(self) -> None:
        """Have the member restarted soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Restart the member whenever that was asked for, until cancelled."""
        while True:
            await self._wanted.wait()
            await self._clock.sleep(SETTLE_S)
            await self._await_turn()
            self._wanted.clear()
            await self._step_aside()
            logger.info("etcd is restarted: it has to trust another certificate authority")
            try:
                await self._supervisor.restart(grace_s=GRACE_S)
            except MemberFailed as error:  # down for good: its supervision says why, and ends what must end
                logger.warning("etcd could not be restarted for another certificate authority: {}", error)

    async def _await_turn(self) -> None:
        began_s = self._clock.monotonic_s()
        while True:
            pause_s = until_turn_s(self._own_id, self._members.voters(), self._clock.wall_ms() / 1000)
            if pause_s <= 0:
                unwell = self._find_unwell()
                if not unwell or self._clock.monotonic_s() - began_s > UNWELL_PATIENCE_S:
                    return
                logger.info("etcd is not restarted for another certificate authority yet: {} not well", unwell)
                pause_s = TURN_S
            await self._clock.sleep(pause_s)

    def _find_unwell(self) -> str:
        others = [view for view in self._members.views() if view.name != self._own_id and not view.learner]
        return ", ".join(view.name or f"{view.id:x}" for view in others if not view.healthy)

    async def _step_aside(self) -> None:
        for give_away in (self._hand_over, self._members.hand_raft_leadership_over):
            with contextlib.suppress(CloudlessError, TimeoutError):
                async with asyncio.timeout(HAND_OVER_S):
                    await give_away()
