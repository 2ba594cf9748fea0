"""One data directory has one owner.

    <path>/lock          flock held for the life of the owning process; holds the owner's pid and host
    <path>/member.json   marker: what this node believes of its membership (outside etcd's own directory)
    <path>/progress.json how far this member and the others had got when last heard of
    <path>/coordinators.json where all coordinators were when the cluster last said so
    <path>/etcd.pid      the running etcd, so that it can be adopted after the coordinator was killed
    <path>/etcd.environment  there while the running etcd depends on variables that only its coordinator serves
    <path>/etcd.log      what etcd wrote; etcd.log.1 before that
    <path>/etcd/         etcd's own: write-ahead log and database

The lock belongs to the coordinator and is never inherited by its etcd: an orphaned etcd must not keep the next
coordinator out.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from cloudless.errors import DataDirLocked, StartupError


class DataDir:
    """The directory of one node; created with mode 0700 when it is absent."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"cannot use the data directory {self.path}: {error.strerror}",
                hint="set CLOUDLESS_DATA_DIR to a directory this user may write to",
            ) from error
        self.etcd_dir = self.path / "etcd"
        self.log_file = self.path / "etcd.log"
        self.pidfile = self.path / "etcd.pid"
        self.marker = self.path / "member.json"
        self.progress = self.path / "progress.json"
        self.coordinators = self.path / "coordinators.json"
        self.environment_note = self.path / "etcd.environment"
        self.lock_file = self.path / "lock"
        self._lock_handle: int | None = None

    def lock(self) -> None:
        """Take the directory for this process until it ends. Raises DataDirLocked, naming the owner."""
        if self._lock_handle is not None:
            return
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _owner(os.pread(handle, 4096, 0))
            os.close(handle)
            raise DataDirLocked(
                f"data directory {self.path} belongs to {owner}",
                hint="stop that process, or give this one a directory of its own (CLOUDLESS_DATA_DIR)",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        self._lock_handle = handle

    def unlock(self) -> None:
        """Give the directory back; ending the process does the same."""
        if self._lock_handle is not None:
            os.close(self._lock_handle)
            self._lock_handle = None

    def has_wal(self) -> bool:
        """Return whether etcd has written its log here, that is, whether this member has ever existed."""
        return any((self.etcd_dir / "member" / "wal").glob("*.wal"))


def _owner(content: bytes) -> str:
    try:
        owner = json.loads(content)
        return f"pid {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        # The owner holds the lock but has not written its name yet.
        return "another process"
