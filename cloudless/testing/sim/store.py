"""The store's cluster as coordinators meet it: one truth, reached over the network, through a member of one's own.

`StoreHost` holds the `MemoryStore` (whose semantics the contract suite compares with etcd's) and says of every
write what changed and who asked for it. `SimStore` is one coordinator process's way to it: requests and answers
travel and can be lost, a request under way outlives its sender, watches come late but skip nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from cloudless.errors import CloudlessError, CommitUncertain, Unavailable
from cloudless.ports import Event, Lease, Page, Txn, TxnResult, WatchBatch, WatchStream
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.sim.etcd_cluster import STORE, EtcdCluster
from cloudless.testing.sim.loop import Process, SimLoop
from cloudless.testing.sim.network import Network, Pipe
from cloudless.testing.sim.trace import Trace

SWEEP_PERIOD_S = 0.5
BROKEN_HALF = 0.5
"""Share of lost requests whose sender is told, by a broken connection, instead of waiting in vain."""


@dataclass(frozen=True, slots=True)
class Wrote:
    """A transaction, or a lease's end (`txn` None), changed the store. `by` is None if nobody asked for it."""

    revision: int
    by: Process | None
    events: tuple[Event, ...]
    txn: Txn | None
    lease_id: int = 0


class StoreHost:
    """The store's cluster. `listen` hears of every write; `down` answers nobody and ends no lease meanwhile.

    `cluster`: who its members are, None where that is of no interest: then it is down only when it is told to be.
    """

    def __init__(self, loop: SimLoop, trace: Trace, *, old_etcd: bool) -> None:
        self.memory = MemoryStore(loop.time, loses_last_deletions=old_etcd)
        self.cluster: EtcdCluster | None = None
        self.failed = False
        self.prompt_expiry = False
        self._loop, self._trace = loop, trace
        self.on_wrote: Callable[[Wrote], None] = lambda wrote: None
        self.on_asked: Callable[[Process, str, Txn | None], None] = lambda by, call, txn: None
        self.before: Callable[[Process, Txn | None], bool] = lambda by, txn: True
        self.after: Callable[[Process, Txn | None], bool] = lambda by, txn: True

    @property
    def down(self) -> bool:
        return self.failed or (self.cluster is not None and not self.cluster.leader_id)

    def do(self, by: Process | None, work: Coroutine[Any, Any, Any], txn: Txn | None = None, lease_id: int = 0) -> Any:
        """Carry out one call now; return its result or its typed error."""
        before = self.memory.revision
        try:
            result: Any = run_now(work)
        except CloudlessError as error:
            result = error
        if self.memory.revision != before:
            events = self.memory.events_after(before)
            who = by.name if by else STORE
            self._trace.note(who, f"wrote r{self.memory.revision} {' '.join(_say(event) for event in events)}")
            self.on_wrote(Wrote(self.memory.revision, by, events, txn, lease_id))
        return result

    async def sweep(self) -> None:
        """End leases as etcd does: every half second."""
        while True:
            await asyncio.sleep(SWEEP_PERIOD_S)
            self.expire()

    def expire(self) -> None:
        if not self.down:
            for lease_id in self.memory.expired():
                self.do(None, self.memory.revoke(lease_id, timeout_s=1), lease_id=lease_id)

    def expect_expiry(self, granted: Any) -> None:
        """A lease was granted or renewed, or was refused: look again at the moment it would end."""
        ttl_s = granted.ttl_s if isinstance(granted, Lease) else granted
        if self.prompt_expiry and isinstance(ttl_s, int):
            self._loop.world_at(self._loop.now_s + ttl_s, self.expire)

    def recover(self, *, new_leader: bool) -> None:
        self.failed = False
        if new_leader:
            self.memory.extend_leases()


def run_now(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nobody, only lets others run."""
    try:
        while True:
            waits_for = work.send(None)
            assert waits_for is None, "the store waits for somebody"
    except StopIteration as done:
        return done.value


def _say(event: Event) -> str:
    key = event.kv.key.removeprefix("/cloudless/v1/").removeprefix("/cloudless-requests/v1/")
    return f"-{key}" if event.deleted else f"+{key}"


class SimStore:
    """The `Store` port of one process."""

    def __init__(self, loop: SimLoop, host: StoreHost, network: Network, process: Process, random: Random) -> None:
        self._loop, self._host, self._network, self._process = loop, host, network, process
        self._random = random
        self._memory = host.memory
        self.watches: list[SimWatch] = []
        self.lag_s = 0.0

    # --- the port ---

    async def txn(self, txn: Txn, *, timeout_s: float) -> TxnResult:
        return await self.call("txn", partial(self._memory.txn, txn, timeout_s=1), timeout_s, write=True, txn=txn)

    async def read_page(
        self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 5000, timeout_s: float = 5.0
    ) -> Page:
        do = partial(self._memory.read_page, prefix, start_after=start_after, revision=revision, limit=limit)
        return await self.call("read_page", do, timeout_s)

    async def current_revision(self, *, timeout_s: float) -> int:
        return await self.call("current_revision", partial(self._memory.current_revision, timeout_s=1), timeout_s)

    def watch(self, prefix: str, *, start_revision: int) -> WatchStream:
        return SimWatch(self._loop, self._network, self, self._host, prefix, start_revision)

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        return await self.call("grant", partial(self._memory.grant, ttl_s, timeout_s=1), timeout_s, write=True)

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        return await self.call("keep_alive", partial(self._memory.keep_alive, lease_id, timeout_s=1), timeout_s)

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        do = partial(self._memory.revoke, lease_id, timeout_s=1)
        await self.call("revoke", do, timeout_s, write=True, lease_id=lease_id)

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        await self.call("compact", partial(self._memory.compact, revision, timeout_s=1), timeout_s)

    async def close(self) -> None:
        return

    # --- the way there and back ---

    @property
    def name(self) -> str:
        return self._process.name

    async def call(
        self,
        call: str,
        do: Callable[[], Coroutine[Any, Any, Any]],
        timeout_s: float,
        *,
        write: bool = False,
        txn: Txn | None = None,
        lease_id: int = 0,
        critical: bool = False,
    ) -> Any:
        """Carry a call to the store and its answer back. A process may die at a `critical` one, as at a transaction."""
        critical = critical or txn is not None
        if self._network.refuses():
            await asyncio.sleep(0)
            raise Unavailable(f"{call} refused")
        answer: asyncio.Future[Any] = self._loop.create_future()

        def settle(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        def lose() -> None:
            if self._random.random() < BROKEN_HALF:
                self._loop.world_at(self._loop.now_s + self._network.delay_s(), settle, _Broken())

        def arrive() -> None:
            if self._host.down or (critical and not self._host.before(self._process, txn)):
                return lose()
            if call == "keep_alive":
                self._host.expire()  # one that is over is not renewed, though no sweep has found it yet
            self._host.on_asked(self._process, call, txn)
            result = self._host.do(self._process, do(), txn, lease_id)
            if call in ("grant", "keep_alive"):
                self._host.expect_expiry(result)
            if critical and not self._host.after(self._process, txn):
                return None
            if not self._network.send(STORE, self.name, settle, result):
                lose()
            return None

        if not self._network.send(self.name, STORE, arrive):
            lose()
        try:
            async with asyncio.timeout(timeout_s):
                result = await answer
        except TimeoutError as error:
            raise _unanswered(call, write) from error
        if isinstance(result, _Broken):
            raise _unanswered(call, write)
        if isinstance(result, CloudlessError):
            raise result
        return result


class _Broken:
    """The connection broke under a call."""


def _unanswered(call: str, write: bool) -> CloudlessError:
    return CommitUncertain(f"no answer to {call}") if write else Unavailable(f"no answer to {call}")


class SimWatch:
    """A watch through the coordinator's own member: in order, whole, and as late as that member is behind."""

    def __init__(
        self, loop: SimLoop, network: Network, store: SimStore, host: StoreHost, prefix: str, start_revision: int
    ) -> None:
        self._loop, self._network, self._store, self._host = loop, network, store, host
        self._inner = host.memory.watch(prefix, start_revision=start_revision)
        self._items: deque[WatchBatch | CloudlessError] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._closed = self._opened = False
        self._pumping: asyncio.Task[None] | None = None
        self._forth: Pipe = network.open_pipe(store.name, STORE, lambda action: action())
        self._back: Pipe = network.open_pipe(STORE, store.name, self._arrive)
        self._forth.send(self._open)
        store.watches.append(self)

    def fail(self) -> None:
        """Break it from outside."""
        self._arrive(Unavailable("the watch broke"))

    def _open(self) -> None:
        self._pumping = self._loop.world_task(self._pump())

    async def _pump(self) -> None:
        try:
            async for batch in self._inner:
                self._back.lag_s = self._store.lag_s
                self._back.send(batch)
        except CloudlessError as error:
            self._back.send(error)

    def _arrive(self, item: WatchBatch | CloudlessError) -> None:
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        while True:
            while self._items:
                item = self._items.popleft()
                if self._closed:
                    return
                if isinstance(item, CloudlessError):
                    raise item
                yield item
            if self._closed:
                return
            self._reader = self._loop.create_future()
            await self._reader

    async def request_progress(self) -> None:
        if not self._closed:
            self._forth.send(self._ask_progress)
        await asyncio.sleep(0)

    def _ask_progress(self) -> None:
        if self._pumping is not None and not self._host.down:
            run_now(self._inner.request_progress())

    async def close(self) -> None:
        self.end()
        await asyncio.sleep(0)

    def end(self) -> None:
        """Close it; whoever iterates it stops."""
        if self._closed:
            return
        self._closed = True
        self._store.watches.remove(self)
        self._forth.close()
        self._back.close()
        if self._pumping is not None:
            self._pumping.cancel()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
