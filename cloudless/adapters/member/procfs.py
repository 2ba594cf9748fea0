"""Read from /proc who a process is and who listens on a port. Every answer may be out of date at once.

A pid alone names nothing: it is reused. A process is identified by pid, start time and boot id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"


def boot_id() -> str:
    """Return this boot's id; pids and start times of another boot mean nothing."""
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int | None:
    """Return when `pid` started, in clock ticks since boot, or None if it is gone or a zombie."""
    try:
        # The program's name stands in parentheses and may hold anything, so count from the last one.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def argv_of(pid: int) -> list[str]:
    """Return the command line of `pid`, empty if it is gone."""
    try:
        content = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in content.split(b"\0")[:-1]]


def pids() -> Iterator[int]:
    """Yield the processes of this process's own pid and mount namespaces.

    A container's processes are seen from its host too, and there the same path is another directory.
    """
    own = _namespaces("self")
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _namespaces(entry.name) == own:
            yield int(entry.name)


def listener_of(port: int) -> int | None:
    """Return the pid that listens on TCP `port`, or None if it is not to be seen from here."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return None
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and inodes & set(_open_files(entry)):
            return int(entry.name)
    return None


def _namespaces(pid: str) -> tuple[str, str] | None:
    try:
        return os.readlink(_PROC / pid / "ns/pid"), os.readlink(_PROC / pid / "ns/mnt")
    except OSError:
        return None


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (_PROC / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _open_files(process: Path) -> Iterator[str]:
    try:
        handles = list((process / "fd").iterdir())
    except OSError:
        return
    for handle in handles:
        try:
            yield os.readlink(handle)
        except OSError:
            continue
