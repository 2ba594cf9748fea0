"""A TCP proxy in front of one service, for what packet rules cannot do, and where there are no namespaces.

Modes, for established and new connections alike::

    PASS      bytes flow both ways
    MUTE      requests arrive, answers are swallowed: what was asked for happens, and nobody hears of it
    HOLE      nothing flows, nothing is closed: connections are half open
    CLOSED    connections are closed, new ones too
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum

_CHUNK = 65_536


class Mode(Enum):
    PASS = "pass"
    MUTE = "mute"
    HOLE = "hole"
    CLOSED = "closed"


class Proxy:
    """One proxy; lives on the event loop it is started on. `address` is where to connect to."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._mode = Mode.PASS
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.address = ""
        self.swallowed_bytes = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def set(self, mode: Mode) -> None:
        """Change the mode. Bytes that waited in a HOLE flow when it ends."""
        self._mode = mode
        if mode is Mode.HOLE:
            self._flows.clear()
        else:
            self._flows.set()
        if mode is Mode.CLOSED:
            self._abort_all()

    async def close(self) -> None:
        self._server.close()
        self._flows.set()
        self._abort_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._flows.wait()
            if self._mode is Mode.CLOSED:
                return
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
            self._open.add(far_writer)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, far_writer, answers=False))
                    both.create_task(self._pump(far_reader, writer, answers=True))
            finally:
                self._drop(far_writer)
        except* OSError:
            pass
        finally:
            self._drop(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(_CHUNK):
            await self._flows.wait()
            if answers and self._mode is Mode.MUTE:
                self.swallowed_bytes += len(data)
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has closed")

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        with suppress(OSError):
            writer.transport.abort()

    def _abort_all(self) -> None:
        for writer in list(self._open):
            self._drop(writer)
