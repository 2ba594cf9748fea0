"""Tell one process from every other that had or will have its pid: by start time and boot, from /proc."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloudless.core.usage import Usage

_PROC = Path("/proc")


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


def name_of(pid: int) -> str:
    """Return what a process is called now, "" if it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def find_by_environment(entry: str, *, since_ticks: int) -> list[int]:
    """Return the processes started at or after `since_ticks` whose environment holds `entry` (NAME=value)."""
    needle = entry.encode()
    found = []
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ticks = start_ticks(int(directory.name))
        if needle in environment and ticks is not None and ticks >= since_ticks:
            found.append(int(directory.name))
    return found


def kill_marked(prefix: str) -> None:
    """Kill every process that has an environment entry which begins with `prefix`."""
    needle = prefix.encode()
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            entries = (directory / "environ").read_bytes().split(b"\0")
            if any(entry.startswith(needle) for entry in entries):
                os.kill(int(directory.name), signal.SIGKILL)
        except OSError:
            continue


def sum_usage(roots: Iterable[int]) -> Mapping[int, Usage]:
    """Return what the descendants of each of `roots` use together, without the roots themselves.

    Of processes that have ended only those count that were waited for. Memory that several share counts for each.
    """
    parents: dict[int, int] = {}
    used: dict[int, Usage] = {}
    ticks_s, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for directory in _PROC.iterdir():
        if directory.name.isdigit():
            try:
                fields = (directory / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            pid = int(directory.name)
            parents[pid] = int(fields[1])
            used[pid] = Usage(sum(int(ticks) for ticks in fields[11:15]) / ticks_s, int(fields[21]) * page)
    below: dict[int, list[Usage]] = {root: [] for root in roots}
    for pid, usage in used.items():
        above, seen = parents[pid], 0
        while above in parents and above not in below and seen < len(parents):
            above, seen = parents[above], seen + 1
        if above in below and pid not in below:
            below[above].append(usage)
    return {
        root: Usage(sum(one.cpu_s for one in usages), sum(one.memory_bytes for one in usages))
        for root, usages in below.items()
    }
