"""When a log file's parts were written, by the notes that the shim keeps beside it.

A note is 16 bytes: milliseconds since 1970, and the size the output had when it was made. What lies between two notes
was written within a tenth of a second of the first, or, in output of a long time, is no more than a few bytes. Nothing
is held in memory.
"""

from __future__ import annotations

import os
from pathlib import Path

NOTE_BYTES = 16
GAP_MS = 100
NEVER = 1 << 62


class Times:
    """The notes of one file; they may grow while they are read. Close it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._current = 0

    @staticmethod
    def of(path: Path) -> Times | None:
        """Return the notes beside the file `path`, None if there are none."""
        try:
            return Times(os.open(path.with_name(path.name + ".times"), os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def at(self, offset: int) -> tuple[int, int]:
        """Return when the byte at `offset` was written (ms, 0: not known), and where that part ends.

        To be asked for growing offsets.
        """
        count = self._count()
        while self._current < count and self._note(self._current)[1] <= offset:
            self._current += 1
        at_ms = self._note(self._current - 1)[0] if self._current else 0
        return at_ms, self._note(self._current)[1] if self._current < count else NEVER

    def find(self, since_ms: int) -> int | None:
        """Return the offset from which on the file was written at `since_ms` or later, None if nothing was."""
        low, high = 0, self._count()
        while low < high:
            middle = (low + high) // 2
            if self._note(middle)[0] < since_ms - GAP_MS:
                low = middle + 1
            else:
                high = middle
        return self._note(low)[1] if low < self._count() else None

    def close(self) -> None:
        os.close(self._handle)

    def _count(self) -> int:
        return os.fstat(self._handle).st_size // NOTE_BYTES

    def _note(self, number: int) -> tuple[int, int]:
        raw = os.pread(self._handle, NOTE_BYTES, number * NOTE_BYTES)
        return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
