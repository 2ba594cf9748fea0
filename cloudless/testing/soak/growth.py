"""Does a process grow? Decide from figures taken at quiet moments, one sample a round. Pure.

The first samples of a process do not count: caches fill, pools open. Of the rest the median of the last third is
compared with that of the first third, so that one odd sample neither hides a leak nor makes one. What may be added is
a share of the first plus a constant, by figure; a process that lived for too few samples is not judged, which the
report says.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WARM_UP_SAMPLES = 3
JUDGED_SAMPLES_MIN = 6


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much a figure may rise from the first to the last third: `share` of the first, and `constant`."""

    share: float
    constant: float

    def allows(self, first: float, last: float) -> bool:
        return last <= first * (1 + self.share) + self.constant


# fds and tasks of the loop: connections come and go with whoever is being restarted elsewhere, and an agent that moves
# its session from one coordinator to another moves half a dozen tasks with it.
# Memory counts only once everything that is bounded by number is full (see `Filling`), so little more may come.
TOLERANCES: Mapping[str, Tolerance] = {
    "fds": Tolerance(0.10, 6),
    "threads": Tolerance(0.10, 4),
    "rss_mb": Tolerance(0.15, 12),
    "asyncio_tasks": Tolerance(0.10, 16),
    "agent_sessions": Tolerance(0.0, 3),
    "state_listeners": Tolerance(0.0, 3),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of one life of one process; `life` is its name and pid."""

    at_s: float
    life: str
    figures: Mapping[str, float]


FILLED_REVISIONS = 10_000
"""A coordinator remembers 20,000 changes, and a write makes two: the object and the event that tells of it."""


class Filling:
    """Knows how much each life has seen since its first sample.

    A coordinator remembers recent changes, digests and events up to a number of each; until it has seen enough
    revisions to fill these, its memory grows by design, and is noted under a name that is not judged.
    """

    def __init__(self) -> None:
        self._first_revision: dict[str, float] = {}

    def name_memory(self, sample: Sample) -> Sample:
        """Return the sample without its revision, its memory under the name it deserves."""
        figures = dict(sample.figures)
        revision = figures.pop("state_revision", None)
        if revision is not None and "rss_mb" in figures:
            first = self._first_revision.setdefault(sample.life, revision)
            if revision - first < FILLED_REVISIONS:
                figures["rss_mb_while_filling"] = figures.pop("rss_mb")
        return Sample(sample.at_s, sample.life, figures)


@dataclass(frozen=True, slots=True)
class Trend:
    """One figure of one life: medians of the first and the last third after warming up."""

    life: str
    figure: str
    samples: int
    first: float
    last: float
    per_hour: float

    @property
    def grows(self) -> bool:
        return not TOLERANCES[self.figure].allows(self.first, self.last)

    def __str__(self) -> str:
        return (
            f"{self.life}: {self.figure} went from {self.first:g} to {self.last:g} over {self.samples} samples "
            f"({self.per_hour:+.1f} an hour)"
        )


def find_trends(samples: Iterable[Sample]) -> list[Trend]:
    """Return the trend of every figure that has a tolerance, of every life with enough samples."""
    series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        for figure, value in sample.figures.items():
            if figure in TOLERANCES:
                series[sample.life, figure].append((sample.at_s, value))
    judged = {key: points[WARM_UP_SAMPLES:] for key, points in sorted(series.items())}
    return [_trend(*key, points) for key, points in judged.items() if len(points) >= JUDGED_SAMPLES_MIN]


def _trend(life: str, figure: str, points: list[tuple[float, float]]) -> Trend:
    third = len(points) // 3
    first, last = points[:third], points[-third:]
    start_s, end_s = (statistics.fmean(at_s for at_s, _ in part) for part in (first, last))
    low, high = (statistics.median(value for _, value in part) for part in (first, last))
    return Trend(life, figure, len(points), low, high, (high - low) / max(1e-9, end_s - start_s) * 3600)
