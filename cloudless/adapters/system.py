"""Time and random names from the operating system."""

from __future__ import annotations

import asyncio
import secrets
import time


class SystemClock:
    """The `Clock` port. CLOCK_BOOTTIME also counts while the machine sleeps, so a lease cannot outlive a nap."""

    def monotonic_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RandomIds:
    """The `Ids` port: 16 random hex digits."""

    def new(self) -> str:
        return secrets.token_hex(8)
