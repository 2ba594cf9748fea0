"""What the whole machine uses: processor time and memory, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

from cloudless.adapters.host.machine import look_at_machine
from cloudless.core.usage import UNKNOWN, Usage

_STAT = Path("/proc/stat")
_IDLE, _WAITING = 3, 4
_COUNTED = 8
"""Fields of the first line of /proc/stat: user nice system idle iowait irq softirq steal; guests are in user."""


def read_machine_usage() -> Usage:
    """Return processor time of all cores since the start, without idling, and memory that is not available."""
    machine = look_at_machine()
    known = machine.memory_bytes >= 0 and machine.memory_free_bytes >= 0
    return Usage(_busy_s(), machine.memory_bytes - machine.memory_free_bytes if known else UNKNOWN)


def _busy_s() -> float:
    try:
        ticks = [int(word) for word in _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]][:_COUNTED]
    except (OSError, ValueError, IndexError):
        return UNKNOWN
    busy = sum(ticks) - ticks[_IDLE] - ticks[_WAITING]
    return busy / os.sysconf("SC_CLK_TCK")
