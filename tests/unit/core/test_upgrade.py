"""The judge of upgrades: one minor step, everybody well, followers first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.core.diagnosis.upgrade import Runner, Target, judge_upgrade

CLUSTER = (
    Runner(id="c1", version="1.4.2", etcd_version="3.5.30", leader=True),
    Runner(id="c2", version="1.4.2", etcd_version="3.5.30", raft_leader=True),
    Runner(id="c3", version="1.4.2", etcd_version="3.5.30"),
)


def test_followers_are_first_the_raft_leader_follows_and_the_leader_is_last() -> None:
    judged = judge_upgrade(CLUSTER, Target(version="1.5.0"))
    assert judged.allowed
    assert judged.order == ("c3", "c2", "c1")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target(version="1.6.0"), "go to 1.5 first"),
        (Target(version="2.0.0"), "another major version"),
        (Target(version="1.4.1"), "going back is not supported"),
        (Target(version="soon"), "is no version"),
        (Target(version="1.5.0", etcd_version="3.7.1"), "go to 3.6 first"),
        (Target(version="1.5.0", etcd_version="3.5.4", etcd_verdict="refused", etcd_reason="loses data"), "loses data"),
        (Target(version="1.5.0", etcd_version="3.5.29"), "newer than 3.5.29"),
    ],
)
def test_a_step_too_far_is_refused_with_its_reason(target: Target, said: str) -> None:
    judged = judge_upgrade(CLUSTER, target)
    assert not judged.allowed
    assert any(said in refusal for refusal in judged.refusals), judged.refusals


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ailing": "does not answer"}, "c3 does not answer"),
        ({"learner": True}, "still a learner"),
        ({"version": ""}, "of an unknown version"),
    ],
)
def test_everybody_must_be_well(changed: dict[str, object], said: str) -> None:
    runners = (*CLUSTER[:2], replace(CLUSTER[2], **changed))  # type: ignore[arg-type]
    assert any(said in refusal for refusal in judge_upgrade(runners, Target(version="1.5.0")).refusals)


def test_an_upgrade_under_way_is_finished_before_the_next() -> None:
    mixed = (replace(CLUSTER[0], version="1.3.9"), *CLUSTER[1:])
    assert any("finish that upgrade" in refusal for refusal in judge_upgrade(mixed, Target(version="1.5.0")).refusals)
    assert judge_upgrade(mixed, Target(version="1.4.2")).order == ("c1",)


def test_agents_may_lag_by_one_minor_version_only() -> None:
    judged = judge_upgrade(CLUSTER, Target(version="1.5.0"), {"n1": "1.4.0", "n2": "1.3.7", "n3": "unknown"})
    assert judged.refusals == ("the agent of n2 runs 1.3.7: bring it within one minor version of 1.5.0 first",)


def test_nothing_is_to_be_done_where_it_runs_already() -> None:
    judged = judge_upgrade(CLUSTER, Target(version="1.4.2"))
    assert judged.allowed
    assert (judged.order, judged.notes) == ((), ("everything runs that version already",))


def test_a_small_cluster_is_told_of_its_pause() -> None:
    judged = judge_upgrade(CLUSTER[:1], Target(version="1.5.0"))
    assert judged.order == ("c1",)
    assert "1 voter(s)" in judged.notes[0]


def test_silence_allows_nothing() -> None:
    assert not judge_upgrade((), Target(version="1.5.0")).allowed
