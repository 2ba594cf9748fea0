"""A `Store` that fails as networks and members do, on a script, at random, or at a switch.

Every call becomes a request that travels to the real store and an answer that travels back; a `Fault`
delays or loses either, or refuses the call before it does anything. A caller that gave up does not stop
a request under way: it may still be done, later than what was sent after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from cloudless.errors import CommitUncertain, Unavailable
from cloudless.ports import Lease, Page, Store, Txn, TxnResult, WatchBatch, WatchStream

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call; all False and zero: nothing."""

    refused: bool = False
    request_lost: bool = False
    answer_lost: bool = False
    request_delay_s: float = 0.0
    answer_delay_s: float = 0.0


NONE = Fault()
REFUSED = Fault(refused=True)
REQUEST_LOST = Fault(request_lost=True)
ANSWER_LOST = Fault(answer_lost=True)

Choose = Callable[[str], Fault]
"""Returns the fault of the next call, given its method's name."""


def script(*faults: Fault, only: str = "txn") -> Choose:
    """Give the calls of one method these faults in order; all that follow succeed."""
    left = list(faults)
    return lambda call: left.pop(0) if left and call == only else NONE


def always(fault: Fault, calls: Iterable[str] = ("txn",)) -> Choose:
    return lambda call: fault if call in calls else NONE


class FaultyStore:
    """`inner` seen over a bad network. `cut` loses every request and silences every watch while it is set."""

    def __init__(self, inner: Store, choose: Choose = lambda call: NONE) -> None:
        self.inner = inner
        self.choose = choose
        self.calls: list[str] = []
        self.transactions: list[Txn] = []
        self.watches: list[FaultyWatch] = []
        self._under_way: set[asyncio.Task[object]] = set()
        self._cut = False

    @property
    def cut(self) -> bool:
        return self._cut

    @cut.setter
    def cut(self, value: bool) -> None:
        self._cut = value
        for watch in self.watches:
            watch.hang(value)

    def break_watches(self) -> None:
        """End every open watch with an error."""
        for watch in tuple(self.watches):
            watch.fail()

    def hang_watches(self) -> None:
        """Silence every open watch for good; those opened later work."""
        for watch in self.watches:
            watch.hang(True)

    # --- the port ---

    async def txn(self, txn: Txn, *, timeout_s: float) -> TxnResult:
        self.transactions.append(txn)
        return await self._write("txn", lambda: self.inner.txn(txn, timeout_s=timeout_s), timeout_s)

    async def read_page(
        self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 5000, timeout_s: float = 5.0
    ) -> Page:
        return await self._read(
            "read_page",
            lambda: self.inner.read_page(
                prefix, start_after=start_after, revision=revision, limit=limit, timeout_s=timeout_s
            ),
            timeout_s,
        )

    async def current_revision(self, *, timeout_s: float) -> int:
        return await self._read("current_revision", lambda: self.inner.current_revision(timeout_s=timeout_s), timeout_s)

    def watch(self, prefix: str, *, start_revision: int) -> FaultyWatch:
        watch = FaultyWatch(self.inner.watch(prefix, start_revision=start_revision), self.watches)
        watch.hang(self._cut)
        return watch

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        return await self._write("grant", lambda: self.inner.grant(ttl_s, timeout_s=timeout_s), timeout_s)

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        return await self._read("keep_alive", lambda: self.inner.keep_alive(lease_id, timeout_s=timeout_s), timeout_s)

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        await self._write("revoke", lambda: self.inner.revoke(lease_id, timeout_s=timeout_s), timeout_s)

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        await self._read("compact", lambda: self.inner.compact(revision, timeout_s=timeout_s), timeout_s)

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await self.inner.close()

    # --- the network ---

    async def _write(self, call: str, do: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        try:
            return await self._travel(call, do, timeout_s)
        except TimeoutError as error:
            raise CommitUncertain(f"no answer to {call} within {timeout_s} s") from error

    async def _read(self, call: str, do: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        try:
            return await self._travel(call, do, timeout_s)
        except TimeoutError as error:
            raise Unavailable(f"no answer to {call} within {timeout_s} s") from error

    async def _travel(self, call: str, do: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        self.calls.append(call)
        fault = self.choose(call)
        if fault.refused:
            await asyncio.sleep(0)
            raise Unavailable(f"{call} refused")
        task = asyncio.create_task(self._deliver(fault, do), name=f"faulty-{call}")
        self._under_way.add(task)
        task.add_done_callback(self._forget)
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(task)

    async def _deliver(self, fault: Fault, do: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(fault.request_delay_s)
        if fault.request_lost or self._cut:
            await _never()
        result = await do()
        await asyncio.sleep(fault.answer_delay_s)
        if fault.answer_lost or self._cut:
            await _never()
        return result

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone


async def _never() -> NoReturn:
    """Wait for an answer that does not come before everybody has given up."""
    await asyncio.sleep(3600)
    raise Unavailable("lost")


class FaultyWatch:
    """A watch that can be silenced and broken from outside."""

    def __init__(self, inner: WatchStream, opened: list[FaultyWatch]) -> None:
        self._inner, self._opened = inner, opened
        self._flows = asyncio.Event()
        self._flows.set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        opened.append(self)

    def hang(self, silent: bool) -> None:
        (self._flows.clear if silent else self._flows.set)()

    def fail(self) -> None:
        self._end(Unavailable("the watch broke"))

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        batches = aiter(self._inner)
        while True:
            step = asyncio.ensure_future(self._next(batches))
            try:
                either: set[asyncio.Future[Any]] = {step, self._failed}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if self._failed.done():
                    self._failed.result()
                    return
                batch = step.result()
            except StopAsyncIteration:
                return
            finally:
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
            if batch is None:
                return
            yield batch

    async def _next(self, batches: AsyncIterator[WatchBatch]) -> WatchBatch | None:
        batch = await anext(batches, None)
        await self._flows.wait()
        return batch

    async def request_progress(self) -> None:
        await self._inner.request_progress()

    async def close(self) -> None:
        self._end(None)
        await self._inner.close()

    def _end(self, error: Unavailable | None) -> None:
        if self in self._opened:
            self._opened.remove(self)
        if self._failed.done():
            return
        if error is None:
            self._failed.set_result(None)
        else:
            self._failed.set_exception(error)
            self._failed.exception()  # nobody may be iterating
