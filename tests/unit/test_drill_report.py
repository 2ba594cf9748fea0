"""What a drill's figures prove: gaps, lost writes, second leaders, and rounds that prove nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.cli.dev.report import (
    Ack,
    Kind,
    Report,
    Round,
    Sighting,
    judge,
    leader_gap_s,
    leaders_by_term,
    longest_gap_s,
    lost_writes,
    percentile,
    round_line,
    summarise,
    terms_went_back,
    to_json,
)

GOOD = Round(
    number=1,
    kind=Kind.KILL_LEADER,
    target="coordinator-1",
    leader_gap_s=0.6,
    write_gap_s=0.9,
    agent_reconnect_s=1.1,
    settle_s=4.0,
    writes_before_fault=25,
    writes_acked=300,
    terms=(7, 9),
    leaders={7: ("coordinator-1",), 9: ("coordinator-2",)},
)


def ack(number: int, revision: int, name: str = "w") -> Ack:
    return Ack(name, number, generation=1, revision=revision, sent_s=0.0, acked_s=0.0)


# --- gaps ---------------------------------------------------------------------------------------


def test_the_write_gap_reaches_from_the_last_acknowledgement_before_the_fault() -> None:
    assert longest_gap_s([9.0, 9.9, 11.4, 11.5], start_s=10.0, end_s=11.6) == pytest.approx(1.5)


def test_silence_until_the_end_is_a_gap_too() -> None:
    assert longest_gap_s([9.9, 10.1], start_s=10.0, end_s=15.1) == pytest.approx(5.0)


def test_no_acknowledgement_at_all_is_one_gap() -> None:
    assert longest_gap_s([], start_s=10.0, end_s=13.0) == pytest.approx(3.0)


@given(st.lists(st.floats(0, 100)), st.floats(0, 50), st.floats(0, 50))
def test_a_gap_is_never_negative_and_never_longer_than_what_was_seen(
    acked: list[float], start: float, more: float
) -> None:
    end = start + more
    gap = longest_gap_s(acked, start, end)
    assert 0 <= gap <= end - min([start, *acked])


def test_the_leader_gap_ends_with_the_first_word_of_a_higher_term() -> None:
    sightings = [
        Sighting(10.2, "c3", 7, "c1"),
        Sighting(10.4, "c2", 8, ""),
        Sighting(10.7, "c2", 8, "c2"),
        Sighting(10.9, "c3", 8, "c2"),
    ]
    assert leader_gap_s(sightings, fault_s=10.0, term_before=7) == pytest.approx(0.7)
    assert leader_gap_s(sightings, fault_s=10.0, term_before=8) is None


# --- leaders ------------------------------------------------------------------------------------


def test_two_names_in_one_term_are_two_effective_leaders() -> None:
    leaders = leaders_by_term([Sighting(1, "c2", 7, "c1"), Sighting(2, "c3", 7, "c3"), Sighting(3, "c2", 8, "c3")])
    assert leaders == {7: ("c1", "c3"), 8: ("c3",)}
    assert any("two effective leaders in term 7: c1, c3" in text for text in judge(replace(GOOD, leaders=leaders)))


def test_a_coordinator_whose_term_falls_is_found_but_one_that_knows_none_is_not() -> None:
    sightings = [
        Sighting(1, "c1", 7, "c1"),
        Sighting(2, "c1", 0, ""),
        Sighting(3, "c1", 6, "c2"),
        Sighting(4, "c2", 7, ""),
    ]
    assert terms_went_back(sightings) == ["c1 went back from term 7 to 6"]


def test_terms_must_not_fall_from_round_to_round() -> None:
    rounds = (GOOD, replace(GOOD, number=2, terms=(5,), leaders={}))
    assert Report(rounds).findings == ("round 2: newest term 5 is below 9, seen in the round before",)


# --- writes -------------------------------------------------------------------------------------


def test_a_write_is_lost_if_its_revision_holds_nothing_or_something_else() -> None:
    history = {("w", 5): 1, ("w", 6): 9}
    assert lost_writes([ack(1, 5)], history, gaps=[]) == []
    assert lost_writes([ack(2, 6)], history, gaps=[]) == ["w value 2 at revision 6: history has value 9"]
    assert lost_writes([ack(3, 7)], history, gaps=[]) == ["w value 3 at revision 7: history has nothing"]
    assert lost_writes([ack(1, 5, name="v")], history, gaps=[]) == ["v value 1 at revision 5: history has nothing"]


def test_what_nobody_recorded_is_not_called_lost() -> None:
    assert lost_writes([ack(3, 7)], {}, gaps=[(6, 8)]) == []
    assert lost_writes([ack(3, 9)], {}, gaps=[(6, 8)]) != []


# --- verdicts -----------------------------------------------------------------------------------


def test_a_good_round_passes() -> None:
    assert judge(GOOD) == []
    assert Report((GOOD,)).findings == ()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"writes_lost": ("w value 1",)}, "acknowledged write lost: w value 1"),
        ({"tasks_restarted": ("t1 is gone",)}, "task restarted: t1 is gone"),
        ({"writes_before_fault": 19}, "proves nothing: 19 writes"),
        ({"settle_s": None}, "did not heal"),
        ({"leader_gap_s": None}, "no new leader"),
        ({"findings": ("two show 1",)}, "two show 1"),
    ],
)
def test_each_fault_is_a_finding(change: dict[str, object], word: str) -> None:
    (found,) = judge(replace(GOOD, **change))  # type: ignore[arg-type]
    assert word in found


def test_a_round_that_keeps_its_leader_needs_no_new_one() -> None:
    assert judge(replace(GOOD, kind=Kind.KILL_AGENT, leader_gap_s=None)) == []


def test_a_drill_without_rounds_has_not_passed() -> None:
    assert Report(()).findings


# --- summary ------------------------------------------------------------------------------------


def test_percentiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.5)) == (3.0, 5.0, 7.0)


def test_the_summary_leaves_out_what_was_not_measured() -> None:
    rounds = [GOOD, replace(GOOD, number=2, leader_gap_s=0.8), replace(GOOD, kind=Kind.KILL_AGENT, leader_gap_s=None)]
    summary = summarise(rounds)
    assert "leader_gap_s" not in summary["kill-agent"]
    assert (summary["kill-leader"]["leader_gap_s"].p50, summary["kill-leader"]["leader_gap_s"].max) == (0.6, 0.8)
    assert summary["all"]["write_gap_s"].count == 3


def test_json_holds_rounds_summary_and_verdict() -> None:
    document = json.loads(to_json(Report((GOOD, replace(GOOD, number=2, writes_lost=("w",))), notes=("n",))))
    assert document["passed"] is False
    assert document["rounds"][0]["kind"] == "kill-leader"
    assert document["summary"]["all"]["settle_s"]["count"] == 2
    assert document["notes"] == ["n"]


def test_a_round_fits_one_line() -> None:
    assert "\n" not in round_line(GOOD)
    assert "0 lost" in round_line(GOOD)
