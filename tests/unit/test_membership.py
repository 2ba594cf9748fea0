"""What the autopilot does with the members, row by row, and what it says when it does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.core.membership.autopilot import check_autopilot
from cloudless.core.membership.chronicle import LOOK_GAP_MAX_S, Chronicle, Past, begin, follow
from cloudless.core.membership.observed import JoinView, MemberView, Observed, ReplacementView
from cloudless.core.membership.planner import (
    JOIN_SILENT_MAX_S,
    UNSTARTED_LEARNER_MAX_S,
    MembershipDecision,
    MembershipStep,
    plan_membership,
)
from cloudless.core.membership.quorum import check_removal, spare_of
from cloudless.core.membership.replacement import Newcomer, ReplacementStep, find_newcomer, next_step
from cloudless.core.model import AutopilotRecord

WAIT, REMOVE, PROMOTE = MembershipStep.WAIT, MembershipStep.REMOVE, MembershipStep.PROMOTE
ADD, DROP, MOVE = MembershipStep.ADD_LEARNER, MembershipStep.DROP_LEARNER, MembershipStep.MOVE_LEADER
SETTINGS = AutopilotRecord(dead_after_s=60.0, stabilization_s=10.0, learner_stall_s=90.0)
NOW_S, INDEX = 10_000.0, 5_000


def member(id: int, **changes: object) -> MemberView:
    view = MemberView(
        id=id, name=f"c{id}", peer_urls=(f"http://a{id}:2",), learner=False, started=True, linked=True,
        registered=True, raft_index=INDEX,
    )  # fmt: skip
    return replace(view, **changes)  # type: ignore[arg-type]


def dead(id: int, **changes: object) -> MemberView:
    return member(id, linked=False, registered=False, **changes)


def learner(id: int, **changes: object) -> MemberView:
    return member(id, learner=True, **changes)


def unstarted(id: int) -> MemberView:
    return learner(id, name="", started=False, linked=False, registered=False, raft_index=0)


def join(id: int, **changes: object) -> JoinView:
    return replace(JoinView(f"c{id}", f"a{id}:2", asked_revision=id, api_address=f"a{id}:1"), **changes)  # type: ignore[arg-type]


def given_up(id: int, new_id: str = "", voters: int = 3) -> ReplacementView:
    return ReplacementView(f"c{id}", id, new_id, voters)


def observed(*members: MemberView, joins: tuple[JoinView, ...] = (), **changes: object) -> Observed:
    return replace(
        Observed(members=members, own_member_id=1, raft_leader_id=2, raft_index=INDEX, joins=joins),
        **changes,  # type: ignore[arg-type]
    )


def long_so(seen: Observed, **changes: object) -> Chronicle:
    """Everything has been as it is for very long."""
    lags = {m.id: seen.raft_index - m.raft_index for m in seen.members}
    past = {
        m.id: Past(
            since_s=0.0, alive_s=NOW_S if m.alive else 0.0, advanced_s=0.0, raft_index=m.raft_index,
            in_sync_since_s=0.0 if m.raft_index and lags[m.id] <= SETTINGS.catch_up_lag_max else None,
        )
        for m in seen.members
    }  # fmt: skip
    answered = {asking.node_id: NOW_S if asking.answers else 0.0 for asking in seen.joins}
    return replace(Chronicle(NOW_S, 0.0, (), past, answered), **changes)  # type: ignore[arg-type]


def plan(seen: Observed, settings: AutopilotRecord = SETTINGS, **changes: object) -> MembershipDecision:
    return plan_membership(seen, settings, long_so(seen, **changes))


def said_of(decision: MembershipDecision, subject: str) -> str:
    return "; ".join(wait.reason for wait in decision.waits if wait.subject == subject)


THREE = (member(1), member(2), member(3))
FIVE = (*THREE, member(4), member(5))


# --- etcd's leader ---


@pytest.mark.parametrize(
    ("members", "raft_leader_id", "expected"),
    [
        ([member(1)], 1, (WAIT, 0)),
        ([member(1), member(2), member(3)], 2, (WAIT, 0)),
        ([member(1), member(3), member(2)], 1, (MOVE, 2)),
        ([member(1), member(2, linked=False), member(3)], 1, (MOVE, 3)),
        ([member(1), member(2, linked=False), member(3, started=False)], 1, (WAIT, 0)),
        ([member(1), unstarted(2), member(3)], 1, (MOVE, 3)),
    ],
)
def test_etcds_leader_is_moved_off_the_leaders_host(
    members: list[MemberView], raft_leader_id: int, expected: tuple[MembershipStep, int]
) -> None:
    decision = plan(observed(*members, raft_leader_id=raft_leader_id))
    assert (decision.step, decision.member_id) == expected


def test_a_member_that_did_not_take_leadership_is_left_in_peace() -> None:
    assert plan(observed(*THREE, raft_leader_id=1, resting=frozenset({2}))).member_id == 3


# --- learners and the number of voters ---


@pytest.mark.parametrize(
    ("members", "joins", "expected", "why"),
    [
        ((member(1), learner(2)), (), WAIT, "2 voters survive no more losses than 1"),
        ((member(1), learner(2)), (join(3),), PROMOTE, ""),
        ((*THREE, learner(4)), (), WAIT, "4 voters survive no more losses than 3"),
        ((*THREE, learner(4)), (join(5),), PROMOTE, ""),
        ((*THREE, learner(4)), (join(5, answers=False),), WAIT, "when one more coordinator asks"),
        ((*THREE, learner(4)), (join(3),), WAIT, "when one more coordinator asks"),
        ((member(1), member(2), dead(3), learner(4)), (join(5),), REMOVE, "c3 must be well again"),
        ((*THREE, member(4), learner(5)), (), PROMOTE, ""),
        ((*FIVE, member(6), learner(7)), (), PROMOTE, ""),
        ((*FIVE, member(6), member(7), learner(8)), (join(9),), WAIT, "7 voters, the most allowed"),
    ],
)
def test_a_learner_that_has_caught_up_votes_when_one_more_voter_helps(
    members: tuple[MemberView, ...], joins: tuple[JoinView, ...], expected: MembershipStep, why: str
) -> None:
    decision = plan(observed(*members, joins=joins))
    assert (decision.step is PROMOTE) is (expected is PROMOTE)
    assert expected is not REMOVE or decision.step is REMOVE
    waits = said_of(decision, next(m.name for m in members if m.learner))
    assert why in waits if why else not waits


def test_an_operator_may_want_even_numbers() -> None:
    assert plan(observed(member(1), learner(2)), replace(SETTINGS, even_voters=True)).step is PROMOTE


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (unstarted(4), "has not started yet"),
        (learner(4, raft_index=INDEX - 2_000), "catches up"),
        (learner(4, raft_index=0), "does not tell"),
    ],
)
def test_a_learner_that_is_not_ready_is_waited_for(one: MemberView, why: str) -> None:
    seen = observed(*THREE, one, joins=(join(4), join(5)))
    young = {4: Past(since_s=NOW_S - 5, alive_s=NOW_S, advanced_s=NOW_S - 5)}
    decision = plan(seen, members={**long_so(seen).members, **young})
    assert decision.step is WAIT
    assert why in said_of(decision, "c4")
    assert "one learner at a time, and c4 is one now" in said_of(decision, "c5")


def test_a_learner_must_have_kept_up_for_a_while() -> None:
    seen = observed(*THREE[:2], learner(3))
    fresh = Past(since_s=NOW_S - 9, alive_s=NOW_S, advanced_s=NOW_S, raft_index=INDEX, in_sync_since_s=NOW_S - 0.5)
    decision = plan(seen, members={**long_so(seen).members, 3: fresh})
    assert decision.step is WAIT
    assert "kept up for a while" in said_of(decision, "c3")
    assert plan(seen).step is PROMOTE


def test_a_learner_that_never_starts_gives_way_whether_or_not_others_wait() -> None:
    seen = observed(*THREE, unstarted(4))
    old = Past(since_s=NOW_S - UNSTARTED_LEARNER_MAX_S - 1, alive_s=0.0, advanced_s=0.0)
    assert plan(seen, members={4: old}).step is DROP
    young = replace(old, since_s=NOW_S - UNSTARTED_LEARNER_MAX_S + 1)
    assert plan(seen, members={4: young}).step is WAIT


def test_a_stalled_learner_gives_way_only_to_another() -> None:
    stalled = learner(4, raft_index=100, linked=False)
    alone = plan(observed(*THREE, stalled, joins=(join(4),)))
    assert alone.step is WAIT
    assert "gives way as soon as another asks" in said_of(alone, "c4")
    pressed = plan(observed(*THREE, stalled, joins=(join(4), join(5))))
    assert (pressed.step, pressed.member_id) == (DROP, 4)


# --- the queue ---


def test_joins_are_taken_in_the_order_in_which_they_asked() -> None:
    decision = plan(observed(*THREE, joins=(join(6, asked_revision=9), join(4, asked_revision=20), join(5))))
    assert (decision.step, decision.node_id) == (ADD, "c5")
    assert "number 2 in the queue" in said_of(decision, "c6")
    assert "number 3 in the queue" in said_of(decision, "c4")


def test_who_comes_back_to_its_own_place_goes_first() -> None:
    decision = plan(observed(member(1), member(2), dead(3), joins=(join(4, asked_revision=1), join(3))))
    assert (decision.step, decision.member_id) == (REMOVE, 3)


def test_who_comes_back_waits_while_its_old_member_lives_or_is_needed() -> None:
    living = plan(observed(*THREE, joins=(join(3),)))
    assert living.step is MembershipStep.FORGET_JOIN  # it votes: the request is an old one
    ailing = plan(observed(member(1), member(2), member(3, ailment="has no etcd", registered=False), joins=(join(3),)))
    assert "still lives" in said_of(ailing, "c3")
    needed = plan(observed(member(1), dead(2), dead(3), joins=(join(3),)))
    assert needed.step is WAIT
    assert "cannot be removed" in said_of(needed, "c3")


def test_a_newcomer_at_the_address_of_a_dead_member_takes_its_place() -> None:
    decision = plan(observed(member(1), member(2), dead(3), joins=(join(9, raft_address="a3:2"),)))
    assert (decision.step, decision.member_id) == (REMOVE, 3)


def test_who_was_just_promoted_is_not_taken_for_one_that_lost_its_data() -> None:
    """It has no lease and no links yet; what it holds is the member's data."""
    promoted = member(3, linked=False, registered=False)
    holding = join(3, member_id=3)
    seen = observed(member(1), member(2), promoted, joins=(holding,))
    decision = plan(seen)
    assert (decision.step, decision.node_id) == (MembershipStep.FORGET_JOIN, "c3")
    assert seen.is_admitted(holding)
    assert not seen.is_admitted(join(3))
    assert plan(observed(member(1), member(2), promoted, joins=(join(3),))).step is REMOVE


def test_who_has_gone_away_holds_nobody_up_and_is_forgotten() -> None:
    seen = observed(*THREE, joins=(join(4, answers=False), join(5)))
    decision = plan(seen, joins={"c4": NOW_S - 1, "c5": NOW_S})
    assert (decision.step, decision.node_id) == (ADD, "c5")
    assert "does not answer at a4:1" in said_of(decision, "c4")
    later = plan(seen, joins={"c4": NOW_S - JOIN_SILENT_MAX_S - 1, "c5": NOW_S})
    assert (later.step, later.node_id) == (MembershipStep.FORGET_JOIN, "c4")


# --- dead voters ---


@pytest.mark.parametrize(
    ("members", "joins", "expected"),
    [
        ((member(1), member(2), dead(3)), (), "no other coordinator waits"),
        ((member(1), member(2), dead(3)), (join(4),), REMOVE),
        ((member(1), member(2), dead(3)), (join(4, answers=False),), "no other coordinator waits"),
        ((member(1), member(2), dead(3), learner(4)), (), REMOVE),
        ((member(1), member(2), dead(3), learner(4, raft_index=0)), (join(5),), "no other coordinator waits"),
        ((member(1), dead(2), dead(3)), (join(4),), "only 1 answer"),
        ((*FIVE[:4], dead(5)), (), "no more losses than with it"),
        ((*FIVE[:4], dead(5)), (join(6),), REMOVE),
        ((*FIVE[:3], dead(4), dead(5)), (), REMOVE),
        ((*FIVE[:3], dead(4)), (), REMOVE),
        ((*FIVE[:2], member(3, linked=False), dead(4), dead(5)), (join(6),), "only 2 answer"),
    ],
)
def test_a_dead_voter_is_removed_only_when_that_helps_and_harms_nobody(
    members: tuple[MemberView, ...], joins: tuple[JoinView, ...], expected: MembershipStep | str
) -> None:
    decision = plan(observed(*members, joins=joins))
    first = next(m for m in members if not m.alive)
    if isinstance(expected, MembershipStep):
        assert (decision.step, decision.member_id) == (expected, first.id)
    else:
        assert decision.step is not REMOVE
        assert expected in said_of(decision, first.name)


@pytest.mark.parametrize(
    ("settings", "changes", "why"),
    [
        ({"cleanup_dead_voters": False}, {}, "switched off"),
        ({"dead_after_s": 20_000.0}, {}, "not for 20000 s yet"),
        ({}, {"changed_s": NOW_S - 9}, "changed less than 10 s ago"),
    ],
)
def test_a_dead_voter_is_kept_while_a_setting_says_so(
    settings: dict[str, object], changes: dict[str, object], why: str
) -> None:
    seen = observed(member(1), member(2), dead(3), joins=(join(4),))
    decision = plan(seen, replace(SETTINGS, **settings), **changes)  # type: ignore[arg-type]
    assert decision.step is not REMOVE
    assert why in said_of(decision, "c3")


def test_fewer_voters_than_wanted_are_left_only_if_a_replacement_is_there() -> None:
    """Kept for their number, a dead voter would keep the replacement out for ever: etcd admits nobody beside it."""
    wanted, voters = replace(SETTINGS, min_quorum=5), (*FIVE[:3], dead(4))
    alone = plan(observed(*voters), wanted)
    assert alone.step is not REMOVE
    assert "fewer than 5" in said_of(alone, "c4")
    assert plan(observed(*voters, joins=(join(6),)), wanted).step is REMOVE


def test_what_only_the_leader_cannot_reach_is_not_dead() -> None:
    unreached = member(3, linked=False)
    decision = plan(observed(member(1), member(2), unreached, joins=(join(4),)))
    assert decision.step is ADD  # etcd itself refuses while it misses a voter
    assert not said_of(decision, "c3")


# --- replacement ---


@pytest.mark.parametrize(
    ("members", "joins", "newcomer", "step"),
    [
        ((member(1), member(2), dead(3)), (), Newcomer.AWAY, ReplacementStep.AWAIT_NEWCOMER),
        ((member(1), member(2), dead(3)), (join(5),), Newcomer.AWAY, ReplacementStep.AWAIT_NEWCOMER),
        ((member(1), member(2), dead(3)), (join(4),), Newcomer.QUEUED, ReplacementStep.REMOVE_DEAD),
        ((member(1), member(2), dead(3), learner(4)), (), Newcomer.LEARNER, ReplacementStep.REMOVE_DEAD),
        ((member(1), member(2), dead(3), member(4)), (), Newcomer.VOTER, ReplacementStep.REMOVE_DEAD),
        ((member(1), member(2)), (), Newcomer.AWAY, ReplacementStep.AWAIT_NEWCOMER),
        ((member(1), member(2)), (join(4),), Newcomer.QUEUED, ReplacementStep.ADD_LEARNER),
        ((member(1), member(2), unstarted(4)), (join(4),), Newcomer.LEARNER, ReplacementStep.AWAIT_CATCH_UP),
        ((member(1), member(2), learner(4)), (), Newcomer.LEARNER, ReplacementStep.AWAIT_CATCH_UP),
        ((member(1), member(2), member(4)), (), Newcomer.VOTER, ReplacementStep.DONE),
    ],
)
def test_the_next_step_of_a_replacement_follows_from_what_is_there(
    members: tuple[MemberView, ...], joins: tuple[JoinView, ...], newcomer: Newcomer, step: ReplacementStep
) -> None:
    seen, wanted = observed(*members, joins=joins), given_up(3, "c4")
    assert find_newcomer(seen, wanted) is newcomer
    assert next_step(seen, wanted) is step


@pytest.mark.parametrize(
    ("members", "joins", "new_id", "expected", "about"),
    [
        ((member(1), member(2), dead(3)), (), "", WAIT, "c3"),
        ((member(1), member(2), dead(3)), (join(4),), "", REMOVE, "c3"),
        ((member(1), member(2), dead(3)), (join(4),), "c4", REMOVE, "c3"),
        ((member(1), member(2), dead(3)), (join(3),), "c3", REMOVE, "c3"),
        ((member(1), member(2)), (join(4),), "c4", ADD, "c4"),
        ((member(1), member(2), learner(4)), (), "c4", PROMOTE, "c4"),
        ((member(1), member(2), member(4)), (), "c4", MembershipStep.FORGET_REPLACEMENT, "c3"),
        ((member(1), member(2), member(4)), (), "", MembershipStep.FORGET_REPLACEMENT, "c3"),
    ],
)
def test_what_an_operator_gave_up_is_replaced_at_once_and_step_by_step(
    members: tuple[MemberView, ...], joins: tuple[JoinView, ...], new_id: str, expected: MembershipStep, about: str
) -> None:
    seen = observed(*members, joins=joins, replacements=(given_up(3, new_id),))
    decision = plan(seen, replace(SETTINGS, dead_after_s=86_400.0))
    assert decision.step is expected
    assert about in (decision.node_id, *(wait.subject for wait in decision.waits))


def test_who_answers_again_is_not_replaced() -> None:
    decision = plan(observed(*THREE, joins=(join(4),), replacements=(given_up(3, "c4"),)))
    assert decision.step is not REMOVE
    assert "it answers again" in said_of(decision, "c3")


# --- removals by hand ---


@pytest.mark.parametrize(
    ("members", "removed", "allowed"),
    [
        ([member(1)], 1, False),
        ([member(1), member(2)], 2, True),
        ([member(1), member(2, linked=False)], 1, False),
        ([member(1), member(2, linked=False), member(3)], 2, True),
        ([member(1), member(2, linked=False), member(3)], 3, False),
        ([member(1), member(2, ailment="has no etcd"), member(3)], 3, False),
        ([member(1), member(2, started=False), member(3), member(4)], 4, True),
        ([member(1), member(2, learner=True)], 1, False),
        ([member(1), member(2, learner=True)], 2, True),
    ],
)
def test_a_removal_leaves_a_majority_that_answers(members: list[MemberView], removed: int, allowed: bool) -> None:
    assert (check_removal(members, removed) == "") is allowed


def test_even_numbers_of_voters_survive_no_more() -> None:
    assert [spare_of(n, n) for n in range(1, 8)] == [0, 0, 1, 1, 2, 2, 3]


# --- time ---


def test_silence_counts_from_what_this_leader_saw_itself() -> None:
    seen = observed(member(1), member(2), dead(3))
    past = follow(begin(100.0), seen, 10, 100.0)
    assert past.silent_s(3) == 0.0
    past = follow(past, seen, 10, 104.0)
    assert (past.silent_s(3), past.silent_s(2), past.stable_s()) == (4.0, 0.0, 4.0)


def test_a_leader_that_did_not_look_for_long_begins_anew() -> None:
    seen = observed(member(1), member(2), dead(3))
    past = follow(begin(0.0), seen, 10, 1.0)
    past = follow(past, seen, 10, 2.0 + LOOK_GAP_MAX_S)
    assert (past.silent_s(3), past.stable_s()) == (0.0, 0.0)


def test_any_change_of_the_voters_or_their_health_starts_the_stabilisation_again() -> None:
    past = begin(0.0)
    for at_s, seen in enumerate((observed(*THREE), observed(*THREE, learner(4)), observed(*THREE[:2], dead(3)))):
        past = follow(past, seen, 10, float(at_s))
    assert past.changed_s == 2.0


def test_a_learner_falls_out_of_step_and_back() -> None:
    past = begin(0.0)
    for at_s, index in ((1.0, INDEX), (2.0, INDEX - 11), (3.0, INDEX), (4.0, INDEX)):
        past = follow(past, observed(member(1), learner(2, raft_index=index)), 10, at_s)
    assert past.members[2].in_sync_since_s == 3.0


# --- settings ---


def test_every_wrong_setting_is_named() -> None:
    wrong = AutopilotRecord(dead_after_s=float("nan"), min_quorum=0, voters_max=8, catch_up_lag_max=0)
    assert [problem.field for problem in check_autopilot(wrong)] == [
        "dead_after_s",
        "min_quorum",
        "catch_up_lag_max",
        "voters_max",
    ]
    assert [p.field for p in check_autopilot(AutopilotRecord(min_quorum=5, voters_max=3))] == ["min_quorum"]
    assert check_autopilot(AutopilotRecord()) == []
