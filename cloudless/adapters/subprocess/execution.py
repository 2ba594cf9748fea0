"""A command beside a process task: its streams are pipes or one terminal, read and written without any thread."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from cloudless.adapters.subprocess.launches import Launch
from cloudless.ports import LogChunk, TerminalSize

CHUNK_BYTES = 32 * 1024
CHUNKS_MAX = 8
END_OF_INPUT = b"\x04"
"""What a terminal takes for the end of the input."""


class Streams:
    """The open files of one command: ours, and those it is given. Call `close` at the end."""

    def __init__(self, *, stdin: bool, terminal: TerminalSize | None) -> None:
        self.given: list[int] = []
        self.readers: dict[str, int] = {}
        self.writer = -1
        self.terminal = -1
        self._own: list[int] = []
        if terminal is None:
            self._open_pipes(stdin)
        else:
            self._open_terminal(terminal)
        for handle in self._own:
            os.set_blocking(handle, False)

    def _open_pipes(self, stdin: bool) -> None:
        if stdin:
            theirs, self.writer = os.pipe()
            self._own.append(self.writer)
        else:
            theirs = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.given.append(theirs)
        for name in ("stdout", "stderr"):
            self.readers[name], theirs = os.pipe()
            self._own.append(self.readers[name])
            self.given.append(theirs)

    def _open_terminal(self, size: TerminalSize) -> None:
        ours, theirs = os.openpty()
        self.terminal = self.writer = self.readers["stdout"] = ours
        self._own.append(ours)
        self.given.append(theirs)
        self.resize(size)

    def resize(self, size: TerminalSize) -> None:
        if self.terminal >= 0:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))

    def close_given(self) -> None:
        """Close what the command has a copy of by now: its end is seen when the last copy is closed."""
        while self.given:
            os.close(self.given.pop())

    def end_input(self) -> None:
        if self.writer >= 0 and self.terminal < 0:
            self._own.remove(self.writer)
            os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        self.close_given()
        self.writer = -1
        while self._own:
            os.close(self._own.pop())


class ProcessExecution:
    """Implements `ports.Execution`."""

    def __init__(self, launch: Launch, streams: Streams) -> None:
        self._launch, self._streams = launch, streams

    async def output(self) -> AsyncGenerator[LogChunk, None]:
        """Yield both streams as they come."""
        queue: asyncio.Queue[LogChunk | None] = asyncio.Queue(CHUNKS_MAX)
        readers = self._streams.readers.items()
        pumps = [asyncio.create_task(_pump(name, handle, queue)) for name, handle in readers]
        try:
            left = len(pumps)
            while left:
                chunk = await queue.get()
                if chunk is None:
                    left -= 1
                else:
                    yield chunk
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def write(self, data: bytes) -> None:
        """Write all of it, or until nobody reads."""
        ending = not data
        data = data or (END_OF_INPUT if self._streams.terminal >= 0 else b"")
        loop = asyncio.get_running_loop()
        while data and self._streams.writer >= 0:
            try:
                data = data[os.write(self._streams.writer, data) :]
            except BlockingIOError:
                await _until(self._streams.writer, loop.add_writer, loop.remove_writer)
            except OSError:  # it has closed its input, or has ended
                break
        if ending:
            self._streams.end_input()

    async def resize(self, size: TerminalSize) -> None:
        with suppress(OSError):  # it has ended
            self._streams.resize(size)

    async def wait(self) -> int:
        """Return the exit code."""
        return await self._launch.wait()


async def _pump(name: str, handle: int, queue: asyncio.Queue[LogChunk | None]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = os.read(handle, CHUNK_BYTES)
        except BlockingIOError:
            await _until(handle, loop.add_reader, loop.remove_reader)
            continue
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when its last user has gone
                raise
            data = b""
        if not data:
            break
        await queue.put(LogChunk(name, data))
    await queue.put(None)


async def _until(handle: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    """Return when `handle` can be read or written."""
    possible: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(handle, _settle, possible)
    try:
        await possible
    finally:
        remove(handle)


def _settle(possible: asyncio.Future[None]) -> None:
    if not possible.done():
        possible.set_result(None)
