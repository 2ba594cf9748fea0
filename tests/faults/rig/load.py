"""The users of a cluster under test: accountable writers, readers, and eyes on each coordinator.

All of it runs on one event loop in a thread of its own, so that a test may block. Writers and witness are those of
`cloudless dev drill`. A reader at every coordinator asks for linearizable answers under a deadline and notes each call
that outlives it: a request may fail, but never hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from cloudless.adapters.grpc.channel import INSECURE, Dialler
from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev.report import Ack, Sighting
from cloudless.cli.dev.witness import Witness
from cloudless.cli.dev.writer import Writer
from cloudless.cli.methods import GET_DIGEST, LIST_NODES
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_LINEARIZABLE, ReadOptions
from cloudless.rpc.v1.node_pb2 import ListNodesRequest

T = TypeVar("T")

READ_DEADLINE_S = 4.0
# What a machine short of processors may add to a deadline; a hang is longer than any of that.
DEADLINE_SLACK_S = 1.5
_READ_PERIOD_S = 0.2
_TICK_S = 0.1
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Overdue:
    """A call that came back later than its deadline allowed."""

    coordinator_id: str
    took_s: float


class Load:
    """The load on one cluster, given the coordinators' API addresses by name. Start it, look at it, `close` it."""

    def __init__(self, addresses: dict[str, str], dialler: Dialler = INSECURE) -> None:
        self._addresses, self._dialler = addresses, dialler
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[AsyncClient] = []
        self.overdue: list[Overdue] = []
        self.went_back: list[str] = []
        self._held: dict[str, int] = {}
        self.reads = 0
        # The longest this very process was held up: nobody's deadline can be judged more exactly than that.
        self.held_up_s = 0.0
        self.writer: Writer
        self.witness: Witness

    def start(self) -> None:
        self._thread.start()
        self.run(self._start())

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        """Run something on the load's loop and return its result."""
        return self.begin(coroutine).result(timeout_s)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start something on the load's loop; the result can be waited for."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    @property
    def acks(self) -> list[Ack]:
        return self.writer.acks

    @property
    def sightings(self) -> list[Sighting]:
        return self.witness.sightings

    def last_acks(self) -> dict[str, Ack]:
        return self.writer.last_acks()

    def longest_gap_s(self, since_s: float) -> float:
        """Return the longest time after `since_s` (monotonic) in which no write was acknowledged."""
        moments = [since_s, *(ack.acked_s for ack in self.acks if ack.acked_s >= since_s), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def terms_since(self, since_s: float) -> set[int]:
        """Return the terms any coordinator told of after `since_s`."""
        return {seen.term for seen in list(self.sightings) if seen.at_s >= since_s and seen.term}

    def client(self, *names: str) -> AsyncClient:
        """Return a client of the named coordinators, of all if none is named, to be used on the load's loop."""
        made = AsyncClient([self._addresses[name] for name in names or self._addresses], dialler=self._dialler)
        self._clients.append(made)
        return made

    def also_at(self, name: str, address: str) -> None:
        """Let a coordinator that came later be asked, too, by clients made from now on."""
        self._addresses[name] = address

    def close(self) -> None:
        if self._thread.is_alive():
            self.run(self._stop(), 90.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self.writer = Writer(self.client())
        self.witness = Witness({name: self.client(name) for name in self._addresses})
        self.writer.start()
        self.witness.start()
        self._tasks = [asyncio.create_task(self._read_on(name)) for name in self._addresses]
        self._tasks.append(asyncio.create_task(self._tick()))

    async def _stop(self) -> None:
        await self.witness.stop()
        for task in [*self._tasks, *self.writer._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self.writer._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()

    async def _read_on(self, name: str) -> None:
        client = self.client(name)
        request = ListNodesRequest(read=ReadOptions(consistency=CONSISTENCY_LINEARIZABLE))
        while True:
            asked_s = time.monotonic()
            with contextlib.suppress(CloudlessError):
                await client.call(LIST_NODES, request, timeout_s=READ_DEADLINE_S)
            self.reads += 1
            took_s = time.monotonic() - asked_s
            await self._note_revision(client, name)
            if took_s > READ_DEADLINE_S + DEADLINE_SLACK_S + self.held_up_s:
                self.overdue.append(Overdue(name, took_s))
            await asyncio.sleep(_READ_PERIOD_S)

    async def _note_revision(self, client: AsyncClient, name: str) -> None:
        """Ask what revision the coordinator itself holds: it must never be lower than before."""
        try:
            revision = (await client.call(GET_DIGEST, GetDigestRequest(), timeout_s=_LOOK_S)).revision
        except CloudlessError:
            return
        if revision < self._held.get(name, 0):
            self.went_back.append(f"{name} went from revision {self._held[name]} back to {revision}")
        self._held[name] = max(revision, self._held.get(name, 0))

    async def _tick(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_TICK_S)
            self.held_up_s = max(self.held_up_s, time.monotonic() - began_s - _TICK_S)
