"""How long the store's room will last, from samples of what was in use.

A slope is the median of the slopes between all pairs (Theil and Sen): the saw-tooth of compaction moves it little,
where a line of least squares would follow it. The older and the newer half must both grow, and the slower one counts:
one large object is no trend. Nothing is said before `SPAN_MIN_S`, a few periods of compaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

SPAN_MIN_S = 1_800.0
SAMPLES_MIN = 10
GROWTH_MIN_BYTES_PER_H = 64 << 10
"""Slower than that is noise."""


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    in_use_bytes: int


def forecast_hours(samples: Sequence[Sample], limit_bytes: int) -> float | None:
    """Return the hours until `limit_bytes` are in use, 0 if they are; None if it does not grow or is not known."""
    if not samples or not limit_bytes:
        return None
    left_bytes = limit_bytes - samples[-1].in_use_bytes
    if left_bytes <= 0:
        return 0.0
    if len(samples) < SAMPLES_MIN or samples[-1].at_s - samples[0].at_s < SPAN_MIN_S:
        return None
    middle = len(samples) // 2
    growth_per_h = 3600 * min(_slope(samples[:middle]), _slope(samples[middle:]))
    return left_bytes / growth_per_h if growth_per_h >= GROWTH_MIN_BYTES_PER_H else None


def _slope(samples: Sequence[Sample]) -> float:
    """Return bytes per second."""
    slopes = [
        (later.in_use_bytes - earlier.in_use_bytes) / (later.at_s - earlier.at_s)
        for index, earlier in enumerate(samples)
        for later in samples[index + 1 :]
        if later.at_s > earlier.at_s
    ]
    return median(slopes) if slopes else 0.0
