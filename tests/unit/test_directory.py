"""Where all coordinators are, as one of them knows it: from records, the member list, and its own notes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from cloudless.adapters.etcd.admin import Member, MemberStatus
from cloudless.adapters.member.learned import Learned
from cloudless.coordinator.directory import Directory
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.membership import Members
from cloudless.coordinator.sessions import Sessions, SessionSettings
from cloudless.core import keys
from cloudless.core.discovery.learned import Known
from cloudless.core.model import ClusterRecord, CoordinatorRecord
from cloudless.ports import Delete, Txn
from cloudless.rpc.codec import to_message
from cloudless.rpc.v1 import agent_pb2, objects_pb2
from cloudless.testing.builders import build_node
from cloudless.testing.virtual_time import eventually, running
from tests.unit.leading import CLOCK, Cluster, leading

CLUSTER_ID = 0xABC


@dataclass
class FakeMembers:
    """The member list as etcd would tell it."""

    list: tuple[Member, ...] = ()
    status: MemberStatus | None = None

    def name(self, *names: str) -> None:
        self.list = tuple(
            Member(id=n, name=name, peer_urls=(), client_urls=(), is_learner=False) for n, name in enumerate(names)
        )
        self.status = MemberStatus(
            cluster_id=CLUSTER_ID, member_id=1, revision=1, raft_term=1, leader_id=1, is_learner=False, version="",
            db_size_bytes=0, db_in_use_bytes=0, raft_index=0, raft_applied_index=0, errors=(),
        )  # fmt: skip


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[Cluster, FakeMembers, Directory]]:
    async with leading() as cluster:
        members = FakeMembers()
        directory = Directory(path, cluster.replica, cast("Members", members), CLOCK)
        async with running(directory.run()):
            yield cluster, members, directory


async def register(cluster: Cluster, id: str, address: str) -> None:
    await cluster.put(keys.coordinator(id), CoordinatorRecord(id=id, api_address=address))


async def unregister(cluster: Cluster, id: str) -> None:
    await cluster.memory.txn(Txn(then=(Delete(keys.coordinator(id)),)), timeout_s=1)


async def test_one_that_is_down_is_still_told_and_one_that_was_removed_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "coordinators.json"
    async with serving(path) as (cluster, members, directory):
        members.name("c1", "c2", "c3")
        await register(cluster, "c1", "a:1")
        await register(cluster, "c2", "b:1")
        await eventually(lambda: directory.told() == {"c1": "a:1", "c2": "b:1", "c3": ""})
        await unregister(cluster, "c2")
        await eventually(lambda: "c2" not in cluster.replica.machine.coordinators)
        await eventually(lambda: directory.told() == {"c1": "a:1", "c2": "b:1", "c3": ""})
        await eventually(lambda: {one.id for one in Learned.read(path).coordinators} == {"c1", "c2"})
        members.name("c1", "c3")
        await eventually(lambda: directory.told() == {"c1": "a:1", "c3": ""})
        await eventually(lambda: {one.id for one in Learned.read(path).coordinators} == {"c1"})
        assert Learned.read(path).cluster_id == f"{CLUSTER_ID:x}"


async def test_what_was_noted_before_is_told_before_the_member_list_is_known(tmp_path: Path) -> None:
    path = tmp_path / "coordinators.json"
    Learned(f"{CLUSTER_ID:x}", (Known("c2", "b:1", CLOCK.wall_ms()),)).write(path)
    async with serving(path) as (cluster, members, directory):
        await register(cluster, "c1", "a:1")
        await eventually(lambda: directory.told() == {"c1": "a:1", "c2": "b:1"})
        members.name("c1")
        await eventually(lambda: directory.told() == {"c1": "a:1"})


async def test_what_another_cluster_said_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "coordinators.json"
    Learned("other", (Known("c1", "x:1", CLOCK.wall_ms()),)).write(path)
    async with serving(path) as (_, members, directory):
        members.name("c1")
        await eventually(lambda: directory.told() == {"c1": ""})


async def test_agents_are_told_of_every_change_and_of_those_that_are_down(tmp_path: Path) -> None:
    async with serving(tmp_path / "coordinators.json") as (cluster, members, directory):
        members.name("c1", "c2")
        await cluster.put(keys.CLUSTER, ClusterRecord(id="one"))
        await register(cluster, "c1", "a:1")
        await register(cluster, "c2", "b:1")
        await eventually(lambda: directory.told() == {"c1": "a:1", "c2": "b:1"})
        settings = SessionSettings(coordinator_id="c1")
        heard = HeardTable(CLOCK)
        sessions = Sessions(cluster.replica, cluster.committer, heard, CLOCK, settings, directory.told)
        directory.on_change = sessions.tell_coordinators
        lists: list[dict[str, str]] = []

        async def say() -> AsyncIterator[agent_pb2.AgentMessage]:
            info = to_message(build_node("n1"), objects_pb2.NodeInfo)
            yield agent_pb2.AgentMessage(hello=agent_pb2.AgentHello(info=info))
            await eventually(lambda: False, within_s=60)

        async def hear() -> None:
            async for message in sessions.Session(say(), None):
                told = message.welcome if message.WhichOneof("body") == "welcome" else message.coordinators
                lists.append({one.id: one.address for one in told.coordinators})

        async with running(hear(), sessions.run()):
            await eventually(lambda: lists[-1:] == [{"c1": "a:1", "c2": "b:1"}])
            await unregister(cluster, "c2")
            await register(cluster, "c1", "z:1")
            await eventually(lambda: lists[-1] == {"c1": "z:1", "c2": "b:1"})
            members.name("c1")
            await eventually(lambda: lists[-1] == {"c1": "z:1"})


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"format": 1, "cluster_id": "a", "coordinators": 7}'])
def test_damaged_notes_name_nobody(tmp_path: Path, content: str) -> None:
    path = tmp_path / "coordinators.json"
    assert Learned.read(path) == Learned()
    path.write_text(content)
    assert Learned.read(path) == Learned()
