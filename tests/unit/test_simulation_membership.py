"""The simulated members of etcd refuse what etcd refuses, and have a quorum exactly while a majority is in touch."""

from __future__ import annotations

from random import Random

import pytest

from cloudless.adapters.etcd.admin import (
    LearnerNotReady,
    MemberNotLearner,
    NotRaftLeader,
    PeerUrlTaken,
    ReconfigurationUnsafe,
    TooManyLearners,
)
from cloudless.testing.sim.etcd_cluster import STORE, EtcdCluster, MembersChanged, peer_url_of
from cloudless.testing.sim.loop import SimLoop
from cloudless.testing.sim.network import Network
from cloudless.testing.sim.trace import Trace


class Stage:
    """Members on hosts of their own, and a loop whose time is moved by hand."""

    def __init__(self, *hosts: str) -> None:
        self.loop = SimLoop()  # type: ignore[abstract]
        self.network = Network(self.loop, Random(1))
        self.revision = 500
        self.cluster = EtcdCluster(self.loop, self.network, Trace(self.loop), Random(2), lambda: self.revision)
        self.changes: list[object] = []
        self.cluster.tell = self.changes.append
        self.cluster.found(hosts)

    def wait(self, seconds: float) -> None:
        """Let time pass and whatever falls due happen."""
        until_s = self.loop.now_s + seconds
        while self.loop._timers and self.loop._timers[0][0] <= until_s:
            at_s, _, handle = self.loop._timers.pop(0)
            self.loop._timers.sort(key=lambda timer: timer[:2])
            self.loop.now_s = max(self.loop.now_s, at_s)
            if handle.callback is not None:
                handle.callback(*handle.args)
        self.loop.now_s = until_s

    def split(self, one: str, *others: str) -> None:
        for other in others:
            self.network.cut(one, other)
            self.network.cut(other, one)

    def serves(self, host: str) -> bool:
        return self.network.reaches(host, STORE) and self.network.reaches(STORE, host)

    def join(self, host: str, by: str = "c1") -> int:
        """Let a host become a learner that runs and has caught up."""
        member = self.cluster.add_learner(by, peer_url_of(host))
        self.cluster.take_place(host, member.id)
        self.cluster.start(host)
        self.wait(5.0)
        return member.id


def test_a_majority_in_touch_elects_and_a_minority_serves_nobody() -> None:
    stage = Stage("c1", "c2", "c3")
    assert stage.cluster.leader is not None
    assert all(stage.serves(host) for host in ("c1", "c2", "c3"))
    leader = stage.cluster.leader.host
    others = [host for host in ("c1", "c2", "c3") if host != leader]
    stage.split(leader, *others)
    assert not any(stage.serves(host) for host in ("c1", "c2", "c3"))
    stage.wait(2.0)
    assert stage.cluster.leader.host in others
    assert [host for host in ("c1", "c2", "c3") if stage.serves(host)] == others
    stage.cluster.stop(others[0])
    stage.wait(5.0)
    assert stage.cluster.leader is None
    stage.network.heal_all()
    stage.cluster.reopen()
    stage.wait(2.0)
    assert stage.cluster.leader is not None


def test_one_learner_at_a_time_and_none_before_all_voters_were_in_touch_for_a_while() -> None:
    stage = Stage("c1", "c2", "c3")
    with pytest.raises(ReconfigurationUnsafe):
        stage.cluster.add_learner("c1", peer_url_of("c4"))
    stage.wait(5.5)
    stage.cluster.stop("c3")
    with pytest.raises(ReconfigurationUnsafe):
        stage.cluster.add_learner("c1", peer_url_of("c4"))
    stage.cluster.start("c3")
    stage.wait(5.5)
    stage.cluster.add_learner("c1", peer_url_of("c4"))
    with pytest.raises(PeerUrlTaken):
        stage.cluster.add_learner("c1", peer_url_of("c4"))
    with pytest.raises(TooManyLearners):
        stage.cluster.add_learner("c1", peer_url_of("c5"))


def test_a_learner_serves_nobody_and_votes_only_once_it_has_the_log() -> None:
    stage = Stage("c1")
    stage.wait(5.5)
    member = stage.cluster.add_learner("c1", peer_url_of("c2"))
    with pytest.raises(LearnerNotReady):
        stage.cluster.promote("c1", member.id)
    stage.cluster.take_place("c2", member.id)
    stage.cluster.start("c2")
    assert not stage.serves("c2")
    assert stage.cluster.progress(stage.cluster.seats["c2"]) < stage.cluster.index
    stage.wait(5.0)
    stage.cluster.promote("c1", member.id)
    assert stage.serves("c2")
    with pytest.raises(MemberNotLearner):
        stage.cluster.promote("c1", member.id)


def test_promoting_one_that_has_died_since_costs_the_quorum_of_two() -> None:
    stage = Stage("c1")
    stage.wait(5.5)
    member_id = stage.join("c2")
    stage.cluster.stop("c2")
    stage.cluster.promote("c1", member_id)
    assert stage.cluster.leader is None
    changed = next(c for c in stage.changes if isinstance(c, MembersChanged) and c.change == "promote")
    assert changed.after == {"c1", "c2"}
    assert changed.present == {"c1"}


def test_a_voter_in_touch_is_removed_only_if_the_others_are_enough_and_a_dead_one_always() -> None:
    stage = Stage("c1", "c2", "c3")
    stage.wait(5.5)
    stage.cluster.stop("c3")
    with pytest.raises(ReconfigurationUnsafe):
        stage.cluster.remove("c1", stage.cluster.seats["c2"].id)
    stage.cluster.remove("c1", stage.cluster.seats["c3"].id)
    assert [voter.host for voter in stage.cluster.voters] == ["c1", "c2"]


def test_a_removed_member_is_barred_at_once_and_learns_of_it_when_it_meets_another() -> None:
    stage = Stage("c1", "c2", "c3")
    stage.wait(5.5)
    told: list[str] = []
    stage.cluster.on_told_removed = told.append
    stage.split("c3", "c1", "c2")
    stage.wait(2.0)
    stage.cluster.remove("c1", stage.cluster.seats["c3"].id)
    stage.wait(5.0)
    assert not stage.serves("c3")
    assert told == []
    stage.network.heal_all()
    stage.cluster.reopen()
    stage.wait(2.0)
    assert told == ["c3"]
    assert not stage.cluster.up("c3")


def test_only_raft_s_leader_gives_its_leadership_away() -> None:
    stage = Stage("c1", "c2", "c3")
    leader = stage.cluster.leader
    assert leader is not None
    follower = next(voter for voter in stage.cluster.voters if voter is not leader)
    with pytest.raises(NotRaftLeader):
        stage.cluster.move_leader(follower.host, leader.id)
    stage.cluster.move_leader(leader.host, follower.id)
    assert stage.cluster.leader is follower
