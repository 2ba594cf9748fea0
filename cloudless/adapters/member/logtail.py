"""What etcd writes to its log, passed on as it is written: parsed, judged by level, in few words.

etcd's own file stays what it is, complete and rotated (`logfile`); this reads behind it. Bounded: a look a second, at
most `READ_BYTES_MAX` of what is new each time (what etcd wrote beyond that is skipped and said so), short values. A
line that is no JSON (a panic's words) is passed on as it is, as an error; stacks are left out.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudless.adapters.member.logfile import is_stack

LOOK_PERIOD_S = 1.0
READ_BYTES_MAX = 64 * 1024
VALUE_LENGTH_MAX = 200
VALUES_MAX = 6
# zap's level → ours
LEVELS = {
    "debug": "DEBUG",
    "info": "DEBUG",  # etcd tells of every step of its own
    "warn": "WARNING",
    "error": "ERROR",
    "dpanic": "ERROR",
    "panic": "ERROR",
    "fatal": "ERROR",
}
# Warnings that say nothing to an operator: how we run it, that a connection to a peer came and went (that the peer is
# gone is said once more, in other words), what our own calls over its gateway look like to it.
EXPECTED = frozenset(
    {
        "Running http and grpc server on single port. This is not recommended for production.",
        "simple token is not cryptographically signed",
        "ignoring common name in gRPC-gateway proxy request",
        "closed TCP streaming connection with remote peer",
        "lost TCP streaming connection with remote peer",
        "failed to find remote peer in cluster",
        "failed to get version",
        "failed to reach the peer URL",
        "request stats",
        "stopped secure grpc server due to error",
        "stopping secure grpc server due to error",
    }
)
# Of the gRPC library inside of etcd, which warns of each connection that a client drops.
_OF_GRPC = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR): (?:\[\w+\] ?)*(.*)")
# etcd's own frame: when, where in its code; the level and the words are taken apart from the rest.
_FRAME = frozenset({"level", "ts", "caller", "logger", "msg", "stacktrace", "errorVerbose"})


@dataclass(frozen=True, slots=True)
class EtcdLine:
    """One line: our level, the message without values (the same for lines of one kind), and the values in words."""

    level: str
    kind: str
    values: str

    @property
    def text(self) -> str:
        return f"{self.kind} ({self.values})" if self.values else self.kind


Tell = Callable[[EtcdLine], None]


def parse_line(raw: str) -> EtcdLine | None:
    """Return a line of etcd's log; None for nothing, for a stack's, and for what is `EXPECTED`."""
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return _parse_plain(raw)
    message = _short(found.get("msg", ""))
    if message in EXPECTED:
        return None
    level = LEVELS.get(str(found.get("level", "")).lower(), "WARNING")
    values = [f"{name}: {_short(value)}" for name, value in found.items() if name not in _FRAME and value != ""]
    return EtcdLine(level, message, ", ".join(values[:VALUES_MAX]))


def _parse_plain(raw: str) -> EtcdLine | None:
    """Return a line that is no JSON: of the gRPC library, or of a panic."""
    text = raw.strip()
    if not text or is_stack(raw):
        return None
    if of_grpc := _OF_GRPC.fullmatch(text):
        return EtcdLine("WARNING" if of_grpc[1] == "ERROR" else "DEBUG", "gRPC", _short(of_grpc[2]))
    return EtcdLine("ERROR", text[: 5 * VALUE_LENGTH_MAX], "")


class LogTail:
    """Follows one log file from its end. `run` it beside the member."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self._path, self._tell = path, tell
        self._offset = self._size_bytes()
        self._rest = b""

    async def run(self) -> None:
        """Pass on what is written, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_PERIOD_S)

    def look(self) -> None:
        """Pass on what was written since the last look."""
        size_bytes = self._size_bytes()
        if size_bytes < self._offset:  # rotated: cut, or begun anew
            self._offset, self._rest = 0, b""
        if size_bytes == self._offset:
            return
        skipped = size_bytes - self._offset - READ_BYTES_MAX
        if skipped > 0:
            self._offset, self._rest = self._offset + skipped, b""
            self._tell(EtcdLine("WARNING", "more was written than is passed on; see its log file", f"{skipped} bytes"))
        self._take(self._read(), drop_first=skipped > 0)

    def _take(self, read: bytes, *, drop_first: bool) -> None:
        lines = (self._rest + read).split(b"\n")
        self._rest = lines.pop()[-READ_BYTES_MAX:]
        for line in lines[drop_first:]:
            parsed = parse_line(line.decode(errors="replace"))
            if parsed is not None:
                self._tell(parsed)

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                read = file.read(READ_BYTES_MAX)
        except OSError:
            return b""
        self._offset += len(read)
        return read

    def _size_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[:VALUE_LENGTH_MAX]}…"
