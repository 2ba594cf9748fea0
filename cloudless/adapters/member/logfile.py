"""Keep the member's log bounded, and read its end to say why it failed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROTATE_ABOVE_BYTES = 20 * 1024**2
# etcd's words (server/etcdserver, since 3.0) when it learns that the cluster has removed it.
_REMOVED = "the member has been permanently removed from the cluster"
_TAIL_BYTES = 16 * 1024


def rotate(path: Path, above_bytes: int = ROTATE_ABOVE_BYTES) -> None:
    """Move a log that has grown past `above_bytes` to `<path>.1`, before etcd is started on a new one."""
    if _size_bytes(path) > above_bytes:
        path.replace(path.with_name(path.name + ".1"))


def rotate_open(path: Path, above_bytes: int = ROTATE_ABOVE_BYTES) -> None:
    """Do the same under a running etcd: copy, then cut. It appends, so it goes on at the new beginning.

    Lines written between copy and cut are lost.
    """
    if _size_bytes(path) > above_bytes:
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)


def tail(path: Path, lines: int = 12) -> str:
    """Return the last lines, or "" if there is no log."""
    return "\n".join(_end(path).splitlines()[-lines:])


def says_removed(path: Path, since_bytes: int) -> bool:
    """Return whether etcd wrote, after the first `since_bytes` of the log, that it is no longer a member."""
    with path.open("rb") as file:
        file.seek(max(since_bytes, _size_bytes(path) - _TAIL_BYTES) if since_bytes <= _size_bytes(path) else 0)
        return _REMOVED.encode() in file.read()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _end(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, _size_bytes(path) - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
