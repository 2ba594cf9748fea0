"""Which coordinator the proxy asks: one as long as it lives, then the next, and who hung on the dead one is told.

::

    /healthz of the present one, twice a second while anybody looks
       answers, ready ──────► stays
       answers, not ready ──► another that is ready takes its place, if there is one
       no answer in time ───► lost: calls and streams under way there are broken off, the next one is asked

A killed process is noticed by its connections; this is for one that is frozen, or a host that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PROBE_PERIOD_S = 0.5
PROBE_MAX_S = 0.8
KNOWN_MAX = 32

Probe = Callable[[str], Awaitable[bool | None]]
"""Asks an address: True is ready, False is not, None does not answer."""


class Coordinators:
    """The HTTP addresses of all coordinators, and which one is asked now."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._lost: dict[str, asyncio.Event] = {}
        self._current = ""

    @property
    def current(self) -> str:
        """Return the one asked now, "" while none is known."""
        return self._current

    def learn(self, addresses: list[str]) -> None:
        """Take in what the cluster says its coordinators are. One that is no longer named goes last, not away."""
        known = [*addresses, *(address for address in self._lost if address not in addresses)]
        self._lost = {address: self._lost.get(address) or asyncio.Event() for address in known[:KNOWN_MAX]}
        if self._current not in self._lost:
            self._current = known[0] if known else ""

    def in_order(self) -> list[str]:
        """Return all, the one asked now first."""
        names = list(self._lost)
        at = names.index(self._current) if self._current in names else 0
        return [*names[at:], *names[:at]]

    def lost(self, address: str) -> asyncio.Event:
        """Return what is set when this coordinator is given up, for whoever waits for its answer."""
        return self._lost.setdefault(address, asyncio.Event())

    def give_up(self, address: str) -> None:
        """Break off what waits for this one, and ask the next from now on."""
        self.lost(address).set()
        self._lost[address] = asyncio.Event()
        if address == self._current:
            self._current = self.in_order()[1 % len(self._lost)]

    def prefer(self, address: str) -> None:
        """Ask this one from now on: it answered."""
        self._current = address

    async def watch(self, needed: Callable[[], bool]) -> None:
        """Look after the one asked now, while `needed`; runs until it is cancelled."""
        while True:
            if self._current and needed():
                await self._look()
            await asyncio.sleep(PROBE_PERIOD_S)

    async def _look(self) -> None:
        address = self._current
        ready = await self._ask(address)
        if address != self._current or ready:
            return
        others = [one for one in self.in_order() if one != address]
        answers = await asyncio.gather(*(self._ask(one) for one in others))
        better = next((one for one, said in zip(others, answers, strict=True) if said), "")
        if ready is None:
            self.give_up(address)
        if better and (ready is None or self._current == address):
            if ready is False:
                self.give_up(address)
            self._current = better

    async def _ask(self, address: str) -> bool | None:
        try:
            async with asyncio.timeout(PROBE_MAX_S):
                return await self._probe(address)
        except TimeoutError:
            return None
