"""What is used, and how a rate comes from two looks at a counter."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes use together. `cpu_s`, the processor time so far, only grows; UNKNOWN: it cannot be told."""

    cpu_s: float = UNKNOWN
    memory_bytes: int = UNKNOWN


def cpu_millicores(before: Usage, after: Usage, between_s: float) -> int:
    """Return the processor use between two looks, UNKNOWN if one of them knows nothing or the counter began anew."""
    if before.cpu_s < 0 or after.cpu_s < before.cpu_s or between_s <= 0:
        return UNKNOWN
    return round(1000 * (after.cpu_s - before.cpu_s) / between_s)
