"""A small HTTP server on aiohttp: fixed paths, each answered by a function at the time of asking, and one function for
all other paths and verbs.

With a TLS context a fixed path that is not `open` answers only those who have a certificate of the cluster; the other
function judges its callers itself. Who does not end the handshake, or asks for nothing, is thrown out.

Streams end when their caller goes, when a piece is not taken for `TAKE_MAX_S`, or when the server stops: then their
last byte says that this is all, so that whoever reads goes elsewhere at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Any

from aiohttp import web

from cloudless.adapters.http.accepting import Accepting
from cloudless.adapters.http.exchange import Answer, Answering, Asked, Caller, Stream
from cloudless.core.discovery.addresses import join_address, split_address
from cloudless.errors import InvalidSpec, PortInUse, Problem, TooLarge

BODY_BYTES_MAX = 2 << 20
"""As over gRPC: twice the largest manifest."""
BODY_MAX_S = 10.0
TAKE_MAX_S = 30.0
IDLE_MAX_S = 20.0
STOP_S = 0.2

Page = Callable[[Mapping[str, str]], Answer | Awaitable[Answer]]
"""Answers a fixed path, given the query."""

DENIED = Answer(403, "a client certificate of this cluster is needed\n")


class HttpServer:
    """Serves `routes` (path → function of the query) on `host:port`, GET and HEAD; `rest` answers whatever else comes.

    With `tls`, callers without a certificate get answers from those of `open`, and what `rest` lets them have.
    """

    def __init__(
        self,
        address: str,
        routes: Mapping[str, Page],
        rest: Answering | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        open: Collection[str] = (),
    ) -> None:
        self._host, self._port = split_address(address)
        self._tls, self._stopping = tls, asyncio.Event()
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        for path, answer in routes.items():
            app.router.add_get(path, _handler(_anybody if tls is None or path in open else _only_known, answer))
        if rest is not None:
            app.router.add_route("*", r"/{rest:[\s\S]*}", self._rest(rest))
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S, keepalive_timeout=IDLE_MAX_S,
            handler_cancellation=True,
        )  # fmt: skip
        self._accepting: Accepting | None = None

    @property
    def port(self) -> int:
        """Return the port it listens on, once it does: the one that was asked for, or found if that was 0."""
        return self._accepting.port if self._accepting is not None else self._port

    @property
    def connection_count(self) -> int:
        return len(self._runner.server.connections) if self._runner.server is not None else 0

    async def start(self) -> None:
        """Listen. Raises PortInUse."""
        await self._runner.setup()
        try:
            assert self._runner.server is not None
            self._accepting = Accepting(self._runner.server, self._tls)
            await self._accepting.start(self._host, self._port)
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {join_address(self._host, self._port)}: {error.strerror}",
                hint="choose another port, or end its owner",
            ) from error

    async def stop(self) -> None:
        """Take no more, end streams, finish answers within `STOP_S`."""
        if self._accepting is not None:
            await self._accepting.stop()
        self._stopping.set()
        await self._runner.cleanup()

    def _rest(self, answering: Answering) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            given = await answering(_to_asked(request))
            return _respond(given) if isinstance(given, Answer) else await self._send(request, given)

        return handle

    async def _send(self, request: web.Request, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse(headers=dict(stream.headers))
        response.content_type, response.charset = stream.content_type, "utf-8"
        try:
            await response.prepare(request)
            await _until(self._stopping, _pump(request, response, stream))
        finally:
            await stream.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await response.write_eof()
        return response


async def _pump(request: web.Request, response: web.StreamResponse, stream: Stream) -> None:
    """Send pieces until there are no more, or they are not taken any more: then the connection is broken off.

    Closing it would wait for somebody to take what is on its way.
    """
    with contextlib.suppress(ConnectionError):
        async for piece in stream.pieces:
            try:
                async with asyncio.timeout(TAKE_MAX_S):
                    await response.write(piece)
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                return


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, but end it when `stop` is set, or when this is cancelled."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.wait((working, stopped))
    if not working.cancelled():
        working.result()


Admits = Callable[[web.Request], bool]


def _anybody(request: web.Request) -> bool:
    return True


def _only_known(request: web.Request) -> bool:
    """Return whether the caller showed a certificate; one that is not of the cluster got no connection."""
    return bool(request.get_extra_info("peercert"))


def _handler(admits: Admits, answer: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        found = answer(request.query) if admits(request) else DENIED
        return _respond(found if isinstance(found, Answer) else await found)

    return handle


def _respond(given: Answer) -> web.Response:
    body = given.text.encode() if isinstance(given.text, str) else given.text
    headers = dict(given.headers)
    return web.Response(
        status=given.status, body=body, headers=headers, content_type=given.content_type, charset="utf-8"
    )


def _to_asked(request: web.Request) -> Asked:
    async def read() -> bytes:
        try:
            async with asyncio.timeout(BODY_MAX_S):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise TooLarge(f"the body is larger than {BODY_BYTES_MAX >> 20} MiB") from error
        except TimeoutError as error:
            raise InvalidSpec([Problem("body", f"did not come within {BODY_MAX_S:g} s")]) from error

    connection = request.get_extra_info("ssl_object")
    return Asked(
        verb=request.method,
        path=request.rel_url.raw_path,
        query=request.rel_url.raw_query_string,
        headers={name.lower(): value for name, value in request.headers.items()},
        caller=Caller.of(
            request.remote or "", connection.getpeercert(binary_form=True) if connection is not None else None
        ),
        read=read,
        secure=connection is not None,
    )
