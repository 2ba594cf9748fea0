"""Where all coordinators of the cluster are, living or not: told to agents, kept on disk for our own return.

A coordinator's record says where it is and goes with its lease, so it says nothing of one that is down. The member
list says who belongs. Together: a record is believed; whoever is a member without a record is down and keeps the
address that was last known; whoever is neither was removed, and is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from cloudless.adapters.member.learned import Learned
from cloudless.coordinator.membership import Members
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.discovery.learned import bound, follow
from cloudless.core.state import Applied
from cloudless.ports import Clock

LOOK_PERIOD_S = 1.0


class Directory:
    """The coordinators known to this one. `run` keeps it true; `on_change` is called after each change."""

    def __init__(self, path: Path, replica: Replica, members: Members, clock: Clock) -> None:
        self._path, self._replica, self._members, self._clock = path, replica, members, clock
        self._written = Learned.read(path)
        self._known = bound(self._written.coordinators, clock.wall_ms())
        self._changed = asyncio.Event()
        self._announced: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None

    def told(self) -> dict[str, str]:
        """Return id → API address of all who belong to the cluster, "" where the address is not known."""
        known = {one.id: one.address for one in self._known}
        return {id: known.get(id, "") for id in sorted({*self._belonging(), *known})}

    async def run(self) -> None:
        stop_listening = self._replica.listen(self._on_applied)
        try:
            await self._replica.loaded.wait()
            while True:
                self._changed.clear()
                await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_PERIOD_S):
                        await self._changed.wait()
        finally:
            stop_listening()

    def _on_applied(self, applied: Applied) -> None:
        if any(transition.key.startswith(keys.COORDINATORS) for transition in applied.transitions):
            self._changed.set()

    def _belonging(self) -> dict[str, str]:
        """Return who belongs by the newest word; empty addresses for those without a record."""
        belonging = {member.name: "" for member in self._members.list if member.name}
        if not self._members.list:  # not read yet: nobody is known to be gone
            belonging = {one.id: "" for one in self._known}
        records = self._replica.machine.coordinators.values()
        return belonging | {record.id: record.api_address for record in records if record.api_address}

    async def _look(self) -> None:
        status, cluster_id = self._members.status, self._written.cluster_id
        if status is not None and cluster_id != f"{status.cluster_id:x}":
            cluster_id, self._known = f"{status.cluster_id:x}", ()  # what another cluster said of its own
        before, self._known = self._known, follow(self._known, self._belonging(), self._clock.wall_ms())
        for gone in sorted({one.id for one in before} - {one.id for one in self._known}):
            logger.info("{} no longer belongs to the cluster: its address is forgotten", gone)
        told = self.told()
        if told != self._announced:
            self._announced = told
            self.on_change()
        await self._note(Learned(cluster_id, self._known))

    async def _note(self, learned: Learned) -> None:
        if learned == self._written:
            return
        try:
            await asyncio.to_thread(learned.write, self._path)
        except OSError as error:  # a full disk: tried again at the next look
            logger.debug("cannot note where the coordinators are: {}", error)
            return
        self._written = learned
