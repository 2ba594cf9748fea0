"""One Docker engine: calls in threads with time-outs, long answers as streams, and whether it answers at all.

The library waits in its calls; an engine that is stopped or stuck lets it wait for ever. So each call has a thread of
its own, of which there are `calls_max` at most, and is given up after `call_timeout_s` by whoever asked; the thread
ends when its socket's time is up. A probe asks every `probe_period_s` whether the engine is there. Once that fails,
all calls under way fail, and further ones fail at once, until it is there again: nothing piles up.

Threads are daemons, so that a hung engine does not keep the agent from ending. The library is imported with the first
call: who has no engine does not pay for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from cloudless.adapters.docker.faults import Unanswered, translate
from cloudless.adapters.docker.stream import Pump
from cloudless.errors import Temporary

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Bounds of what is asked of an engine; seconds unless the name says otherwise.

    `list_period_s`: all containers are listed so often, should an event have been missed. `pull_silence_s` without a
    word end a pull. `retry_s`: pause before something is tried again. `follow_margin_s`: events are asked for from so
    long before now.
    """

    call_timeout_s: float = 30.0
    calls_max: int = 8
    streams_max: int = 72
    probe_period_s: float = 2.0
    probe_timeout_s: float = 2.0
    retry_s: float = 1.0
    list_period_s: float = 30.0
    follow_margin_s: float = 5.0
    pulls_max: int = 2
    pull_silence_s: float = 120.0
    progress_period_s: float = 2.0


class Engine:
    """The engine at `host` (`unix://PATH`). `run` watches whether it answers; `fault` says why not ("": it does)."""

    def __init__(self, host: str, limits: EngineLimits | None = None) -> None:
        self.host = host
        self.limits = limits or EngineLimits()
        self.fault = ""
        self.on_change: list[Callable[[], None]] = []
        self._calls = asyncio.Semaphore(self.limits.calls_max)
        self._streams = asyncio.Semaphore(self.limits.streams_max)
        self._probes = asyncio.Semaphore(1)
        self._pending: set[asyncio.Future[Any]] = set()
        self._doubted = asyncio.Event()
        self._client: Any = None
        self._connecting = threading.Lock()

    # --- asking ---------------------------------------------------------------------------------

    async def call(self, work: Callable[[Any], T]) -> T:
        """Return `work(client)`, done in a thread.

        Raises Unanswered (it may have been done, or be done later) or Refused.
        """
        self._check()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        # Beside it, so that who still waits for a thread is told at once when the engine is found to be away.
        starting = asyncio.create_task(self._start(self._calls, future, work))
        try:
            async with asyncio.timeout(self.limits.call_timeout_s):
                return await future
        except TimeoutError as error:
            self.doubt()
            raise Unanswered(f"the Docker engine at {self.host} does not answer") from error
        except Unanswered:
            self.doubt()
            raise
        finally:
            starting.cancel()
            self._pending.discard(future)

    @asynccontextmanager
    async def stream(
        self, ask: Callable[[Any], Any], parse: Callable[[Any], Iterable[T]]
    ) -> AsyncIterator[AsyncGenerator[T, None]]:
        """Open a long answer: `ask(client)` returns a response, `parse(response)` its items, both in a thread.

        Entered once the engine has begun to answer. Raises Unanswered or Refused, on entering and on iterating.
        """
        self._check()
        pump = Pump(ask, parse, lambda error: translate(error, self.host))
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            try:
                async with asyncio.timeout(self.limits.call_timeout_s):
                    await self._start(self._streams, ended, pump.run)
                    await pump.opened()
            except TimeoutError as error:
                raise Unanswered(f"the Docker engine at {self.host} does not answer") from error
            async with aclosing(pump.items()) as items:
                yield items
        except Unanswered:
            self.doubt()
            raise
        finally:
            pump.close()

    def doubt(self) -> None:
        """Probe at once whether the engine is there."""
        self._doubted.set()

    # --- is it there ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Probe for ever; `on_change` is called whenever the engine comes or goes."""
        while True:
            self._doubted.clear()
            await self.probe()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.probe_period_s):
                    await self._doubted.wait()
            # Not without a pause: whoever doubts may do so in a loop.
            await asyncio.sleep(self.limits.probe_period_s / 10)

    async def probe(self) -> bool:
        """Ask the engine for a sign of life; return whether it came in time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timeout_s = self.limits.probe_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._start(self._probes, future, lambda client: _ping(client, timeout_s))
                await future
        except TimeoutError:
            self._set_fault(f"the Docker engine at {self.host} does not answer")
        except Temporary as error:
            self._set_fault(error.message)
        else:
            self._set_fault("")
        return not self.fault

    async def is_listening(self) -> bool:
        """Return whether anybody listens at the engine's socket. Costs no thread and imports nothing."""
        try:
            async with asyncio.timeout(self.limits.probe_timeout_s):
                _, writer = await asyncio.open_unix_connection(self.host.removeprefix("unix://"))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    def _check(self) -> None:
        if self.fault:
            raise Unanswered(self.fault)

    def _set_fault(self, fault: str) -> None:
        changed = bool(fault) != bool(self.fault)
        self.fault = fault
        if fault:
            # Negotiated anew with whoever answers next: it may be another version.
            self._client = None
            for future in self._pending:
                if not future.done():
                    future.set_exception(Unanswered(fault))
        if changed:
            for call in self.on_change:
                call()

    # --- threads --------------------------------------------------------------------------------

    async def _start(self, slots: asyncio.Semaphore, future: asyncio.Future[Any], work: Callable[[Any], Any]) -> None:
        """Run `work` in a thread as soon as one of `slots` is free; the thread gives it back when it ends."""
        await slots.acquire()
        if future.done():
            slots.release()
            return
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, args=(loop, slots, future, work), name="docker", daemon=True).start()

    def _work(
        self, loop: asyncio.AbstractEventLoop, slots: asyncio.Semaphore, future: asyncio.Future[Any], work: Any
    ) -> None:
        result, error = None, None
        try:
            result = work(self._connected())
        except Exception as caught:
            error = translate(caught, self.host)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any longer
            loop.call_soon_threadsafe(_finish, slots, future, result, error)

    def _connected(self) -> Any:
        client = self._client
        if client is not None:
            return client
        import docker

        with self._connecting:
            if self._client is None:
                self._client = docker.APIClient(
                    base_url=self.host,
                    version="auto",
                    timeout=self.limits.call_timeout_s,
                    max_pool_size=self.limits.calls_max,
                )
            return self._client


def _ping(client: Any, timeout_s: float) -> None:
    client.get(f"{client.base_url}/_ping", timeout=timeout_s).raise_for_status()


def _finish(slots: asyncio.Semaphore, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    slots.release()
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
