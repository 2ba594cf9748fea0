"""What metrics and the HTTP API cost the write path: the same writes to a cluster that tells nothing of itself.

Two clusters stand side by side and are written to in turns (apply, as in *writes*). One is as everybody has it, and is
scraped every few seconds, each coordinator's own metrics and its etcd's. The coordinators of the other drop whatever
they would count or time, and nobody asks their HTTP ports. Traces are off in both: a span is one function call then.

*Processor time* is the coordinators', all together, for one write; it feels less than rates what else the machine does.
*Followed*: the first cluster again, with a reader of all changes as server-sent events at each coordinator, as a web
page is.
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
            sides = {"told": await _Side.start(stack, told), "untold": await _Side.start(stack, untold)}
            turns: dict[str, list[Turn]] = {"told": [], "untold": [], "followed": []}
            for number in range(bench.rounds + 1):
                names = list(turns) if number % 2 else list(turns)[::-1]
                for name in names:
                    with _followed(told) if name == "followed" else contextlib.nullcontext():
                        turn = await sides.get(name, sides["told"]).take(bench.slice_s)
                    if number:  # the first one warms up
                        turns[name].append(turn)
                        bench.say(f"round {number}: {name} {turn.load.rate_per_s:.0f}/s, {turn.cpu_ms:.2f} ms each")
    return _figures(turns)


def _figures(turns: dict[str, list[Turn]]) -> list[Figure]:
    rate = {name: [turn.load.rate_per_s for turn in found] for name, found in turns.items()}
    cpu_ms = {name: [turn.cpu_ms for turn in found] for name, found in turns.items()}
    texts = {"told": "as it is", "untold": "telling nothing", "followed": "as it is, each coordinator followed"}
    figures = [Figure(f"{n}_rate", f"apply, {MANY} in flight: {t}", "1/s", tuple(rate[n])) for n, t in texts.items()]
    figures += [
        Figure(f"{n}_cpu", f"processor time of an apply: {t}", "ms", tuple(cpu_ms[n])) for n, t in texts.items()
    ]
    return [
        *figures,
        ratio("rate", "applies, as it is / telling nothing", rate["told"], rate["untold"], at_least(0.95)),
        ratio("cpu", "processor time, as it is / telling nothing", cpu_ms["told"], cpu_ms["untold"], at_most(1.05)),
        ratio("followed", "applies, followed / telling nothing", rate["followed"], rate["untold"]),
    ]


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
