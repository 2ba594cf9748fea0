"""What happened in a run, in order: a hash that tells two runs apart, and the last lines for a person."""

from __future__ import annotations

import hashlib
from collections import deque

from cloudless.testing.sim.loop import START_S, SimLoop

TAIL_LINES = 60


class Trace:
    """`note` each thing that happens. `keep_all` keeps every line, not only the last."""

    def __init__(self, loop: SimLoop, *, keep_all: bool = False) -> None:
        self._loop = loop
        self._hash = hashlib.blake2b(digest_size=8)
        self.lines: deque[str] = deque(maxlen=None if keep_all else TAIL_LINES)
        self.count = 0

    def note(self, who: str, what: str) -> None:
        line = f"{self._loop.now_s - START_S:10.6f} {who:<6} {what}"
        self._hash.update(line.encode())
        self.lines.append(line)
        self.count += 1

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()
