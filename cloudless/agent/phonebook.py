"""Where an agent may find coordinators: at its seeds, and where the cluster said they are.

Seeds come from the settings and may be gone, or stand for other hosts than yesterday. What coordinators tell of each
other is kept in the journal's head, so that an agent whose seeds are all gone comes back by what it learned. A
coordinator that was removed is dialled no more, by whatever address it was met; only an agent without any coordinator
tries even those, because then nobody tells it who has come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from loguru import logger

from cloudless.agent.assignments import Gate
from cloudless.core.discovery.endpoints import Endpoint, merge_endpoints
from cloudless.core.discovery.learned import bound, follow
from cloudless.ports import Clock
from cloudless.rpc.v1 import agent_pb2

OWNERS_MAX = 256
"""Bounds what is remembered of who was met where; a name in DNS may lead through many addresses over the years."""


class Seeds(Protocol):
    """What the settings' seeds stand for; see `adapters.discovery.resolver`."""

    def current(self) -> tuple[Endpoint, ...]: ...

    async def refresh(self) -> bool:
        """Ask what is due; return whether the endpoints changed."""
        ...

    def pause_s(self) -> float:
        """Return the seconds until something is due, infinite if nothing ever will be."""
        ...

    def problems(self) -> Mapping[str, str]: ...


def read_told(message: agent_pb2.Welcome | agent_pb2.CoordinatorList) -> dict[str, str]:
    """Return id → address of the coordinators a message names; an earlier version names addresses only."""
    if message.coordinators:
        return {one.id: one.address for one in message.coordinators if one.id}
    plain = message.coordinator_addresses if isinstance(message, agent_pb2.Welcome) else message.addresses
    return {address: address for address in plain if address}


class Phonebook:
    """The endpoints to choose from. `gate` keeps what is learned."""

    def __init__(self, seeds: Seeds, gate: Gate, clock: Clock) -> None:
        self._seeds, self._gate, self._clock = seeds, gate, clock
        self._owners = {one.address: one.id for one in gate.head.coordinators}
        self._problems: Mapping[str, str] = {}

    def endpoints(self, *, cut_off: bool) -> list[Endpoint]:
        """Return all that may be dialled; `cut_off`: no coordinator serves us, so those of removed ones too."""
        known = bound(self._gate.head.coordinators, self._clock.wall_ms())
        every = merge_endpoints(self._seeds.current(), (one.address for one in known))
        if cut_off:
            return every
        ids, addresses = {one.id for one in known}, {one.address for one in known}
        return [
            one
            for one in every
            if one.address in addresses or one.address not in self._owners or self._owners[one.address] in ids
        ]

    def meet(self, address: str, coordinator_id: str) -> None:
        """Remember who answered at an address."""
        if address in self._owners or len(self._owners) < OWNERS_MAX:
            self._owners[address] = coordinator_id

    async def follow(self, told: Mapping[str, str]) -> bool:
        """Take the cluster's list in; return whether it changed what is known."""
        before = self._gate.head.coordinators
        after = follow(before, told, self._clock.wall_ms())
        for one in after:
            self.meet(one.address, one.id)
        if after != before:
            await self._gate.learn_coordinators(after)
        return after != before

    # --- the seeds' freshness ---

    def pause_s(self) -> float:
        return self._seeds.pause_s()

    async def refresh(self) -> bool:
        """Look seeds up that are due, say what could not be found; return whether there is something new to dial."""
        changed = await self._seeds.refresh()
        problems = self._seeds.problems()
        for seed, why in problems.items():
            if self._problems.get(seed) != why:
                logger.warning("{} cannot be looked up: {}; what was known of it is kept", seed, why)
        self._problems = dict(problems)
        return changed
