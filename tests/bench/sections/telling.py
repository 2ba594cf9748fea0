"""What metrics and the HTTP API cost the write path: the same writes to a cluster that tells nothing of itself.

Two clusters stand side by side and are written to in turns (apply, as in *writes*). One is as everybody has it, and is
scraped every few seconds, each coordinator's own metrics and its etcd's. The coordinators of the other drop whatever
they would count or time, and nobody asks their HTTP ports. Traces are off in both: a span is one function call then.

*Processor time* is the coordinators', all together, for one write; it feels less than rates what else the machine does.
*Followed*: after that, the first cluster with a reader of all changes as server-sent events at each coordinator, as a
web page is.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

import psutil

from cloudless.cli.dev.layout import HOST
from cloudless.cli.methods import APPLY_WORKLOAD
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest
from tests.bench.bench import Bench
from tests.bench.figures import Figure, at_least, at_most, ratio
from tests.bench.load import Load, Step, run_load
from tests.bench.objects import create_workloads, manifest
from tests.bench.stage import Api, Cluster, dev_cluster

MANY = 64
SCRAPED_EVERY_S = 5.0
_ASK_S = 10.0
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of load, and the coordinators' processor time for each write in it, in milliseconds."""

    load: Load
    cpu_ms: float


async def measure(bench: Bench) -> list[Figure]:
    with dev_cluster() as told, dev_cluster(untold=True) as untold, _scraped(told):
        async with AsyncExitStack() as stack:
            as_it_is, silent = await _Side.start(stack, told), await _Side.start(stack, untold)
            plain = await _take_turns(bench, 2 * bench.rounds, {"told": as_it_is, "untold": silent})
            with _followed(told):
                followed = await _take_turns(bench, bench.rounds, {"followed": as_it_is, "untold": silent})
    return _figures(plain, followed)


async def _take_turns(bench: Bench, rounds: int, sides: dict[str, _Side]) -> dict[str, list[Turn]]:
    """Write to each in turns, so that both have had as much at any time; the first round warms up."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides) if number % 2 else list(sides)[::-1]:
            turn = await sides[name].take(bench.slice_s)
            if number:
                turns[name].append(turn)
                bench.say(f"round {number}: {name} {turn.load.rate_per_s:.0f}/s, {turn.cpu_ms:.2f} ms each")
    return turns


def _figures(plain: dict[str, list[Turn]], followed: dict[str, list[Turn]]) -> list[Figure]:
    figures = []
    for name, turns, text in (
        ("told", plain["told"], "as it is"),
        ("untold", plain["untold"], "telling nothing"),
        ("followed", followed["followed"], "as it is, each coordinator followed"),
    ):
        figures.append(Figure(f"{name}_rate", f"apply, {MANY} in flight: {text}", "1/s", _rates(turns)))
        figures.append(Figure(f"{name}_cpu", f"processor time of an apply: {text}", "ms", _costs(turns)))
    rates, costs = _rates(plain["untold"]), _costs(plain["untold"])
    return [
        *figures,
        ratio("rate", "applies, as it is / telling nothing", _rates(plain["told"]), rates, at_least(0.95)),
        ratio("cpu", "processor time, as it is / telling nothing", _costs(plain["told"]), costs, at_most(1.05)),
        ratio(
            "followed", "applies, followed / telling nothing", _rates(followed["followed"]), _rates(followed["untold"])
        ),
    ]


def _rates(turns: list[Turn]) -> tuple[float, ...]:
    return tuple(turn.load.rate_per_s for turn in turns)


def _costs(turns: list[Turn]) -> tuple[float, ...]:
    return tuple(turn.cpu_ms for turn in turns)


class _Side:
    """One of the clusters, with what is written to it."""

    def __init__(self, api: Api, names: list[str], coordinators: list[psutil.Process]) -> None:
        self._api, self._names, self._coordinators = api, names, coordinators
        self._number = count(1)

    @classmethod
    async def start(cls, stack: AsyncExitStack, cluster: Cluster) -> _Side:
        api = cluster.connect(stack)
        names = await create_workloads(api, "bench", MANY)
        living = cluster.table.living()
        plans = cluster.table.layout.coordinators
        return cls(api, names, [psutil.Process(living[plan.name].pid) for plan in plans])

    async def take(self, duration_s: float) -> Turn:
        before_s = self._cpu_s()
        load = await run_load(Step(self._apply, MANY), duration_s)  # type: ignore[arg-type]
        return Turn(load, 1000 * (self._cpu_s() - before_s) / load.count)

    def _apply(self, caller: int) -> object:
        request = ApplyWorkloadRequest(manifest=manifest(self._names[caller], next(self._number)))
        return self._api.call(caller, APPLY_WORKLOAD, request)

    def _cpu_s(self) -> float:
        return sum(times.user + times.system for one in self._coordinators if (times := one.cpu_times()))


@contextmanager
def _scraped(cluster: Cluster) -> Iterator[None]:
    """Ask for all metrics now and then, until the block is left."""
    ended = threading.Event()
    pages = [
        f"http://{HOST}:{port}{path}"
        for plan in cluster.table.layout.coordinators
        for port, path in ((plan.metrics_port, "/metrics"), (plan.http_port, "/metrics/etcd"))
    ]

    def scrape() -> None:
        while not ended.wait(SCRAPED_EVERY_S):
            for page in pages:
                with urllib.request.urlopen(page, timeout=_ASK_S) as answer:
                    answer.read()

    scraper = threading.Thread(target=scrape, daemon=True)
    scraper.start()
    try:
        yield
        assert scraper.is_alive(), "the metrics could not be had"
    finally:
        ended.set()
        scraper.join(_ASK_S)


@contextmanager
def _followed(cluster: Cluster) -> Iterator[None]:
    """Read all changes at each coordinator's HTTP port until the block is left."""
    with contextlib.ExitStack() as stack:
        readers = []
        for plan in cluster.table.layout.coordinators:
            stream = stack.enter_context(socket.create_connection((HOST, plan.http_port), _ASK_S))
            stream.sendall(f"GET /v1/watch HTTP/1.1\r\nHost: {HOST}:{plan.http_port}\r\n\r\n".encode())
            assert b" 200 " in stream.recv(_READ_BYTES), "changes cannot be followed"
            reader = threading.Thread(target=_read_on, args=(stream,), daemon=True)
            reader.start()
            readers.append((stream, reader))
        yield
        for stream, reader in readers:
            assert reader.is_alive(), "a reader was sent away"
            stream.shutdown(socket.SHUT_RDWR)
            reader.join(_ASK_S)


def _read_on(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while stream.recv(_READ_BYTES):
            pass
