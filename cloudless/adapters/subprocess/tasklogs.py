"""Read a task's output back: the last lines of the rotated files, then what is appended, in bounded memory.

Each stream is read from its own two files, so lines of stdout and stderr come apart, stdout first. Someone who
follows and falls behind by more than the kept history misses what was rotated away; nothing ever piles up.

When a part was written is told by the shim's notes beside each file (`logtimes`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudless.adapters.subprocess.logtimes import Times
from cloudless.ports import LogChunk, LogQuery

CHUNK_BYTES = 64 * 1024
STREAMS = ("stdout", "stderr")


class LogReader:
    """One reader of one attempt's output. Its methods read files: call them off the event loop."""

    def __init__(self, directory: Path, attempt: int, query: LogQuery) -> None:
        self._attempt = attempt
        self._tails = {name: _Tail(directory / f"{name}.log", query) for name in STREAMS}

    def read(self) -> list[LogChunk]:
        """Return the next chunks of each stream that has some, 64 KiB of each at most; an empty list: all read."""
        found = ((name, part) for name, tail in self._tails.items() for part in tail.read())
        return [LogChunk(name, data, self._attempt, at_ms) for name, (data, at_ms) in found]

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()


class _Tail:
    """A position in a pair of rotated files."""

    def __init__(self, path: Path, query: LogQuery) -> None:
        self._path = path
        self._timestamps = query.timestamps
        self._handle: int | None = None
        self._times: Times | None = None
        self._position = 0
        older = path.with_name(path.name + ".1")
        begin = max(_seek_tail(path, older, query.tail_lines), _seek_since(path, older, query.since_ms))
        file_number, start = begin
        if file_number == 0:
            self._open(older, start)
            start = 0
        if self._handle is None:
            self._open(path, start)

    def read(self) -> list[tuple[bytes, int]]:
        """Return parts (data, when it was written in ms, 0: not asked for or not known), at most 64 KiB of all."""
        for _ in range(2):
            if self._handle is None:
                self._open(self._path, 0)
            if self._handle is None:
                return []
            parts = list(self._read_parts(self._handle))
            if parts or not self._rotated():
                return parts
            # This file is read to its end and has been renamed: go on in its successor.
            self.close()
        return []

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._times is not None:
            self._times.close()
            self._times = None

    def _read_parts(self, handle: int) -> Iterator[tuple[bytes, int]]:
        left = CHUNK_BYTES
        while left > 0:
            count, at_ms = left, 0
            if self._times is not None:
                at_ms, until = self._times.at(self._position)
                count = min(left, until - self._position)
            data = os.pread(handle, count, self._position)
            if not data:
                return
            self._position += len(data)
            left -= len(data)
            yield data, at_ms

    def _open(self, path: Path, start: int) -> None:
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._position = start
        if self._timestamps:
            self._times = Times.of(path)

    def _rotated(self) -> bool:
        assert self._handle is not None
        try:
            return self._path.stat().st_ino != os.fstat(self._handle).st_ino
        except OSError:
            return False


Place = tuple[int, int]
"""Where to begin: 0 for the older file, 1 for the newer; the offset in it."""


def _seek_tail(path: Path, older: Path, lines: int) -> Place:
    missing, start = _seek_lines(path, lines)
    if missing == 0:
        return 1, start
    _, older_start = _seek_lines(older, missing)
    return 0, older_start


def _seek_since(path: Path, older: Path, since_ms: int) -> Place:
    """Return where what was written since then begins; what has no notes counts as written now."""
    if since_ms <= 0:
        return 0, 0
    for number, file in ((0, older), (1, path)):
        times = Times.of(file)
        if times is None:
            if file.exists():
                return number, 0
            continue
        try:
            offset = times.find(since_ms)
        finally:
            times.close()
        if offset is not None:
            return number, offset
    try:
        return 1, path.stat().st_size
    except OSError:
        return 1, 0


def _seek_lines(path: Path, lines: int) -> tuple[int, int]:
    """Return (lines still missing, offset) so that the last `lines` lines of `path` start at offset; -1: all."""
    try:
        size = path.stat().st_size
    except OSError:
        return lines, 0
    if lines < 0:
        return -1, 0
    if lines == 0:
        return 0, size
    with path.open("rb") as file:
        return _scan_back(size, lines, lambda offset, count: os.pread(file.fileno(), count, offset))


def _scan_back(size: int, lines: int, read: Callable[[int, int], bytes]) -> tuple[int, int]:
    wanted = lines
    for offset, block in _blocks_back(size, read):
        # The newline that ends the file ends its last line, it does not begin another.
        end = len(block) - 1 if offset + len(block) == size else len(block)
        while (found := block.rfind(b"\n", 0, end)) >= 0:
            wanted -= 1
            if wanted == 0:
                return 0, offset + found + 1
            end = found
    return (wanted - 1 if size else wanted), 0


def _blocks_back(size: int, read: Callable[[int, int], bytes]) -> Iterator[tuple[int, bytes]]:
    position = size
    while position > 0:
        start = max(0, position - CHUNK_BYTES)
        yield start, read(start, position - start)
        position = start
