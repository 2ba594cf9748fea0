"""Recognise the etcd that a killed coordinator left behind.

The pid file names the process by pid, start time, boot and command line; all four must agree. A coordinator can
die between starting etcd and writing the file, so the process table is searched as well, for an etcd on this
very data directory: whoever holds the directory's lock owns every etcd that runs on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cloudless.adapters.member import procfs
from cloudless.adapters.member.durable import write_durably


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told from every other one before and after it."""

    pid: int
    start_ticks: int
    boot_id: str
    argv: tuple[str, ...]

    def lives(self) -> bool:
        """Return whether this very process still runs."""
        return (
            procfs.boot_id() == self.boot_id
            and procfs.start_ticks(self.pid) == self.start_ticks
            and tuple(procfs.argv_of(self.pid)) == self.argv
        )


def identify(pid: int, argv: Sequence[str] = ()) -> Identity | None:
    """Return who `pid` is now, or None if it is gone.

    The parent of a process just started gives its `argv`: /proc shows none for a moment after the exec.
    """
    started = procfs.start_ticks(pid)
    words = tuple(argv or procfs.argv_of(pid))
    return Identity(pid, started, procfs.boot_id(), words) if started is not None and words else None


def write_pidfile(path: Path, identity: Identity) -> None:
    write_durably(path, json.dumps(asdict(identity)))


def read_pidfile(path: Path) -> Identity | None:
    """Return the process that `path` names, or None if there is no file or no sense in it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Identity(document["pid"], document["start_ticks"], document["boot_id"], tuple(document["argv"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_orphan(path: Path, data_dir: str) -> Identity | None:
    """Return the etcd that runs on `data_dir`: by the pid file, else by the process table."""
    recorded = read_pidfile(path)
    if recorded and recorded.lives():
        return recorded
    flag = f"--data-dir={data_dir}"
    return next((identify(pid) for pid in procfs.pids() if flag in procfs.argv_of(pid)[1:]), None)
