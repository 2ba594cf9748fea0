"""What gRPC on asyncio can carry here at all: nothing served through it can be faster."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.bench.bench import Bench
from tests.bench.echo import Echo
from tests.bench.figures import Figure
from tests.bench.load import p50s, p99s, rates, take_turns

STREAMS = 100


async def measure(bench: Bench) -> list[Figure]:
    async with AsyncExitStack() as stack:
        echo = await Echo.start(stack)
        loads = await take_turns(
            {"echo 1": echo.step(1), "echo 64": echo.step(64)}, bench.rounds, bench.slice_s, bench.say
        )
        one, many = [], []
        for _ in range(bench.rounds):
            one.append(await _messages_per_s(echo, 1, bench.slice_s))
            many.append(await _messages_per_s(echo, STREAMS, bench.slice_s))
            bench.say(f"streams: {one[-1]:.0f}/s on one, {many[-1]:.0f}/s on {STREAMS}")
    return [
        Figure("echo_1", "empty unary calls, 1 in flight", "1/s", rates(loads["echo 1"])),
        Figure("echo_1_p50", "an empty unary call alone, p50", "ms", p50s(loads["echo 1"])),
        Figure("echo_64", "empty unary calls, 64 in flight", "1/s", rates(loads["echo 64"])),
        Figure("echo_64_p99", "an empty unary call among 64, p99", "ms", p99s(loads["echo 64"])),
        Figure("stream_1", "empty messages on one stream", "1/s", tuple(one)),
        Figure("stream_100", f"empty messages on {STREAMS} streams together", "1/s", tuple(many)),
    ]


async def _messages_per_s(echo: Echo, streams: int, duration_s: float) -> float:
    received = await asyncio.gather(*(echo.receive(duration_s) for _ in range(streams)))
    return sum(received) / duration_s
