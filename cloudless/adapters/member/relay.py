"""Lead etcd's connections from addresses that its peers had to those where they are now.

etcd dials what its data say and knows no other way, but it obeys the environment's proxy. So the relay is a proxy on
loopback that serves one list of routes and refuses every other target. Go asks no proxy for loopback addresses; for
those the relay listens at the old address itself (all processes of such a cluster are on this machine, and whoever of
them listens there first serves all).

It is for the minutes until the cluster has written the new addresses down, not for keeps: every byte goes through
this process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from urllib.parse import urlsplit

_HEAD_BYTES_MAX = 16 * 1024
_CHUNK_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 3.0


class Relay:
    """Serves `routes` (host:port → host:port) until it is closed. Addresses that are no one's route are refused."""

    def __init__(self, routes: Mapping[str, str]) -> None:
        self.routes = dict(routes)
        self._targets = frozenset(routes.values())
        self._servers: list[asyncio.Server] = []
        self._splices: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen on a port of loopback, and at those old addresses that are loopback's."""
        proxy = await asyncio.start_server(self._serve_proxy, "127.0.0.1", 0, limit=_HEAD_BYTES_MAX)
        self._servers.append(proxy)
        self.port = proxy.sockets[0].getsockname()[1]
        for old in self.routes:
            host, _, port = old.rpartition(":")
            if host == "localhost" or host.startswith("127."):
                with contextlib.suppress(OSError):  # another coordinator's relay of this machine serves it
                    self._servers.append(await asyncio.start_server(self._forwarder(old), host, int(port)))

    def environment(self) -> dict[str, str]:
        """Return what makes an etcd use this relay."""
        url = f"http://127.0.0.1:{self.port}"
        return {"HTTP_PROXY": url, "HTTPS_PROXY": url, "NO_PROXY": "127.0.0.1,localhost"}

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for splice in list(self._splices):
            splice.cancel()
        if self._splices:
            await asyncio.wait(self._splices)

    def _forwarder(self, old: str):  # type: ignore[no-untyped-def]
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._splice(reader, writer, self.routes[old], b"")

        return forward

    async def _serve_proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, rest = _parse(head)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, ConnectionError):
            return writer.close()
        to = self.routes.get(target, target if target in self._targets else "")
        if not to:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return writer.close()
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._splice(reader, writer, to, rest)

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: str, first: bytes) -> None:
        """Carry bytes both ways until either side ends."""
        task = asyncio.current_task()
        assert task is not None
        self._splices.add(task)
        host, _, port = to.rpartition(":")
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
            far_writer.write(first)
            ways = [
                asyncio.create_task(_pump(reader, far_writer)),
                asyncio.create_task(_pump(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                far_writer.close()
        except (OSError, TimeoutError):
            return
        finally:
            self._splices.discard(task)
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


def _parse(head: bytes) -> tuple[bytes, str, bytes]:
    """Return a request's method, its target (host:port), and what to send on. Raises ValueError.

    One request a connection: Go would send the next one, perhaps for another target, on the same.
    """
    line, _, headers = head.partition(b"\r\n")
    method, target, _version = line.split(b" ", 2)
    if method == b"CONNECT":
        return method, target.decode("ascii"), b""
    kept = [h for h in headers.split(b"\r\n") if not h.lower().startswith((b"connection:", b"proxy-connection:"))]
    rest = b"\r\n".join([line, b"Connection: close", *kept])
    return method, urlsplit(target.decode("ascii")).netloc, rest
