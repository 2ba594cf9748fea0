"""Connections with messages both ways, and calls with one each way, between simulated processes.

What gRPC is to the real ones: a server's handler runs as a task of the server's process; it is cancelled when the
client goes; a client learns of a server's end when, and if, the network tells it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from cloudless.coordinator.guard import CERTIFICATE_KEY
from cloudless.errors import CloudlessError, Unavailable
from cloudless.rpc.codec import Malformed
from cloudless.rpc.packed import Packed
from cloudless.testing.sim.loop import Process, SimLoop
from cloudless.testing.sim.network import Network, Pipe


class Ended(Exception):
    """The stream has ended; the message says how."""


class _End:
    def __init__(self, why: str) -> None:
        self.why = why


class _Inbox:
    """What has arrived at one end and waits to be read.

    Its owner's process notices an arrival in a turn of its own, as a poller does: one that was frozen may first
    do what fell due meanwhile.
    """

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.owner: Process | None = None
        self._items: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.end: _End | None = None

    def put(self, item: Any) -> None:
        if self.end is not None:
            return
        if isinstance(item, _End):
            self.end = item
        else:
            self._items.append(item)
        if self._reader is not None and not self._reader.done() and self.owner is not None:
            self._loop.call_soon(self._wake, context=self.owner.context)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Any:
        """Return the next item. Raises Ended once all have been read and no more can come."""
        while not self._items:
            if self.end is not None:
                raise Ended(self.end.why)
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._items.popleft()


Serve = Callable[[AsyncIterator[Any], Any], AsyncGenerator[Any, None]]
Rewrite = Callable[[Any], Any]
"""Changes a message on its way; None lets it be."""


class Connection:
    """A stream from a client's process to whoever serves at the target when the dialling arrives."""

    def __init__(
        self,
        loop: SimLoop,
        network: Network,
        client: Process,
        source: str,
        target: str,
        find_server: Callable[[], tuple[Process, Serve] | None],
    ) -> None:
        self._loop, self._network, self._client = loop, network, client
        self._source, self._target, self._find_server = source, target, find_server
        self._server: Process | None = None
        self._serving: asyncio.Task[None] | None = None
        self._to_client, self._to_server = _Inbox(loop), _Inbox(loop)
        self._to_client.owner = client
        self._forth: Pipe = network.open_pipe(source, target, self._arrive_forth)
        self._back: Pipe = network.open_pipe(target, source, self._arrive_back)
        self._forth.on_given_up = self._back.on_given_up = lambda: self.break_off("keep-alive unanswered")
        self.ended = asyncio.Event()
        self._dialled = self._over = False
        self.rewrite_forth: Rewrite | None = None
        self.rewrite_back: Rewrite | None = None
        self.context: Any = None
        """What the server's handler is told of its caller; found with the server."""
        self._forth.send(self)

    # --- the client's end ---

    async def write(self, message: Any) -> None:
        await asyncio.sleep(0)
        if self._to_client.end is not None:
            raise Ended(self._to_client.end.why)
        self._forth.send(message)

    async def read(self) -> Any:
        return await self._to_client.get()

    def cancel(self) -> None:
        self._to_client.put(_End("cancelled here"))
        self.ended.set()
        self._forth.send(_End("the client has gone"))

    async def close(self) -> None:
        self.cancel()

    async def knock(self) -> bool:
        """Return whether anybody serves at the target, frozen or not; does not return if nothing comes back."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def settle(there: bool) -> None:
            if not answer.done():
                answer.set_result(there)

        def arrive() -> None:
            self._network.send(self._target, self._source, settle, self._find_server() is not None)

        self._network.send(self._source, self._target, arrive)
        return await answer

    # --- the ends of processes and of the way between them ---

    def belongs_to(self, process: Process) -> bool:
        return process is self._client or process is self._server

    def lose(self, process: Process, *, told: bool) -> None:
        """One of the two processes is dead; `told`: its host lives and tells the other end."""
        if process is self._client:
            if told:
                self._forth.send(_End("reset by peer"))
        elif told:
            self._back.send(_End("reset by peer"))

    def break_off(self, why: str) -> None:
        """Both ends give the connection up."""
        self._arrive_back(_End(why))
        self._arrive_forth(_End(why))

    @property
    def over(self) -> bool:
        return self._over

    # --- arriving ---

    def _arrive_forth(self, item: Any) -> None:
        if item is self:
            self._accept()
        elif isinstance(item, _End):
            self._to_server.put(item)
            if self._serving is not None and self._server is not None and self._server.alive:
                self._loop.call_soon(self._serving.cancel, context=self._server.context)
            self._finish()
        elif self._server is not None and not self._server.alive and self._find_server() is not None:
            self._back.send(_End("reset by peer"))  # its host is up again and knows nothing of this connection
        else:
            self._to_server.put(self.rewrite_forth(item) if self.rewrite_forth else item)

    def _arrive_back(self, item: Any) -> None:
        if not isinstance(item, _End) and self.rewrite_back:
            item = self.rewrite_back(item)
        self._to_client.put(item)
        if isinstance(item, _End):
            if self._client.alive:
                self._loop.call_soon(self.ended.set, context=self._client.context)
            self._finish()

    def _accept(self) -> None:
        found = self._find_server()
        if found is None:
            self._back.send(_End("connection refused"))
            return
        self._server, serve = found
        self._to_server.owner = self._server
        self._serving = self._server.spawn(self._serve(serve), "serve")

    def _finish(self) -> None:
        self._over = True
        if self._to_client.end is not None and self._to_server.end is not None:
            self._forth.close()
            self._back.close()

    async def _serve(self, serve: Serve) -> None:
        why = "ended by the server"
        try:
            async with aclosing(serve(self._requests(), self.context)) as answers:
                async for answer in answers:
                    self._back.send(answer)
        except (CloudlessError, Malformed) as error:
            why = f"{type(error).__name__}: {error}"
        except Exception as error:
            self._loop.complaints.append(f"a stream's handler failed: {error!r}")
            raise
        finally:
            self._back.send(_End(why))
            self._to_server.put(_End(why))

    async def _requests(self) -> AsyncIterator[Any]:
        while True:
            try:
                item = await self._to_server.get()
            except Ended:
                return
            yield item


class CallContext:
    """What a handler is told of its call: how long its caller still waits, from where it comes, what it has shown."""

    def __init__(self, loop: SimLoop, deadline_s: float, place: str = "", chain_pem: bytes | None = None) -> None:
        self._loop, self._deadline_s, self._place, self._chain_pem = loop, deadline_s, place, chain_pem

    def time_remaining(self) -> float | None:
        return self._deadline_s - self._loop.now_s if self._deadline_s else None

    def shown(self, place: str, chain_pem: bytes | None) -> CallContext:
        """Return the same with who calls."""
        return CallContext(self._loop, self._deadline_s, place, chain_pem)

    def peer(self) -> str:
        return f"ipv4:{self._place}:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {CERTIFICATE_KEY: [self._chain_pem]} if self._chain_pem is not None else {}


Handler = Callable[[Any, Any], Any]


async def call_unary(
    loop: SimLoop,
    network: Network,
    source: str,
    target: str,
    find_handler: Callable[[], tuple[Process, Handler] | None],
    request: Any,
    timeout_s: float,
) -> Any:
    """Call a handler; return its answer. Raises its typed error, Unavailable, or TimeoutError if nothing came."""
    answer: asyncio.Future[Any] = loop.create_future()
    deadline_s = loop.now_s + timeout_s

    def settle(result: Any) -> None:
        if not answer.done():
            answer.set_result(result)

    async def handle(handler: Handler) -> None:
        result: Any
        try:
            result = await handler(request, CallContext(loop, deadline_s))
            if isinstance(result, Packed):
                result = result.whole()
        except CloudlessError as error:
            result = error
        except Exception as error:
            loop.complaints.append(f"a call's handler failed: {error!r}")
            raise
        network.send(target, source, settle, result)

    def arrive() -> None:
        found = find_handler()
        if found is None:
            network.send(target, source, settle, Unavailable("connection refused"))
            return
        process, handler = found
        task = process.spawn(handle(handler), "call")

        def give_up() -> None:  # as a gRPC server does at its caller's deadline
            if process.alive and not task.done():
                loop.call_soon(task.cancel, context=process.context)

        loop.world_at(deadline_s, give_up)

    network.send(source, target, arrive)
    async with asyncio.timeout(timeout_s):
        result = await answer
    if isinstance(result, CloudlessError):
        raise result
    return result
