"""How often somebody without an identity may try: a bucket of tries per place and one for all, refilled in time.

Guessing a token is hopeless; what a limit protects is the coordinator, which must sign and write for each try.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PLACE_TRIES_MAX = 20.0
PLACE_TRIES_PER_S = 1.0
ALL_TRIES_MAX = 200.0
ALL_TRIES_PER_S = 50.0
PLACES_MAX = 1_024
"""So many places are remembered; beyond, the one longest unheard of is forgotten."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`left` tries at `at_s`."""

    left: float
    at_s: float


def take(bucket: Bucket | None, now_s: float, tries_max: float, tries_per_s: float) -> tuple[Bucket, bool]:
    """Return the bucket after a try, and whether there was one left."""
    if bucket is None:
        bucket = Bucket(tries_max, now_s)
    left = min(tries_max, bucket.left + max(0.0, now_s - bucket.at_s) * tries_per_s)
    return (Bucket(left - 1, now_s), True) if left >= 1 else (replace(bucket, left=left, at_s=now_s), False)


class Pace:
    """The tries of everybody."""

    def __init__(self) -> None:
        self._places: dict[str, Bucket] = {}
        self._all: Bucket | None = None

    def take(self, place: str, now_s: float) -> bool:
        """Return whether a try from `place` (an address without port) may go on now."""
        bucket, allowed = take(self._places.pop(place, None), now_s, PLACE_TRIES_MAX, PLACE_TRIES_PER_S)
        self._places[place] = bucket
        if len(self._places) > PLACES_MAX:
            del self._places[next(iter(self._places))]
        if not allowed:
            return False
        self._all, allowed = take(self._all, now_s, ALL_TRIES_MAX, ALL_TRIES_PER_S)
        return allowed
