"""Keep the member's log bounded, and read its end to say why it failed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

ROTATE_ABOVE_BYTES = 20 * 1024**2
# etcd's words (server/etcdserver, since 3.0) when it learns that the cluster has removed it.
_REMOVED = "the member has been permanently removed from the cluster"
_TAIL_BYTES = 16 * 1024
_HEAD_LINES, _TAIL_LINES = 2, 10
# Go's stack: "goroutine 1 [running]:", "package.function(0x1, ...)", and "\tfile.go:27 +0x51" below it.
_STACK_LINE = re.compile(r"\t.*|goroutine \d+ .*|created by .*|[\w./*()-]+\.[\w*()]+\(.*\)|\s*")


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


def excerpt(path: Path, since_bytes: int) -> str:
    """Return what etcd wrote after the first `since_bytes`: the first two lines and the last ten, without stacks.

    A wrong flag or a panic names its cause first and then writes pages; any other failure names it last.
    """
    lines = [line for line in _since(path, since_bytes).splitlines() if not _STACK_LINE.fullmatch(line)]
    if len(lines) > _HEAD_LINES + _TAIL_LINES:
        lines[_HEAD_LINES:-_TAIL_LINES] = ["..."]
    return "\n".join(lines)


def last_words(path: Path, since_bytes: int) -> str:
    """Return the last line that etcd wrote after the first `since_bytes`, without stacks; "" if there is none."""
    lines = [line for line in _since(path, since_bytes).splitlines() if not _STACK_LINE.fullmatch(line)]
    return lines[-1].strip() if lines else ""


def is_stack(line: str) -> bool:
    """Return whether a line is of a stack that Go printed, or empty."""
    return _STACK_LINE.fullmatch(line) is not None


def says_removed(path: Path, since_bytes: int) -> bool:
    """Return whether etcd wrote, after the first `since_bytes` of the log, that it is no longer a member."""
    return _REMOVED in _since(path, since_bytes)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _since(path: Path, since_bytes: int) -> str:
    """Return the log from `since_bytes` on, at most its first and its last 16 KiB from there."""
    try:
        with path.open("rb") as file:
            size_bytes = _size_bytes(path)
            # Shorter than that: it was cut meanwhile, and all of it is new.
            start = since_bytes if since_bytes <= size_bytes else 0
            file.seek(start)
            head = file.read(_TAIL_BYTES)
            file.seek(max(file.tell(), size_bytes - _TAIL_BYTES))
            return (head + file.read()).decode(errors="replace")
    except FileNotFoundError:
        return ""
