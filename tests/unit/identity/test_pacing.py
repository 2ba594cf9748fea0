"""Strangers may try so often, each place for itself and all together, and no more places are remembered than stated."""

from __future__ import annotations

from cloudless.core.identity.pacing import ALL_TRIES_MAX, PLACE_TRIES_MAX, PLACES_MAX, Pace


def test_one_place_is_stopped_and_goes_on_with_time() -> None:
    pace = Pace()
    assert sum(pace.take("a", 0.0) for _ in range(100)) == PLACE_TRIES_MAX
    assert not pace.take("a", 0.5)
    assert pace.take("a", 1.5)
    assert pace.take("b", 1.5)


def test_many_places_together_are_stopped_too() -> None:
    pace = Pace()
    assert sum(pace.take(f"place-{n}", 0.0) for n in range(2_000)) == ALL_TRIES_MAX
    assert len(pace._places) == PLACES_MAX


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    pace = Pace()
    assert sum(pace.take("a", 100.0 - n) for n in range(100)) == PLACE_TRIES_MAX
