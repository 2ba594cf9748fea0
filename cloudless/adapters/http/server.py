"""A small HTTP server on aiohttp: fixed paths, each answered by a function at the time of asking.

With a TLS context a path that is not `open` answers only those who have a certificate of the cluster. Who does not end
the handshake, or asks for nothing, is thrown out.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from aiohttp import web

from cloudless.adapters.http.accepting import Accepting
from cloudless.core.discovery.addresses import join_address, split_address
from cloudless.errors import PortInUse

IDLE_MAX_S = 20.0
STOP_S = 0.2


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    status: int
    text: str
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who posts: its address, and the certificate it proved to hold the key of as PEM, empty without one."""

    address: str
    certificate_pem: bytes


Respond = Callable[[], Answer | Awaitable[Answer]]
"""Answers a GET."""
Take = Callable[[bytes, Caller], Awaitable[Answer]]
"""Takes the body of a post."""

DENIED = Answer(403, "a client certificate of this cluster is needed\n")


class HttpServer:
    """Serves `routes` (path → function) on `host:port`, GET and HEAD, and `posts` (path → function of the body).

    With `tls`, callers without a certificate get answers from those of `open` only; who may post is for the function
    to say, which is told the caller.
    """

    def __init__(
        self,
        address: str,
        routes: Mapping[str, Respond],
        posts: Mapping[str, Take] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        open: Collection[str] = (),
    ) -> None:
        self._host, self._port = split_address(address)
        self._tls = tls
        app = web.Application(client_max_size=1 << 20)
        for path, answer in routes.items():
            app.router.add_get(path, _handler(_anybody if tls is None or path in open else _only_known, answer))
        for path, take in (posts or {}).items():
            app.router.add_post(path, _taker(take))
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S, keepalive_timeout=IDLE_MAX_S
        )
        self._accepting: Accepting | None = None

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
        if self._accepting is not None:
            await self._accepting.stop()
        await self._runner.cleanup()


Admits = Callable[[web.Request], bool]


def _anybody(request: web.Request) -> bool:
    return True


def _only_known(request: web.Request) -> bool:
    """Return whether the caller showed a certificate; one that is not of the cluster got no connection."""
    return bool(request.get_extra_info("peercert"))


def _caller_of(request: web.Request) -> Caller:
    connection = request.get_extra_info("ssl_object")
    shown = connection.getpeercert(binary_form=True) if connection is not None else None
    return Caller(request.remote or "", ssl.DER_cert_to_PEM_cert(shown).encode() if shown else b"")


def _handler(admits: Admits, answer: Respond) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        found = answer() if admits(request) else DENIED
        given = found if isinstance(found, Answer) else await found
        return web.Response(status=given.status, text=given.text, content_type=given.content_type, charset="utf-8")

    return handle


def _taker(take: Take) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        given = await take(await request.read(), _caller_of(request))
        return web.Response(status=given.status, text=given.text, content_type=given.content_type, charset="utf-8")

    return handle
