"""Virtual time jumps to the next deadline, in order, and a frozen process finds all it missed due at once."""

from __future__ import annotations

import asyncio

import pytest

from cloudless.testing.virtual_time import Deadlock, VirtualClock, freeze, run_virtually, virtually


@virtually
async def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)

    began_s = VirtualClock().monotonic_s()
    await asyncio.gather(*(sleeper(seconds) for seconds in (3600, 0.5, 60)))
    assert woken == [0.5, 60, 3600]
    assert VirtualClock().monotonic_s() - began_s == pytest.approx(3600, abs=0.01)


@virtually
async def test_timeouts_follow_virtual_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000):
            await asyncio.sleep(1001)


@virtually
async def test_freezing_makes_everything_late_at_once() -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(VirtualClock().monotonic_s())

    task = asyncio.create_task(tick())
    await asyncio.sleep(2.5)
    freeze(100)
    await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    task.cancel()
    assert len(ticks) == 3
    assert ticks[2] - ticks[1] > 100


def test_a_test_that_would_hang_says_so() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtually(hang())
