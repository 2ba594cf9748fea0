"""A small HTTP server on aiohttp: fixed paths, each answered by a function at the time of asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from cloudless.errors import PortInUse


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    status: int
    text: str
    content_type: str = "text/plain"


class HttpServer:
    """Serves `routes` (path → function) on `host:port`, GET and HEAD, and `posts` (path → function of the body)."""

    def __init__(
        self,
        address: str,
        routes: Mapping[str, Callable[[], Answer]],
        posts: Mapping[str, Callable[[bytes], Awaitable[Answer]]] | None = None,
    ) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        app = web.Application(client_max_size=1 << 20)
        for path, answer in routes.items():
            app.router.add_get(path, _handler(answer))
        for path, take in (posts or {}).items():
            app.router.add_post(path, _taker(take))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    async def start(self) -> None:
        """Listen. Raises PortInUse."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, reuse_port=False, shutdown_timeout=0.2).start()
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="choose another port, or end its owner",
            ) from error

    async def stop(self) -> None:
        await self._runner.cleanup()


def _handler(answer: Callable[[], Answer]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        given = answer()
        return web.Response(status=given.status, text=given.text, content_type=given.content_type, charset="utf-8")

    return handle


def _taker(take: Callable[[bytes], Awaitable[Answer]]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        given = await take(await request.read())
        return web.Response(status=given.status, text=given.text, content_type=given.content_type, charset="utf-8")

    return handle
