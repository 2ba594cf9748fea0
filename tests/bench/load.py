"""Closed-loop load: so many callers, each sending its next call when the last one was answered.

Several kinds of call are measured in turns of a second or so, round after round, every second round backwards:
what the machine does beside (it may be shared) then weighs on all of them alike, and a drift cancels out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from cloudless.cli.dev.report import percentile

Call = Callable[[int], Awaitable[object]]
"""One call of caller number N (from 0)."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one turn of load came to; latencies in milliseconds."""

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """`call` by `in_flight` callers at once. `worth`: how many objects one call carries, for the rate."""

    call: Call
    in_flight: int
    worth: int = 1


async def run_load(step: Step, duration_s: float) -> Load:
    """Load for `duration_s`, then let every caller finish. Raises what a call raises."""
    latencies: list[float] = []
    started_s = time.perf_counter()
    ends_s = started_s + duration_s

    async def call_on(caller: int) -> None:
        now_s = started_s
        while not latencies or now_s < ends_s:
            before_s = time.perf_counter()
            await step.call(caller)
            now_s = time.perf_counter()
            latencies.append(now_s - before_s)

    async with asyncio.TaskGroup() as group:
        for caller in range(step.in_flight):
            group.create_task(call_on(caller))
    elapsed_s = time.perf_counter() - started_s
    return Load(
        step.worth * len(latencies) / elapsed_s,
        1000 * percentile(latencies, 0.5),
        1000 * percentile(latencies, 0.99),
        len(latencies),
    )


async def take_turns(
    steps: Mapping[str, Step], rounds: int, duration_s: float, say: Callable[[str], None]
) -> dict[str, list[Load]]:
    """Return each step's loads, one a round. A short first round warms up and does not count."""
    loads: dict[str, list[Load]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        names = list(steps) if number % 2 else list(steps)[::-1]
        for name in names:
            load = await run_load(steps[name], duration_s if number else duration_s / 4)
            if number:
                loads[name].append(load)
                say(f"round {number} of {rounds}: {name} {load.rate_per_s:.0f}/s, p99 {load.p99_ms:.1f} ms")
    return loads


def rates(loads: list[Load]) -> tuple[float, ...]:
    return tuple(load.rate_per_s for load in loads)


def p50s(loads: list[Load]) -> tuple[float, ...]:
    return tuple(load.p50_ms for load in loads)


def p99s(loads: list[Load]) -> tuple[float, ...]:
    return tuple(load.p99_ms for load in loads)
