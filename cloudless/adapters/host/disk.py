"""Measure a disk: how much is free on it, and how long a durable write takes.

The probe writes as etcd's log does: small appends, each followed by fdatasync, in the directory that will hold the
data. It is bounded in writes and in time; a disk that hangs costs one write of it, in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

PROBE_WRITES = 24
PROBE_BYTES = 4_096
PROBE_S = 0.6


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of a file system, for an ordinary user."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int


@dataclass(frozen=True, slots=True)
class FsyncTimes:
    """Milliseconds of single durable writes; `worst_ms` is what the 99th percentile comes to with so few."""

    median_ms: float
    worst_ms: float
    writes: int


def measure_room(path: Path) -> Room:
    """Return the room on the file system of `path` or of its nearest parent that exists. Raises OSError."""
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files)


def measure_fsync(directory: Path, writes: int = PROBE_WRITES, budget_s: float = PROBE_S) -> FsyncTimes:
    """Write durably to a file in `directory` until `writes` or `budget_s` are used up; remove it. Raises OSError."""
    path = directory / f".fsync-probe.{secrets.token_hex(4)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        times_ms: list[float] = []
        content, ends_s = bytes(PROBE_BYTES), time.monotonic() + budget_s
        os.write(handle, content)
        os.fsync(handle)  # the first makes the file: that is not what a log does
        while len(times_ms) < writes and (not times_ms or time.monotonic() < ends_s):
            began_s = time.monotonic()
            os.write(handle, content)
            os.fdatasync(handle)
            times_ms.append(1000 * (time.monotonic() - began_s))
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()
    times_ms.sort()
    return FsyncTimes(times_ms[len(times_ms) // 2], times_ms[-1], len(times_ms))
