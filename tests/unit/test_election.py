"""The election's decisions, row by row, and that founders can never found two clusters."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.election import CONFIDENCE, Doubt, HeldLease, Observation, Role, Step, decide, decide_doubt, role_of
from cloudless.core.membership.founding import Founder, Standing, Verdict, decide_founding, find_bootstrap_hindrance
from cloudless.core.model import LeaderRecord
from cloudless.core.state.view import Candidate

NOW_S = 1_000.0
LEASE = HeldLease(id=7, ttl_s=6.0, renewed_s=NOW_S - 1)
UNSURE = replace(LEASE, renewed_s=NOW_S - 4)
OVER = replace(LEASE, renewed_s=NOW_S - 6)
OWN = Candidate("own", LeaderRecord(coordinator_id="c1"), term=20)
EARLIER = Candidate("other", LeaderRecord(coordinator_id="c2"), term=10)
LATER = Candidate("late", LeaderRecord(coordinator_id="c3"), term=30)


def seen(**changes: object) -> Observation:
    follower = Observation(
        now_s=NOW_S, lease=LEASE, own_key="own", queue=(), revision=50, campaigned_revision=0, leading_term=0
    )
    return replace(follower, **changes)  # type: ignore[arg-type]


FOLLOWER = {
    "no lease": (seen(lease=None, own_key=""), Step.GRANT_LEASE),
    "no lease, others stand": (seen(lease=None, own_key="", queue=(EARLIER,)), Step.GRANT_LEASE),
    "the lease ran out": (seen(lease=OVER, queue=(OWN,)), Step.DROP_LEASE),
    "not in the queue": (seen(queue=(EARLIER,)), Step.CAMPAIGN),
    "campaigned, not seen yet": (seen(campaigned_revision=51), Step.WAIT),
    "campaigned, seen, and gone again": (seen(campaigned_revision=50), Step.CAMPAIGN),
    "second in the queue": (seen(queue=(EARLIER, OWN)), Step.WAIT),
    "first in the queue": (seen(queue=(OWN, LATER)), Step.TAKE_OFFICE),
    "first, but unsure of the lease": (seen(queue=(OWN,), lease=UNSURE), Step.WAIT),
    "stopping": (seen(queue=(OWN,), stopping=True), Step.RESIGN),
    "stopping without a lease": (seen(lease=None, own_key="", stopping=True), Step.RESIGN),
}
LEADER = {
    "all is well": (seen(leading_term=20, queue=(OWN, LATER)), Step.WAIT),
    "the lease is lost": (seen(leading_term=20, queue=(OWN,), lease=None, own_key=""), Step.LEAVE_OFFICE),
    "the lease is unsure": (seen(leading_term=20, queue=(OWN,), lease=UNSURE), Step.LEAVE_OFFICE),
    "the lease ran out": (seen(leading_term=20, queue=(OWN,), lease=OVER), Step.LEAVE_OFFICE),
    "the key is gone": (seen(leading_term=20, queue=(LATER,)), Step.LEAVE_OFFICE),
    "the key is of a newer term": (seen(leading_term=19, queue=(OWN,)), Step.LEAVE_OFFICE),
    "stopping": (seen(leading_term=20, queue=(OWN,), stopping=True), Step.LEAVE_OFFICE),
}


@pytest.mark.parametrize(("observation", "step"), FOLLOWER.values(), ids=FOLLOWER)
def test_next_step_out_of_office(observation: Observation, step: Step) -> None:
    decision = decide(observation)
    assert decision.step is step
    assert (decision.term == OWN.term) is (step is Step.TAKE_OFFICE)


@pytest.mark.parametrize(("observation", "step"), LEADER.values(), ids=LEADER)
def test_next_step_in_office(observation: Observation, step: Step) -> None:
    assert decide(observation).step is step


def test_a_leader_looks_again_before_its_confidence_ends_and_is_unsure_from_then_on() -> None:
    until_s = decide(seen(leading_term=20, queue=(OWN,))).until_s
    assert until_s == LEASE.renewed_s + LEASE.ttl_s * CONFIDENCE
    assert decide(seen(now_s=until_s, leading_term=20, queue=(OWN,))).step is Step.LEAVE_OFFICE
    assert until_s < LEASE.renewed_s + LEASE.ttl_s


@given(
    st.sampled_from([None, LEASE, UNSURE, OVER]),
    st.permutations([OWN, EARLIER, LATER]),
    st.integers(0, 3),
    st.sampled_from([0, 19, 20, 21]),
    st.booleans(),
    st.sampled_from([0, 50, 51]),
)
def test_nobody_acts_without_a_sure_lease_and_the_key_of_that_very_term(
    lease: HeldLease | None, order: list[Candidate], count: int, term: int, stopping: bool, campaigned: int
) -> None:
    queue = tuple(sorted(order[:count], key=lambda candidate: candidate.term))
    observation = seen(
        lease=lease, queue=queue, leading_term=term, stopping=stopping, campaigned_revision=campaigned,
        own_key="own" if lease else "",
    )  # fmt: skip
    decision = decide(observation)
    entitled = lease is LEASE and OWN in queue and not stopping
    if decision.step is Step.TAKE_OFFICE:
        assert entitled
        assert queue[0] is OWN
        assert not term
    if term and decision.step is not Step.LEAVE_OFFICE:
        assert entitled
        assert term == OWN.term
    assert decision.step is not Step.WAIT or decision.until_s < float("inf")


@pytest.mark.parametrize(
    ("observation", "role"),
    [
        (seen(), Role.FOLLOWER),
        (seen(queue=(EARLIER, OWN)), Role.CANDIDATE),
        (seen(queue=(OWN,), leading_term=20), Role.LEADER),
        (seen(queue=(OWN,), leading_term=20, stopping=True), Role.RESIGNING),
    ],
)
def test_role_is_what_a_person_should_see(observation: Observation, role: Role) -> None:
    assert role_of(observation) is role


# --- doubt ---

NOBODY: frozenset[str] = frozenset()
VOTERS = frozenset({"c1", "c2", "c3"})
SUSPECT, WITHDRAW, DEPOSE = Doubt(suspect=True), Doubt(withdraw=True), Doubt(depose=True)


@pytest.mark.parametrize(
    ("link_lost", "suspicions", "voters", "expected"),
    [
        (False, NOBODY, VOTERS, Doubt()),
        (True, NOBODY, VOTERS, SUSPECT),
        (True, {"c1"}, VOTERS, Doubt()),
        (False, {"c1"}, VOTERS, WITHDRAW),
        (False, {"c1", "c3"}, VOTERS, WITHDRAW),
        (False, {"c3"}, VOTERS, Doubt()),
        (True, {"c3"}, VOTERS, SUSPECT),
        (True, {"c1", "c3"}, VOTERS, DEPOSE),
        (True, {"c1", "stranger"}, VOTERS, Doubt()),
        (True, {"c1"}, frozenset({"c1", "c2"}), WITHDRAW),
        (True, {"c1", "c3"}, NOBODY, WITHDRAW),
        (False, {"c3", "c4", "c5"}, VOTERS | {"c4", "c5"}, DEPOSE),
        (True, {"c1", "c3"}, VOTERS | {"c4", "c5"}, Doubt()),
    ],
)
def test_what_is_said_of_the_leader(
    link_lost: bool, suspicions: set[str], voters: frozenset[str], expected: Doubt
) -> None:
    doubt = decide_doubt(
        own_id="c1",
        leader=EARLIER,
        link_lost=link_lost,
        linked=voters,
        suspicions=frozenset(suspicions),
        voters=voters,
    )
    assert doubt == expected


def test_who_is_linked_to_no_majority_accuses_nobody_and_takes_back_what_it_said() -> None:
    alone = {"own_id": "c1", "leader": EARLIER, "link_lost": True, "linked": frozenset[str](), "voters": VOTERS}
    assert decide_doubt(**alone, suspicions=frozenset()) == Doubt()  # type: ignore[arg-type]
    assert decide_doubt(**alone, suspicions=frozenset({"c1"})) == Doubt(withdraw=True)  # type: ignore[arg-type]


def test_nobody_doubts_itself_or_nobody() -> None:
    for leader in (None, OWN):
        assert (
            decide_doubt(own_id="c1", leader=leader, link_lost=True, linked=VOTERS, suspicions=VOTERS, voters=VOTERS)
            == Doubt()
        )


# --- founding ---

ADDRESSES = ("a1:1", "a2:1", "a3:1")


def founder(number: int, standing: Standing = Standing.FRESH, **changes: object) -> Founder:
    made = Founder(node_id=f"c{number}", raft_address=f"a{number}:2", standing=standing, expects=ADDRESSES)
    return replace(made, **changes)  # type: ignore[arg-type]


def answers(*founders: Founder) -> dict[str, Founder]:
    return dict(zip(ADDRESSES, founders, strict=False))


TOKEN = decide_founding(founder(1), ADDRESSES, answers(founder(1), founder(2), founder(3))).token


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (answers(founder(1), founder(2), founder(3)), Verdict.FOUND),
        (answers(founder(1), founder(2, Standing.FORMING, token=TOKEN), founder(3)), Verdict.FOUND),
        (answers(founder(1), founder(2)), Verdict.WAIT),
        ({}, Verdict.WAIT),
        (answers(founder(1), founder(2, Standing.MEMBER)), Verdict.JOIN),
        (answers(founder(1), founder(2, Standing.LOST), founder(3, Standing.MEMBER)), Verdict.JOIN),
        (answers(founder(1), founder(2, Standing.LOST), founder(3)), Verdict.WAIT),
        (answers(founder(1, Standing.LOST), founder(2), founder(3)), Verdict.WAIT),
        (answers(founder(1), founder(2, expects=ADDRESSES[:2]), founder(3)), Verdict.REFUSE),
        (answers(founder(1), founder(2, expects=()), founder(3)), Verdict.REFUSE),
        (answers(founder(1), founder(2, Standing.FORMING, token="other"), founder(3)), Verdict.REFUSE),
        (answers(founder(4), founder(2), founder(3)), Verdict.REFUSE),
        (answers(founder(1), founder(2), founder(2)), Verdict.REFUSE),
    ],
)
def test_what_a_fresh_node_does_with_the_answers(told: dict[str, Founder], verdict: Verdict) -> None:
    decision = decide_founding(founder(1), ADDRESSES, told)
    assert decision.verdict is verdict
    assert bool(decision.initial_cluster) is (verdict is Verdict.FOUND) is bool(decision.token)
    assert decision.reason or verdict is Verdict.FOUND


def test_founders_with_their_addresses_in_any_order_found_the_same_cluster() -> None:
    told = answers(founder(1), founder(2), founder(3))
    found = {
        (decision.initial_cluster, decision.token)
        for own in told.values()
        for order in itertools.permutations(ADDRESSES)
        for decision in [decide_founding(own, order, {address: told[address] for address in order})]
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("told", "silent", "own", "remembered", "reason"),
    [
        ({}, [], [], [], ""),
        ({"a2:1": Standing.FRESH, "a3:1": Standing.FRESH}, [], ["lb:1"], [], ""),
        ({"a2:1": Standing.FRESH}, ["a3:1"], [], [], "waiting for a3:1 to say that there is no cluster yet"),
        ({"a2:1": Standing.LOST}, [], [], [], "had data and lost it"),
        ({"a2:1": Standing.FORMING}, [], [], [], "is forming a cluster"),
        ({"a2:1": Standing.FRESH}, [], [], ["a2:1"], "remembers a cluster"),
        ({}, [], ["lb:1"], [], "lb:1 leads back to this node only"),
    ],
)
def test_who_is_told_to_found_alone_does_so_only_if_all_who_could_know_of_a_cluster_deny_it(
    told: dict[str, Standing], silent: list[str], own: list[str], remembered: list[str], reason: str
) -> None:
    hindrance = find_bootstrap_hindrance(told, silent, own, remembered)
    assert reason in hindrance
    assert bool(reason) is bool(hindrance)


def test_a_founder_tells_itself_and_others_apart_by_instance_not_by_address() -> None:
    own = founder(1, instance_id="i1")
    told = answers(own, founder(1, instance_id="i1"), founder(3, instance_id="i3"))
    assert decide_founding(own, ADDRESSES, told).reason == "a1:1 and a2:1 both lead to this node itself"
    told = answers(own, founder(2, instance_id="i2"), founder(2, instance_id="i3", raft_address="x:1"))
    assert decide_founding(own, ADDRESSES, told).reason == "the nodes at a2:1 and a3:1 share the node id c2"
    told = answers(founder(1, instance_id="i9"), founder(2, instance_id="i2"), founder(3, instance_id="i3"))
    assert decide_founding(own, ADDRESSES, told).reason == "the node at a1:1 has this node's id, c1"


ANSWER = st.builds(
    founder,
    st.integers(1, 4),
    st.sampled_from(Standing),
    expects=st.sampled_from([ADDRESSES, tuple(reversed(ADDRESSES)), ADDRESSES[:2], ()]),
    token=st.sampled_from(["", TOKEN, "other"]),
)


@given(st.dictionaries(st.sampled_from(ADDRESSES), ANSWER), st.integers(1, 3))
def test_two_clusters_can_never_be_founded(told: dict[str, Founder], number: int) -> None:
    decision = decide_founding(founder(number), ADDRESSES, told)
    if decision.verdict is not Verdict.FOUND:
        return
    assert set(told) == set(ADDRESSES)
    assert all(set(answer.expects) == set(ADDRESSES) for answer in told.values())
    assert all(answer.standing in (Standing.FRESH, Standing.FORMING) for answer in told.values())
    assert {answer.node_id for answer in told.values()} == {name for name, _ in decision.initial_cluster}
    assert len(decision.initial_cluster) == len(ADDRESSES)
    for other in told.values():
        same = decide_founding(other, ADDRESSES, told)
        assert (same.verdict, same.initial_cluster, same.token) == (
            Verdict.FOUND, decision.initial_cluster, decision.token,
        )  # fmt: skip
