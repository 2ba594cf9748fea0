"""Clocks and names of simulated processes: each clock drifts, the wall's jumps, every name is drawn from the seed."""

from __future__ import annotations

import asyncio
from random import Random

from cloudless.testing.sim.loop import START_S, SimLoop

WALL_START_MS = 1_700_000_000_000


class SimClock:
    """The `Clock` port of one host. `rate` is how fast its seconds pass; `wall_offset_ms` is what jumps."""

    def __init__(self, loop: SimLoop, *, rate: float = 1.0, boot_s: float = 0.0) -> None:
        self._loop, self._rate, self._boot_s = loop, rate, boot_s
        self.wall_offset_ms = 0

    def monotonic_s(self) -> float:
        return self._boot_s + (self._loop.now_s - START_S) * self._rate

    def wall_ms(self) -> int:
        return WALL_START_MS + int((self._loop.now_s - START_S) * self._rate * 1000) + self.wall_offset_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._rate)


class SimIds:
    """The `Ids` port, from a source of chance of its own so that one process's names do not move another's."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)

    def new(self) -> str:
        return f"{self._random.getrandbits(64):016x}"
