"""How often somebody without an identity may try: a bucket of tries per place and one for all, refilled in time.

Guessing a token is hopeless; what a limit protects is the coordinator, which must sign and write for each try. A try
that was right is given back: a hundred agents that are set up behind one address are no attack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PLACE_TRIES_MAX = 50.0
PLACE_TRIES_PER_S = 5.0
ALL_TRIES_MAX = 400.0
ALL_TRIES_PER_S = 100.0
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


def give_back(bucket: Bucket, tries_max: float) -> Bucket:
    """Return the bucket after a try that was right."""
    return replace(bucket, left=min(tries_max, bucket.left + 1))


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

    def give_back(self, place: str) -> None:
        """Forget a try from `place`, because it was right."""
        if place in self._places:
            self._places[place] = give_back(self._places[place], PLACE_TRIES_MAX)
        if self._all is not None:
            self._all = give_back(self._all, ALL_TRIES_MAX)
