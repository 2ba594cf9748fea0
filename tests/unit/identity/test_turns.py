"""Turns never overlap: nobody begins while another that began in its turn may still be at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.identity.turns import BEGIN_S, TURN_S, until_turn_s

IDS = ("c1", "c2", "c3", "c4", "c5")


def test_turns_go_round_in_the_order_of_ids() -> None:
    begin = {id: until_turn_s(id, IDS, 0.0) for id in IDS}
    assert begin == {"c1": 0.0, "c2": TURN_S, "c3": 2 * TURN_S, "c4": 3 * TURN_S, "c5": 4 * TURN_S}


def test_a_turn_that_is_too_old_is_left_for_the_next_one() -> None:
    assert until_turn_s("c1", IDS, BEGIN_S - 0.1) == 0.0
    assert until_turn_s("c1", IDS, BEGIN_S) == pytest.approx(5 * TURN_S - BEGIN_S)


def test_who_is_no_member_yet_counts_itself() -> None:
    assert until_turn_s("c9", IDS, 5 * TURN_S) == 0.0


@given(st.integers(1, 7), st.floats(0, 4e9))
def test_at_any_moment_one_may_begin_at_most_and_everybody_comes_to_it(count: int, now_s: float) -> None:
    ids = [f"c{number}" for number in range(count)]
    waits_s = [until_turn_s(id, ids, now_s) for id in ids]
    assert waits_s.count(0.0) <= 1
    assert all(0 <= wait_s <= count * TURN_S for wait_s in waits_s)
