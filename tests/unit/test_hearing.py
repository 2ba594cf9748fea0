"""Who was heard of when, and what of that another coordinator is told."""

from __future__ import annotations

from cloudless.coordinator.hearing import HeardTable
from cloudless.testing.virtual_time import VirtualClock, virtually


@virtually
async def test_each_sign_of_life_is_told_to_each_other_coordinator_once() -> None:
    clock = VirtualClock()
    table = HeardTable(clock)
    table.hear("n1", own=True)
    table.hear("n2", own=True)
    table.hear("n3", own=False)
    assert set(table.take_news("c2", 2.0)) == {"n1", "n2"}
    assert table.take_news("c2", 2.0) == {}
    assert set(table.take_news("c3", 2.0)) == {"n1", "n2"}, "another one has not been told yet"
    await clock.sleep(0.5)
    table.hear("n1", own=True)
    assert set(table.take_news("c2", 2.0)) == {"n1"}


@virtually
async def test_what_is_old_is_no_news() -> None:
    clock = VirtualClock()
    table = HeardTable(clock)
    table.hear("n1", own=True)
    await clock.sleep(1.5)
    table.hear("n2", own=True)
    await clock.sleep(1.0)
    assert set(table.take_news("c2", 2.0)) == {"n2"}


@virtually
async def test_a_sign_in_the_same_instant_as_the_last_telling_is_made_up_for_by_the_next() -> None:
    clock = VirtualClock()
    table = HeardTable(clock)
    table.hear("n1", own=True)
    table.take_news("c2", 2.0)
    table.hear("n2", own=True)
    await clock.sleep(1.0)
    table.hear("n2", own=True)
    assert set(table.take_news("c2", 2.0)) == {"n2"}


@virtually
async def test_a_forgotten_node_is_no_news() -> None:
    clock = VirtualClock()
    table = HeardTable(clock)
    table.hear("n1", own=True)
    table.forget("n1")
    assert table.take_news("c2", 2.0) == {}
    assert table.silent_s() == {}
