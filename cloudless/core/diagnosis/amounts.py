"""Amounts in words a person reads at a glance: 1.5 GiB, 40 min, 3 days."""

from __future__ import annotations

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def size(count_bytes: int) -> str:
    for unit, factor in _UNITS:
        if count_bytes >= factor:
            return f"{count_bytes / factor:.1f} {unit}"
    return f"{count_bytes} B"


def duration(seconds: float) -> str:
    """Return a length of time with one unit: seconds under two minutes, days from two days on."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, factor, below in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < below:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
