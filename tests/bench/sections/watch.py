"""How soon every coordinator shows what was written, at 5,000 changes a second; and a watch with 1,000 readers.

Changes are reports of tasks, 50 in a transaction every 10 ms, as group commit batches them, written straight to
etcd. *Apply lag* is from the answer of a transaction to its being applied in three replicas on bare etcd members
(each the production replica in a process of its own).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count, islice

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.cli.dev.report import percentile
from cloudless.cli.methods import WATCH
from cloudless.core import keys
from cloudless.core.model import EventRecord, Severity
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.rpc.v1.event_pb2 import WatchRequest
from tests.bench.bench import Bench
from tests.bench.children import Child, start_module
from tests.bench.figures import Figure, at_most
from tests.bench.members import bare_members
from tests.bench.population import populate, report
from tests.bench.stage import Api, Cluster, dev_cluster

CHANGES_PER_S = 5_000
CHANGES_A_TXN = 50
TASKS = 2_000
SUBSCRIBERS = 1_000
CHANNELS_A_COORDINATOR = 5
BURST = 10
TURN_S = 3.0
_IN_FLIGHT_MAX = 3
TIMEOUT_S = 60.0


async def measure(bench: Bench) -> list[Figure]:
    figures = []
    if bench.wants("replica"):
        figures += await _replica_lag(bench)
    if bench.wants("fan-out"):
        with dev_cluster(profile_to=bench.profile_file("coordinator-1")) as cluster:
            await populate(cluster.etcd_endpoints[0], TASKS)
            cluster.start_profile()
            figures += await _fan_out(bench, cluster)
    return figures


# --- writing at a pace --------------------------------------------------------------------------


@dataclass(slots=True)
class Turn:
    """One turn of writing: when which revision was answered, and how many changes a second that were."""

    answered_s: dict[int, float] = field(default_factory=dict)
    changes_per_s: float = 0.0


async def write_at_pace(endpoint: str, duration_s: float, transactions: Iterator[Txn]) -> Turn:
    store, turn = EtcdStore(endpoint), Turn()
    slots = asyncio.Semaphore(_IN_FLIGHT_MAX)
    prepared = list(islice(transactions, round(duration_s * CHANGES_PER_S / CHANGES_A_TXN)))
    started_s = time.monotonic()

    async def send(txn: Txn) -> None:
        try:
            result = await store.txn(txn, timeout_s=TIMEOUT_S)
            turn.answered_s[result.revision] = time.monotonic()
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for number, txn in enumerate(prepared):
            due_s = started_s + number * CHANGES_A_TXN / CHANGES_PER_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await slots.acquire()
            group.create_task(send(txn))
    turn.changes_per_s = len(turn.answered_s) * CHANGES_A_TXN / (time.monotonic() - started_s)
    await store.close()
    return turn


def changes(*, with_event: bool) -> Iterator[Txn]:
    reports = CHANGES_A_TXN - with_event
    for number in count():
        chosen = [report((number * reports + n) % TASKS, 2 + number) for n in range(reports)]
        puts = [Put(key, encode_record(record)) for key, record in chosen]
        yield Txn(then=(*puts, *([event_put(number)] if with_event else [])))


def event_put(number: int) -> Put:
    record = EventRecord(
        id="0000000000000-bench", at_ms=time.time_ns() // 1_000_000, kind="Bench", subject="bench/bench",
        message=f"number {number}", severity=Severity.INFO, source="bench",
    )  # fmt: skip
    return Put(keys.event(record.id), encode_record(record))


# --- lag ----------------------------------------------------------------------------------------


async def _replica_lag(bench: Bench) -> list[Figure]:
    turns, transactions = [], changes(with_event=False)
    with bare_members() as members:
        async with AsyncExitStack() as stack:
            await members.leader()
            await populate(members.endpoints[0], TASKS)
            followers = [await start_module(stack, "tests.bench.loading", e) for e in members.endpoints]
            for follower in followers:
                await follower.read_json()
            for number in range(bench.rounds + 1):
                turn = await write_at_pace(members.endpoints[0], TURN_S * bench.slice_s, transactions)
                seen = [await _seen_by(follower, turn) for follower in followers]
                if number:  # the first one warms up
                    turns.append((turn, seen))
                    say_lag(bench, "replica", turn, seen)
    return lag_figures("replica", "a replica on its own", turns, at_most(20.0))


async def _seen_by(follower: Child, turn: Turn) -> dict[int, float]:
    """Return when the follower applied each revision. Raises RuntimeError if it does not get there."""
    seen: dict[int, float] = {}
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        seen.update({int(revision): at_s for revision, at_s in await follower.ask("applied")})
        if turn.answered_s.keys() <= seen.keys():
            return seen
        await asyncio.sleep(0.1)
    raise RuntimeError(f"a replica did not apply all revisions within {TIMEOUT_S:g} s")


async def end_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _lags_ms(turn: Turn, seen: dict[int, float]) -> list[float]:
    """Return the lags of one follower; the watch may be quicker than the answer, which counts as none."""
    return [1000 * max(0.0, seen[revision] - at_s) for revision, at_s in turn.answered_s.items()]


def lag_figures(name: str, who: str, turns: list[tuple[Turn, list[dict[int, float]]]], bar: object) -> list[Figure]:
    lags = [[_lags_ms(turn, at) for at in seen] for turn, seen in turns]
    pooled = [[lag for one in three for lag in one] for three in lags]
    worst = [max(percentile(one, 0.99) for one in three) for three in lags]
    rates = tuple(turn.changes_per_s for turn, _ in turns)
    return [
        Figure(f"{name}_changes", f"changes written while {who} follows", "1/s", rates),
        Figure(f"{name}_lag_p50", f"apply lag of {who}, p50", "ms", tuple(percentile(p, 0.5) for p in pooled)),
        Figure(f"{name}_lag_p99", f"apply lag of {who}, p99", "ms", tuple(percentile(p, 0.99) for p in pooled)),
        Figure(f"{name}_lag_worst", f"apply lag of {who}, p99 at the slowest of three", "ms", tuple(worst), bar),  # type: ignore[arg-type]
    ]


def say_lag(bench: Bench, who: str, turn: Turn, seen: list[dict[int, float]]) -> None:
    p99 = max(percentile(_lags_ms(turn, at), 0.99) for at in seen)
    bench.say(f"{who}: {turn.changes_per_s:.0f} changes a second, lag p99 {p99:.1f} ms")


# --- many readers -------------------------------------------------------------------------------


async def _fan_out(bench: Bench, cluster: Cluster) -> list[Figure]:
    addresses = list(cluster.table.layout.api_addresses) * CHANNELS_A_COORDINATOR
    readers = bench.size(SUBSCRIBERS)
    delivered, lags = [], []
    async with AsyncExitStack() as stack:
        audience = _Audience(Api(stack, addresses), readers)
        stack.push_async_callback(audience.leave)
        store = EtcdStore(cluster.etcd_endpoints[0])
        stack.push_async_callback(store.close)
        await audience.enter()
        for number in range(bench.rounds):
            lags.append(await audience.time_one(store, number))
            delivered.append(await audience.time_burst(store))
            bench.say(
                f"{readers} readers: {delivered[-1]:.0f} events a second, one event at all after {lags[-1][1]:.0f} ms"
            )
    text = f"a watch with {readers:,} readers"
    return [
        Figure("fan_out_events", f"{text}: events delivered", "1/s", tuple(delivered)),
        Figure("fan_out_first_half", f"{text}: half of them have one event after", "ms", tuple(p50 for p50, _ in lags)),
        Figure("fan_out_all", f"{text}: all have it after", "ms", tuple(last for _, last in lags)),
    ]


class _Audience:
    """So many readers of the API's watch, each on a stream of its own, over three coordinators."""

    def __init__(self, api: Api, readers: int) -> None:
        self._api, self._readers = api, readers
        self._tasks: list[asyncio.Task[None]] = []
        self._here = 0
        self._received_s: list[float] = []
        self._wanted = 0
        self._all = asyncio.Event()

    async def enter(self) -> None:
        self._wanted = self._readers
        self._tasks = [asyncio.create_task(self._read(n)) for n in range(self._readers)]
        await self._wait_all()

    async def leave(self) -> None:
        await end_all(self._tasks)

    async def time_one(self, store: EtcdStore, number: int) -> tuple[float, float]:
        """Return after how many milliseconds half of the readers, and all, have an event that was answered."""
        self._expect(1)
        await store.txn(Txn(then=(event_put(number),)), timeout_s=TIMEOUT_S)
        answered_s = time.monotonic()
        await self._wait_all()
        lags = [1000 * max(0.0, at_s - answered_s) for at_s in self._received_s]
        return percentile(lags, 0.5), max(lags)

    async def time_burst(self, store: EtcdStore) -> float:
        """Return the events a second delivered, all readers together, of a burst written at once."""
        self._expect(BURST)
        started_s = time.monotonic()
        await asyncio.gather(*(store.txn(Txn(then=(event_put(n),)), timeout_s=TIMEOUT_S) for n in range(BURST)))
        await self._wait_all()
        return len(self._received_s) / (time.monotonic() - started_s)

    async def _wait_all(self) -> None:
        """Wait until every reader has what is expected. Raises what ended a reader, RuntimeError if it takes long."""
        everybody = asyncio.create_task(self._all.wait())
        await asyncio.wait([everybody, *self._tasks], timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not everybody.done():
            everybody.cancel()
            for task in self._tasks:
                if task.done():
                    task.result()
            raise RuntimeError(f"{len(self._received_s)} of {self._wanted} events came within {TIMEOUT_S:g} s")

    def _expect(self, events: int) -> None:
        self._received_s.clear()
        self._wanted = events * self._readers
        self._all.clear()

    async def _read(self, number: int) -> None:
        entered = False
        async for answer in self._api.stream(number, WATCH, WatchRequest(kinds=["event"])):
            events = sum(change.key.endswith("-bench") and not change.deleted for change in answer.changes)
            if not entered:
                entered, events = True, 1
            self._received_s.extend([time.monotonic()] * events)
            if events and len(self._received_s) >= self._wanted:
                self._all.set()
