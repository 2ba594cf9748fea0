"""`python -m cloudless.testing.fleet`: run simulated agents until standard input is closed.

The first line of standard input is an `Order` as JSON. Twice a second a line of JSON, a `News`, goes to standard
output. Agents come a few at a time, as many as are still on their way at once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loguru import logger

from cloudless.adapters.grpc.channel import INSECURE
from cloudless.adapters.system import SystemClock
from cloudless.coordinator.main import COLLECT_AFTER
from cloudless.errors import CloudlessError
from cloudless.testing.fleet.agent import FleetAgent
from cloudless.testing.fleet.entering import Doors, Invitation
from cloudless.testing.fleet.news import News, Order
from cloudless.testing.fleet.tasks import LightTasks
from cloudless.testing.fleet.turns import Turns

_TELL_S = 0.5
_ENTER_AT_ONCE = 16
_COME_AT_ONCE = 40
_LOOK_S = 0.02
_ENTER_TRIES = 20


class Fleet:
    """All agents of this process."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.agents: list[FleetAgent] = []
        self.tasks: list[LightTasks] = []
        self.entered = 0
        self._running: list[asyncio.Task[Any]] = []
        clock, turns = SystemClock(), Turns()
        for number in range(order.first, order.first + order.count):
            name = f"{order.prefix}-{number}"
            made: list[LightTasks] = []

            def build(settings: Any, reports: Any, name: str = name, made: list[LightTasks] = made) -> LightTasks:
                made.append(LightTasks(name, reports, clock))
                return made[0]

            zone = f"{order.prefix}-zone-{number % order.zones}"
            self.agents.append(FleetAgent(name, tuple(order.coordinators), zone, INSECURE, build, turns))
            self.tasks += made

    async def run(self) -> None:
        """Let all in, then start them."""
        if self._order.token:
            async with AsyncExitStack() as stack:
                invitation = Invitation(self._order.token, tuple(self._order.doors), Path(self._order.home))
                doors, gate = Doors(invitation, stack), asyncio.Semaphore(_ENTER_AT_ONCE)
                async with asyncio.TaskGroup() as group:
                    for agent in self.agents:
                        group.create_task(self._enter(agent, doors, gate))
        async with asyncio.TaskGroup() as group:
            coming: list[FleetAgent] = []
            for agent in self.agents:
                group.create_task(_forever(agent.links.run()), name=agent.name)
                coming.append(agent)
                while len(coming := [one for one in coming if one.links.primary is None]) >= _COME_AT_ONCE:
                    await asyncio.sleep(_LOOK_S)

    async def _enter(self, agent: FleetAgent, doors: Doors, gate: asyncio.Semaphore) -> None:
        async with gate:
            for tries_left in reversed(range(_ENTER_TRIES)):
                try:
                    agent.dialler = await doors.enter(agent.name)
                    break
                except CloudlessError as error:
                    if not error.retryable or not tries_left:
                        raise
                    await asyncio.sleep(1.0)
            self.entered += 1

    def news(self) -> News:
        ends: Counter[str] = Counter()
        for agent in self.agents:
            ends.update({kind.value: number for kind, number in agent.links.ends.items()})
        trips = [agent.round_trips_s[-1] for agent in self.agents if agent.round_trips_s]
        return News(
            at_s=time.monotonic(),
            cpu_s=time.process_time(),
            entered=self.entered,
            primary=sum(agent.links.primary is not None for agent in self.agents),
            warm=sum(agent.links.count_warm() > 0 for agent in self.agents),
            running=sum(tasks.running for tasks in self.tasks),
            started=sum(tasks.started_total for tasks in self.tasks),
            acknowledged=sum(tasks.acknowledged for tasks in self.tasks),
            dialled=sum(agent.links.dialled for agent in self.agents),
            refused=sum(agent.refused.total() for agent in self.agents),
            ends=dict(ends),
            round_trip_max_s=max(trips, default=0.0),
        )


async def _forever(work: Coroutine[Any, Any, None]) -> None:
    await work
    raise AssertionError("an agent's sessions never end by themselves")


async def _main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    fleet = Fleet(Order(**json.loads(await reader.readline())))
    running, ending = asyncio.create_task(fleet.run()), asyncio.create_task(reader.read())
    while not ending.done():
        print(json.dumps(asdict(fleet.news())), flush=True)
        await asyncio.wait({ending, running}, timeout=_TELL_S, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    logger.remove()
    gc.set_threshold(*COLLECT_AFTER)
    asyncio.run(_main())
