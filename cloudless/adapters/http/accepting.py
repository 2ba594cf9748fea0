"""Take connections for an HTTP server, but no more than it can bear.

A connection under way costs a third of a megabyte with TLS, and making it some milliseconds of the loop, whether or not
its peer ever says anything. So there is a limit to those from one address, and to all; what is beyond is closed at
once, before TLS has cost anything. A handshake has `HANDSHAKE_MAX_S`, or `HURRIED_S` if others wait for its place: an
honest one takes a few milliseconds, so that a crowd that only stands there keeps nobody out for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass

from aiohttp import web
from loguru import logger

HANDSHAKE_MAX_S = 10.0
HURRIED_S = 1.0
FROM_ONE_ADDRESS_MAX = 48
ALL_MAX = 384
ACCEPT_PAUSE_S = 0.5
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class _Shaking:
    """A handshake under way."""

    place: str
    since_s: float


class Accepting:
    """Listens on one address for `server`. `tls` None: plain."""

    def __init__(self, server: web.Server, tls: ssl.SSLContext | None) -> None:
        self._server, self._tls = server, tls
        self._shaking: dict[asyncio.Task[None], _Shaking] = {}
        self._listening: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Return the port of the first address, 0 while there is none."""
        return int(self._listening[0].getsockname()[1]) if self._listening else 0

    async def start(self, host: str, port: int) -> None:
        """Listen on every address of `host`. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in sorted({(info[0], info[4][:2]) for info in found}):
            listening = socket.create_server(address, family=family, backlog=BACKLOG)
            listening.setblocking(False)
            self._listening.append(listening)
            self._begin(self._accept_on(listening))

    async def stop(self) -> None:
        """Take no more; what was taken goes on."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._listening:
            self._listening.pop().close()

    async def _accept_on(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, where = await loop.sock_accept(listening)
            except OSError as error:
                # Out of descriptors, or the peer was gone again.
                logger.warning("HTTP connections are not taken: {}", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            place = str(where[0])
            if self._find_room(place, loop.time()):
                self._shaking[self._begin(self._take(connection))] = _Shaking(place, loop.time())
            else:
                connection.close()

    def _find_room(self, place: str, now_s: float) -> bool:
        """Return whether somebody from `place` may come; the oldest handshake in its way may have to go for that."""
        open_now = [(one.peername or ("",))[0] for one in self._server.connections]
        from_there = [task for task, shaking in self._shaking.items() if shaking.place == place]
        full_there = open_now.count(place) + len(from_there) >= FROM_ONE_ADDRESS_MAX
        if not full_there and len(open_now) + len(self._shaking) < ALL_MAX:
            return True
        oldest = next(iter(from_there if full_there else self._shaking), None)
        if oldest is None or now_s - self._shaking[oldest].since_s < HURRIED_S:
            return False
        del self._shaking[oldest]
        oldest.cancel()
        return True

    async def _take(self, connection: socket.socket) -> None:
        seconds = HANDSHAKE_MAX_S if self._tls else None
        with contextlib.suppress(OSError):  # ssl.SSLError is one: a handshake that failed is no news
            await asyncio.get_running_loop().connect_accepted_socket(
                self._server, connection, ssl=self._tls, ssl_handshake_timeout=seconds
            )

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._shaking.pop(task, None)
