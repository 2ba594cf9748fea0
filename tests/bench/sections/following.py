"""How soon a reader of the API sees what was written at 5,000 changes a second, at each of three coordinators.

As in the section before, but of a whole cluster: its leader plans after every report, and three coordinators share the
processors with three etcds and the writer. Every transaction also carries one event, and only events are watched.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from cloudless.cli.methods import WATCH
from cloudless.rpc.v1.event_pb2 import WatchRequest
from tests.bench.bench import Bench
from tests.bench.figures import Figure
from tests.bench.population import populate
from tests.bench.sections.watch import (
    TASKS,
    TIMEOUT_S,
    TURN_S,
    Turn,
    changes,
    end_all,
    lag_figures,
    say_lag,
    write_at_pace,
)
from tests.bench.stage import Api, Cluster, dev_cluster


async def measure(bench: Bench) -> list[Figure]:
    with dev_cluster(profile_to=bench.profile_file("coordinator-1")) as cluster:
        await populate(cluster.etcd_endpoints[0], TASKS)
        cluster.start_profile()
        return await _lag(bench, cluster)


async def _lag(bench: Bench, cluster: Cluster) -> list[Figure]:
    seen: list[dict[int, float]] = [{}, {}, {}]
    entered = [asyncio.Event() for _ in seen]
    turns, transactions = [], changes(with_event=True)
    async with AsyncExitStack() as stack:
        api = cluster.connect(stack)
        watching = [asyncio.create_task(_watch(api, index, at, entered[index])) for index, at in enumerate(seen)]
        stack.push_async_callback(end_all, watching)
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in entered)), TIMEOUT_S)
        for number in range(bench.rounds + 1):
            turn = await write_at_pace(cluster.etcd_endpoints[0], TURN_S * bench.slice_s, transactions)
            await _until_all_seen(turn, seen, watching)
            if number:
                turns.append((turn, [dict(at) for at in seen]))
                say_lag(bench, "API", turn, seen)
    return lag_figures("api", "a reader of the API's watch", turns, None)


async def _watch(api: Api, coordinator: int, seen: dict[int, float], entered: asyncio.Event) -> None:
    async for answer in api.stream(coordinator, WATCH, WatchRequest(kinds=["event"])):
        entered.set()
        now_s = time.monotonic()
        for change in answer.changes:
            seen[change.revision] = now_s


async def _until_all_seen(turn: Turn, seen: list[dict[int, float]], watching: list[asyncio.Task[None]]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not all(turn.answered_s.keys() <= at.keys() for at in seen):
        for task in watching:
            if task.done():
                task.result()
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"a watch did not deliver all revisions within {TIMEOUT_S:g} s")
        await asyncio.sleep(0.02)
