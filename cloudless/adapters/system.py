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
    """The `Ids` port: 16 random hex digits, fetched from the system a hundred at a time."""

    _BYTES = 8
    _AT_ONCE = 100

    def __init__(self) -> None:
        self._left: list[str] = []

    def new(self) -> str:
        if not self._left:
            digits = secrets.token_hex(self._BYTES * self._AT_ONCE)
            self._left = [digits[at : at + 2 * self._BYTES] for at in range(0, len(digits), 2 * self._BYTES)]
        return self._left.pop()
