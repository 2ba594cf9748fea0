"""The agent's data directory belongs to one agent at a time.

::

    <data>/lock              flock, holds the pid of its owner
    <data>/head              see `journal`
    <data>/journal/<task id>
    <data>/tasks/<task id>/  the process executor's
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cloudless.errors import DataDirLocked, StartupError

MODE = 0o711
"""Tasks of other users get through to their own directories; all else in it is closed to them by its own mode."""


def lock_data_dir(path: Path) -> int:
    """Create `path` if need be (0711) and return its held lock; it is released when the process ends.

    Raises DataDirLocked, naming the pid of the agent that holds it, or StartupError.
    """
    try:
        path.mkdir(mode=MODE, parents=True, exist_ok=True)
        lock = _open(path / "lock")
    except OSError as error:
        raise StartupError(
            f"cannot use the data directory {path}: {error.strerror}",
            hint="set CLOUDLESS_DATA_DIR to a directory the agent may write to",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise DataDirLocked(
            f"another agent (pid {owner}) uses {path}", hint="stop it, or give this one another CLOUDLESS_DATA_DIR"
        ) from error
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        # A full or read-only disk: the lock is held all the same, only nameless.
        pass
    return lock


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
