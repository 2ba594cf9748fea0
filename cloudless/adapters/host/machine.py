"""Look at this machine: memory, its limits by control group, swap, open files, whether its clock is synchronised.

Everything is read from /proc, /sys and the C library; what cannot be read is -1 or None, never a guess.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
OPEN_FILES = 65_536
_TIMEX_BYTES = 512  # more than any architecture's struct timex; modes 0 only reads


@dataclass(frozen=True, slots=True)
class Machine:
    """-1 and None: not known. `memory_limit_bytes`: of this process's control group."""

    memory_bytes: int
    memory_free_bytes: int
    memory_limit_bytes: int
    swap_used_bytes: int
    cpus: float
    open_files_max: int
    clock_synchronised: bool | None


def look_at_machine() -> Machine:
    """Return what there is to know of this machine."""
    memory = _meminfo()
    swap = memory.get("SwapTotal", -1) - memory.get("SwapFree", 0) if "SwapTotal" in memory else -1
    return Machine(
        memory_bytes=memory.get("MemTotal", -1),
        memory_free_bytes=memory.get("MemAvailable", -1),
        memory_limit_bytes=_group_limit("memory.max"),
        swap_used_bytes=swap,
        cpus=float(len(os.sched_getaffinity(0))),
        open_files_max=open_files_max(),
        clock_synchronised=_clock_synchronised(),
    )


def open_files_max() -> int:
    """Return how many files this process may open, -1 for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return -1 if soft == resource.RLIM_INFINITY else soft


def allow_open_files() -> None:
    """Let this process open as many files as its system lets it, up to `OPEN_FILES`.

    The usual limit is there for programs that use select(): a few hundred agents would be too many for it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _meminfo() -> dict[str, int]:
    """Return the figures of /proc/meminfo in bytes."""
    found: dict[str, int] = {}
    try:
        lines = (_PROC / "meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def _group_limit(name: str) -> int:
    """Return the tightest limit from this process's control group (v2) up to the root, -1 if there is none."""
    try:
        own = (_PROC / "self/cgroup").read_text(encoding="ascii").splitlines()[-1].rpartition(":")[2].strip("/")
    except (OSError, IndexError):
        return -1
    limits = []
    path = _CGROUP / own
    while path != _CGROUP.parent:
        with contextlib.suppress(OSError, ValueError):  # none here, or "max"
            limits.append(int((path / name).read_text(encoding="ascii")))
        path = path.parent
    return min(limits, default=-1)


def _clock_synchronised() -> bool | None:
    """Return what the kernel says of the clock; None where it cannot be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _UNSYNCHRONISED
