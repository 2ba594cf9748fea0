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
        (Target(version="1.3.0"), "going back is not supported"),
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


def running(*versions: str) -> tuple[Runner, ...]:
    return tuple(replace(one, version=version) for one, version in zip(CLUSTER, versions, strict=True))


@pytest.mark.parametrize(
    ("versions", "target", "order"),
    [
        (("1.4.2", "1.4.2", "1.4.2"), "1.5.0", ("c3", "c2", "c1")),
        (("1.4.2", "1.4.2", "1.5.0"), "1.5.0", ("c2", "c1")),
        (("1.4.2", "1.4.2", "1.5.0"), "1.4.2", ("c3",)),
        (("1.5.0", "1.5.0", "1.5.0"), "1.4.2", ("c3", "c2", "c1")),
        (("1.4.2", "1.4.2", "1.4.2"), "1.4.1", ("c3", "c2", "c1")),
    ],
)
def test_between_the_level_and_the_next_minor_every_way_is_open(
    versions: tuple[str, ...], target: str, order: tuple[str, ...]
) -> None:
    judged = judge_upgrade(running(*versions), Target(version=target), level="1.4")
    assert judged.refusals == ()
    assert judged.order == order


@pytest.mark.parametrize(
    ("versions", "target", "level", "said"),
    [
        (("1.5.0", "1.5.0", "1.5.0"), "1.4.2", "1.5", "the upgrade to 1.5 was finished: 1.4.2 cannot run"),
        (("1.5.0", "1.5.0", "1.5.0"), "1.6.0", "1.4", "the upgrade to 1.5 is not finished: `cloudless cluster upgrade"),
        (("1.4.2", "1.5.0", "1.5.0"), "1.6.0", "1.4", "c1 runs cloudless 1.4.2: go to 1.5 first"),
        (("1.5.0", "1.5.0", "1.5.0"), "0.9.0", "1.4", "another major version"),
    ],
)
def test_the_feature_level_says_which_ways_are_closed(
    versions: tuple[str, ...], target: str, level: str, said: str
) -> None:
    refusals = judge_upgrade(running(*versions), Target(version=target), level=level).refusals
    assert any(said in refusal for refusal in refusals), refusals


def test_a_cluster_of_two_versions_is_told_how_far_it_is_and_what_is_next() -> None:
    judged = judge_upgrade(running("1.4.2", "1.4.2", "1.5.0"), Target(version="1.5.0"), {"n1": "1.4.2"}, "1.4")
    assert judged.notes == (
        "under way: 1 of 3 coordinators run it",
        "restart one, wait until `cloudless cluster upgrade --check` names the next; the agents after them",
    )
    back = judge_upgrade(running("1.4.2", "1.4.2", "1.5.0"), Target(version="1.4.2"), {"n1": "1.4.2"}, "1.4")
    assert "this goes back; what is newer than 1.4 has not been used yet" in back.notes
    assert not any("the agents after them" in note or "snapshot" in note for note in back.notes)


def test_after_the_coordinators_come_the_agents_and_then_the_end() -> None:
    done = running("1.5.0", "1.5.0", "1.5.0")
    agents = judge_upgrade(done, Target(version="1.5.0"), {"n2": "1.4.2", "n1": "1.4.2", "n3": "1.5.0"}, "1.4")
    assert agents.notes[1:] == ("agents to follow, one after the other: n1, n2",)
    end = judge_upgrade(done, Target(version="1.5.0"), {"n1": "1.5.0"}, "1.4")
    assert "`cloudless cluster upgrade --finish`; until then you may go back to 1.4" in end.notes[1]
    finished = judge_upgrade(done, Target(version="1.5.0"), {"n1": "1.5.0"}, "1.5")
    assert len(finished.notes) == 1


def test_agents_go_back_before_the_coordinators() -> None:
    done = running("1.5.0", "1.5.0", "1.5.0")
    refusals = judge_upgrade(done, Target(version="1.4.2"), {"n1": "1.5.0", "n2": "1.4.2"}, "1.4").refusals
    assert refusals == ("the agent of n1 runs 1.5.0, newer than 1.4.2: agents go back first",)


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
    assert (judged.order, judged.notes) == ((), ("every coordinator runs that version already",))


def test_a_small_cluster_is_told_of_its_pause() -> None:
    judged = judge_upgrade(CLUSTER[:1], Target(version="1.5.0"))
    assert judged.order == ("c1",)
    assert "1 voter(s)" in judged.notes[0]


def test_silence_allows_nothing() -> None:
    assert not judge_upgrade((), Target(version="1.5.0")).allowed
