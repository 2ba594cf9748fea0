"""The leader's autopilot at work over a store in memory: what it does to etcd, and what it tells people."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from cloudless.adapters.etcd.admin import ConnectedTooShortly, EtcdAdmin
from cloudless.coordinator.autopilot import Autopilot
from cloudless.coordinator.membership import SETTLING_S, Members
from cloudless.core import keys
from cloudless.core.membership.records import autopilot_status_of, joins_of, replacements_of
from cloudless.core.model import AutopilotRecord, CoordinatorRecord, JoinRecord, ReplacementRecord
from cloudless.ports import Delete, Txn
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.leading import CLOCK, Cluster, leading
from tests.unit.scripted_etcd import ScriptedEtcd

SETTINGS = AutopilotRecord(dead_after_s=30.0, stabilization_s=5.0, learner_stall_s=40.0, catch_up_stable_s=1.0)


class Stage:
    """A leader with its autopilot, the etcd it speaks to, and the coordinators it can ask."""

    def __init__(self, cluster: Cluster, *voters: str) -> None:
        self.cluster, self.etcd = cluster, ScriptedEtcd(*voters)
        self.alive = set(voters)
        self.lags: dict[str, int] = {}
        admin = cast(EtcdAdmin, self.etcd)
        self.members = Members(admin, cluster.replica, CLOCK, self.alive.__contains__)
        self.autopilot = Autopilot(self.members, admin, cluster.replica, CLOCK, ask=self.ask)

    async def ask(self, addresses: Iterable[str], *, timeout_s: float = 1.0) -> dict[str, pb.GetFormationResponse]:
        names = {address: address.partition(":")[0] for address in addresses}
        return {
            address: pb.GetFormationResponse(
                node_id=name, phase="forming", raft_index=self.etcd.index - self.lags.get(name, 0)
            )
            for address, name in names.items()
            if name in self.alive
        }

    async def come(self, name: str) -> None:
        self.alive.add(name)
        record = JoinRecord(id=name, raft_address=f"{name}:2", api_address=f"{name}:1")
        await self.cluster.put(keys.join(name), record)

    async def register(self, *names: str) -> None:
        for name in names:
            await self.cluster.put(keys.coordinator(name), CoordinatorRecord(id=name, api_address=f"{name}:1"))

    async def die(self, name: str) -> None:
        self.alive.discard(name)
        self.etcd.away.add(name)
        await self.cluster.memory.txn(Txn(then=(Delete(keys.coordinator(name)),)), timeout_s=1)

    async def done(self, change: str, within_s: float = 90.0) -> None:
        await eventually(lambda: change in self.etcd.changes, within_s=within_s)

    def waits(self) -> dict[str, str]:
        return {wait.subject: wait.reason for wait in autopilot_status_of(self.cluster.replica.machine).waits}

    async def said(self, subject: str, words: str) -> None:
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: words in self.waits().get(subject, ""), within_s=90.0)
        assert words in self.waits().get(subject, ""), self.waits()


@asynccontextmanager
async def stage(*voters: str, settings: AutopilotRecord = SETTINGS) -> AsyncIterator[Stage]:
    async with leading() as cluster:
        made = Stage(cluster, *voters)
        await cluster.put(keys.AUTOPILOT, settings)
        await made.register(*voters)
        async with running(made.autopilot.run(1, cluster.committer)):
            yield made


@virtually
async def test_two_that_ask_at_once_join_one_after_the_other_and_both_vote() -> None:
    async with stage("c1") as at:
        await at.come("c2")
        await at.come("c3")
        await at.done("add http://c2:2")
        await at.said("c3", "one learner at a time, and c2 is one now")
        at.etcd.start("c2", "http://c2:2")
        await at.done("promote c2")
        await at.register("c2")
        await at.done("add http://c3:2")
        at.etcd.start("c3", "http://c3:2")
        await at.done("promote c3")
        await at.register("c3")
        await eventually(lambda: not joins_of(at.cluster.replica.machine), within_s=30)
        done = [change for change in at.etcd.changes if not change.startswith("move")]
        assert done == ["add http://c2:2", "promote c2", "add http://c3:2", "promote c3"]


@virtually
async def test_a_learner_that_lags_is_not_promoted_until_it_has_caught_up() -> None:
    async with stage("c1", "c2") as at:
        at.lags["c3"] = 4_000
        await at.come("c3")
        await at.done("add http://c3:2")
        at.etcd.start("c3", "http://c3:2")
        await at.said("c3", "catches up")
        at.lags["c3"] = 10
        await at.done("promote c3")


@virtually
async def test_a_fourth_stands_by_and_takes_the_place_of_a_voter_that_dies() -> None:
    async with stage("c1", "c2", "c3") as at:
        await at.come("c4")
        await at.done("add http://c4:2")
        at.etcd.start("c4", "http://c4:2")
        await at.said("c4", "4 voters survive no more losses than 3")
        await at.die("c3")
        await at.done("promote c4")
        assert at.etcd.changes == ["add http://c4:2", "remove c3", "promote c4"]
        status = autopilot_status_of(at.cluster.replica.machine)
        await eventually(lambda: autopilot_status_of(at.cluster.replica.machine).doing != status.doing or
                         "c4 promoted" in status.doing, within_s=5)  # fmt: skip


@virtually
async def test_a_dead_voter_without_a_replacement_stays_and_people_are_told_why() -> None:
    async with stage("c1", "c2", "c3") as at:
        await at.die("c2")
        await at.said("c2", "not for 30 s yet")
        await at.said("c2", "no other coordinator waits")
        assert at.etcd.changes == []


@virtually
async def test_what_was_given_up_is_replaced_at_once_and_the_request_is_forgotten() -> None:
    async with stage("c1", "c2", "c3", settings=AutopilotRecord()) as at:
        await at.die("c3")
        record = ReplacementRecord(id="c3", member_id=3, new_id="c9", voters=3)
        await at.cluster.put(keys.replacement("c3"), record)
        await at.said("c3", "waits for c9 to ask to join")
        await at.come("c8")
        await at.said("c8", "unhealthy cluster")
        await at.come("c9")
        await at.done("remove c3", within_s=10.0)
        await at.done("add http://c9:2")  # not c8, which came first: the place is c9's
        at.etcd.start("c9", "http://c9:2")
        await at.done("promote c9")
        await at.register("c9")
        await eventually(lambda: not replacements_of(at.cluster.replica.machine), within_s=10)
        await at.done("add http://c8:2")


@virtually
async def test_a_step_whose_answer_was_lost_is_not_done_twice() -> None:
    async with stage("c1", "c2") as at:
        at.etcd.lose_next = True
        await at.come("c3")
        await at.done("add http://c3:2")
        at.etcd.start("c3", "http://c3:2")
        at.etcd.lose_next = True
        await at.done("promote c3")
        await CLOCK.sleep(5)
        assert at.etcd.changes == ["add http://c3:2", "promote c3"]


@virtually
async def test_a_learner_without_headway_gives_way_and_may_ask_again() -> None:
    async with stage("c1", "c2", "c3") as at:
        at.lags["c4"] = 4_999
        await at.come("c4")
        await at.done("add http://c4:2")
        at.etcd.start("c4", "http://c4:2")
        (learner,) = [member.id for member in at.etcd.members_now.values() if member.is_learner]
        await at.come("c5")
        await at.done("add http://c5:2")
        assert at.etcd.changes == ["add http://c4:2", "remove c4", "add http://c5:2"]
        assert autopilot_status_of(at.cluster.replica.machine).dropped_member_ids == (learner,)


@virtually
async def test_a_new_leader_begins_its_time_anew() -> None:
    async with leading() as cluster:
        at = Stage(cluster, "c1", "c2", "c3")
        await cluster.put(keys.AUTOPILOT, SETTINGS)
        await at.register("c1", "c2", "c3")
        await at.come("c4")
        await at.die("c3")
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await _lead_for(at, 25.0)
        assert at.etcd.changes == []
        async with running(at.autopilot.run(1, cluster.committer)):
            await at.done("remove c3")


async def _lead_for(at: Stage, seconds: float) -> None:
    async with running(at.autopilot.run(1, at.cluster.committer)):
        await CLOCK.sleep(seconds)


@virtually
async def test_the_status_is_written_only_when_it_changes() -> None:
    async with stage("c1", "c2", "c3") as at:
        await at.come("c4")
        await at.done("add http://c4:2")
        at.etcd.start("c4", "http://c4:2")
        await at.said("c4", "4 voters survive no more losses than 3")
        before = at.cluster.replica.machine.revision
        await CLOCK.sleep(60)
        assert at.cluster.replica.machine.revision == before


@virtually
async def test_a_removal_waits_for_members_that_have_just_connected_but_not_for_ever() -> None:
    async with stage("c1", "c2", "c3") as at:
        at.etcd.unsettled = 8
        await at.members.remove("c3")
        assert at.etcd.changes == ["remove c3"]
        at.etcd.unsettled = 1_000
        began_s = CLOCK.monotonic_s()
        with pytest.raises(ConnectedTooShortly):
            await at.members.remove("c2", force=True)
        assert SETTLING_S < CLOCK.monotonic_s() - began_s < SETTLING_S + 1.0
        assert at.etcd.changes == ["remove c3"]
