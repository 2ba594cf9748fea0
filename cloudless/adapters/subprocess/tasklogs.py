"""Read a task's output back: the last lines of the rotated files, then what is appended, in bounded memory.

Each stream is read from its own two files, so lines of stdout and stderr come apart, stdout first. Someone who
follows and falls behind by more than the kept history misses what was rotated away; nothing ever piles up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudless.ports import LogChunk

CHUNK_BYTES = 64 * 1024
STREAMS = ("stdout", "stderr")


class LogReader:
    """One reader of one attempt's output. Its methods read files: call them off the event loop."""

    def __init__(self, directory: Path, tail_lines: int) -> None:
        self._tails = {name: _Tail(directory / f"{name}.log", tail_lines) for name in STREAMS}

    def read(self) -> list[LogChunk]:
        """Return the next chunk of each stream that has one; an empty list: all read for now."""
        found = ((name, tail.read()) for name, tail in self._tails.items())
        return [LogChunk(name, data) for name, data in found if data]

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()


class _Tail:
    """A position in a pair of rotated files."""

    def __init__(self, path: Path, tail_lines: int) -> None:
        self._path = path
        self._handle: int | None = None
        older = path.with_name(path.name + ".1")
        missing, start = _seek_lines(path, tail_lines)
        if missing != 0:
            _, older_start = _seek_lines(older, missing)
            self._open(older, older_start)
        if self._handle is None:
            self._open(path, start)

    def read(self) -> bytes:
        for _ in range(2):
            if self._handle is None:
                self._open(self._path, 0)
            if self._handle is None:
                return b""
            data = os.read(self._handle, CHUNK_BYTES)
            if data or not self._rotated():
                return data
            # This file is read to its end and has been renamed: go on in its successor.
            self.close()
        return b""

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self, path: Path, start: int) -> None:
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        os.lseek(self._handle, start, os.SEEK_SET)

    def _rotated(self) -> bool:
        assert self._handle is not None
        try:
            return self._path.stat().st_ino != os.fstat(self._handle).st_ino
        except OSError:
            return False


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
