"""A place that logs without end is cut short, told of once a window, and costs a bounded table."""

from __future__ import annotations

from cloudless.observability.flood import KIND_MAX, LINES_MAX, PLACES_MAX, SAME_MAX, WINDOW_S, Flood, Held


def test_the_first_lines_of_a_place_are_written_and_the_others_counted() -> None:
    flood = Flood()
    admitted = [flood.admit("here", "INFO", f"node {n}", 0.0) for n in range(LINES_MAX + 30)]
    assert admitted == [True] * LINES_MAX + [False] * 30
    assert flood.take_held(WINDOW_S) == [Held("here", "INFO", f"node {LINES_MAX + 29}", 30, WINDOW_S)]
    assert flood.take_held(WINDOW_S) == []


def test_another_place_is_not_held_back_for_it() -> None:
    flood = Flood()
    for _ in range(100):
        flood.admit("here", "INFO", "same", 0.0)
    assert flood.admit("there", "INFO", "same", 0.0)


def test_the_next_window_begins_anew() -> None:
    flood = Flood()
    for _ in range(SAME_MAX + 1):
        flood.admit("here", "INFO", "same", 0.0)
    assert not flood.admit("here", "INFO", "same", WINDOW_S - 0.1)
    (held,) = flood.take_held(WINDOW_S)
    assert held.count == 2
    assert flood.admit("here", "INFO", "same", WINDOW_S)


def test_lines_of_one_kind_are_the_same_whatever_they_say() -> None:
    flood = Flood()
    admitted = [flood.admit("etcd", "WARNING", f"slow ({n} ms)", 0.0, "slow") for n in range(20)]
    assert sum(admitted) == KIND_MAX


def test_the_table_is_bounded() -> None:
    flood = Flood()
    for n in range(3 * PLACES_MAX):
        flood.admit(n, "INFO", "x", float(n))
    assert len(flood._windows) <= PLACES_MAX + 1
    for n in range(3 * PLACES_MAX):
        flood.admit(-n, "INFO", "x", 0.0)
    assert len(flood._windows) <= PLACES_MAX + 1
