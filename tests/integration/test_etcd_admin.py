"""Three real members formed, changed and questioned through EtcdAdmin, and what etcd's refusals become."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from cloudless.adapters.etcd.admin import (
    EtcdAdmin,
    LearnerNotReady,
    Member,
    MemberNotFound,
    MemberNotLearner,
    NotRaftLeader,
    PeerUrlTaken,
    ReconfigurationUnsafe,
    TooManyLearners,
)
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.supervisor import MemberSupervisor, Phase
from cloudless.errors import CommitUncertain, MemberRemoved, StoreTimeout, Unavailable
from etcd.find import Found
from tests.integration.etcd_fixture import binary, build_config, datadirs, until

__all__ = ["binary", "datadirs"]

pytestmark = pytest.mark.integration

DataDirs = Callable[[str], DataDir]


@dataclass
class Node:
    supervisor: MemberSupervisor
    admin: EtcdAdmin
    peer_url: str
    run: asyncio.Task[None]
    datadir: DataDir


@asynccontextmanager
async def started(binary: Found, datadir: DataDir, name: str, **changes: object) -> AsyncIterator[Node]:
    config = build_config(datadir, name, **changes)
    supervisor = MemberSupervisor(binary, config, datadir)
    await supervisor.start()
    run = asyncio.create_task(supervisor.run())
    admin = EtcdAdmin(config.client_url, read_timeout_s=2)
    try:
        yield Node(supervisor, admin, config.peer_advertise_url, run, datadir)
    finally:
        await supervisor.stop(grace_s=2)
        await run
        admin.close()


async def join(stack: AsyncExitStack, binary: Found, datadir: DataDir, name: str, nodes: list[Node]) -> Node:
    """Add a learner, start it, and promote it as soon as etcd agrees."""
    planned = build_config(datadir, name)
    added = await patiently(lambda: nodes[0].admin.add_learner([planned.peer_advertise_url]))
    others = tuple((member.name, member.peer_urls[0]) for member in await nodes[0].admin.members() if member.name)
    node = await stack.enter_async_context(
        started(
            binary, datadir, name,
            peer_listen_url=planned.peer_listen_url,
            peer_advertise_url=planned.peer_advertise_url,
            initial_cluster=(*others, (name, planned.peer_advertise_url)),
            initial_cluster_state="existing",
        )
    )  # fmt: skip
    await node.supervisor.wait_ready(20)
    await patiently(lambda: nodes[0].admin.promote(added.id))
    return node


async def patiently(attempt, timeout_s: float = 15.0):  # type: ignore[no-untyped-def]
    """Repeat a change while etcd says that it is not ready for it."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            return await attempt()
        except (LearnerNotReady, ReconfigurationUnsafe):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


@asynccontextmanager
async def cluster(binary: Found, datadirs: DataDirs, size: int = 3) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(started(binary, datadirs("c1"), "c1"))]
        await nodes[0].supervisor.wait_ready(20)
        for number in range(2, size + 1):
            nodes.append(await join(stack, binary, datadirs(f"c{number}"), f"c{number}", nodes))
        yield nodes


async def put(node: Node, key: str) -> None:
    body = {"key": base64.b64encode(key.encode()).decode(), "value": ""}
    await node.admin._call("kv/put", body, changes=True)


async def leader_of(nodes: list[Node]) -> tuple[Node, list[Node]]:
    statuses = [await node.admin.status() for node in nodes]
    leaders = [node for node, status in zip(nodes, statuses, strict=True) if status.leader_id == status.member_id]
    assert len(leaders) == 1
    return leaders[0], [node for node in nodes if node is not leaders[0]]


async def test_three_members_form_one_cluster_and_move_leadership(binary: Found, datadirs: DataDirs) -> None:
    async with cluster(binary, datadirs) as nodes:
        members = await nodes[0].admin.members()
        assert [member.name for member in sorted(members, key=lambda member: member.name)] == ["c1", "c2", "c3"]
        assert not [member for member in members if member.is_learner]
        for number in range(20):
            await put(nodes[number % 3], f"key-{number}")
        statuses = [await node.admin.status() for node in nodes]
        assert len({status.cluster_id for status in statuses}) == 1
        assert {status.member_id for status in statuses} == {member.id for member in members}
        assert len({status.leader_id for status in statuses} - {0}) == 1
        assert all(status.version == str(binary.version) and status.errors == () for status in statuses)
        assert all(status.raft_term and status.raft_index and status.db_size_bytes for status in statuses)
        revision = max(status.revision for status in statuses)

        async def all_have_it() -> bool:
            return all([(await node.admin.status()).revision >= revision for node in nodes])

        await until(all_have_it)
        assert len({await node.admin.hash_kv(revision) for node in nodes}) == 1
        assert (await nodes[0].admin.hash_kv(revision - 1)).hash != (await nodes[0].admin.hash_kv(revision)).hash
        await check_leadership_and_maintenance(nodes)


async def check_leadership_and_maintenance(nodes: list[Node]) -> None:
    leader, followers = await leader_of(nodes)
    target = (await followers[0].admin.status()).member_id
    with pytest.raises(NotRaftLeader):
        await followers[0].admin.move_leader(target)
    await leader.admin.move_leader(target)

    async def moved() -> bool:
        return (await followers[0].admin.status()).leader_id == target

    await until(moved)
    assert await leader.admin.alarms() == ()
    await leader.admin.defragment()


async def test_refusals_of_a_change_are_typed(binary: Found, datadirs: DataDirs) -> None:
    async with cluster(binary, datadirs, size=1) as (node,):
        (voter,) = await node.admin.members()
        with pytest.raises(MemberNotFound):
            await node.admin.promote(12345)
        with pytest.raises(MemberNotFound):
            await node.admin.remove(2**63 + 1)
        with pytest.raises(MemberNotLearner):
            await node.admin.promote(voter.id)
        with pytest.raises(PeerUrlTaken):
            await node.admin.add_learner([node.peer_url])
        learner = await node.admin.add_learner(["http://127.0.0.1:1"])
        assert learner == Member(learner.id, "", ("http://127.0.0.1:1",), (), is_learner=True)
        with pytest.raises(LearnerNotReady):
            await node.admin.promote(learner.id)
        with pytest.raises(TooManyLearners):
            await node.admin.add_learner(["http://127.0.0.1:2"])
        await node.admin.update_peer_urls(learner.id, ["http://127.0.0.1:3"])
        assert ("http://127.0.0.1:3",) in [member.peer_urls for member in await node.admin.members()]
        await node.admin.remove(learner.id)
        assert await node.admin.members() == (voter,)


async def test_a_removed_member_stays_down(binary: Found, datadirs: DataDirs) -> None:
    async with cluster(binary, datadirs, size=2) as nodes:
        leader, followers = await leader_of(nodes)
        removed = followers[0]
        member_id = (await removed.admin.status()).member_id
        await patiently(lambda: leader.admin.remove(member_id))
        await until(lambda: removed.supervisor.state.phase is Phase.REMOVED)
        await asyncio.wait_for(removed.run, 1)
        with pytest.raises(MemberRemoved):
            await removed.supervisor.wait_ready(1)
        assert removed.supervisor.state.restarts == 0
        assert len(await leader.admin.members()) == 1


async def test_a_member_removed_while_it_was_down_learns_it_and_stays_down(binary: Found, datadirs: DataDirs) -> None:
    async with cluster(binary, datadirs) as nodes:
        leader, followers = await leader_of(nodes)
        gone = followers[0]
        member_id = (await gone.admin.status()).member_id
        await gone.supervisor.stop()
        await patiently(lambda: leader.admin.remove(member_id))
        await gone.supervisor.start()
        gone.run = asyncio.create_task(gone.supervisor.run())
        await until(lambda: gone.supervisor.state.phase is Phase.REMOVED, timeout_s=15)
        await asyncio.wait_for(gone.run, 1)


async def test_a_learner_answers_probe_and_status_before_it_votes(binary: Found, datadirs: DataDirs) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(started(binary, datadirs("c1"), "c1"))
        await first.supervisor.wait_ready(20)
        planned = build_config(datadirs("c2"), "c2")
        await first.admin.add_learner([planned.peer_advertise_url])
        learner = await stack.enter_async_context(
            started(
                binary, datadirs("c2"), "c2",
                peer_listen_url=planned.peer_listen_url,
                peer_advertise_url=planned.peer_advertise_url,
                initial_cluster=(("c1", first.peer_url), ("c2", planned.peer_advertise_url)),
                initial_cluster_state="existing",
            )
        )  # fmt: skip
        await learner.supervisor.wait_ready(20)
        assert (await learner.admin.status()).is_learner
        # Nothing but its status is to be had from a learner.
        with pytest.raises(Unavailable, match="ask a voter"):
            await learner.admin.members(linearizable=False)


async def test_a_member_without_quorum_is_alive_but_not_ready(binary: Found, datadirs: DataDirs) -> None:
    async with cluster(binary, datadirs, size=2) as nodes:
        _, followers = await leader_of(nodes)
        lonely, *others = followers[0], *(node for node in nodes if node is not followers[0])
        for node in others:
            await node.supervisor.stop()
        assert await lonely.supervisor.probe(2), "it still answers for itself"
        with pytest.raises(Unavailable):
            await lonely.admin.members()
        await lonely.supervisor.restart()
        with pytest.raises(StoreTimeout, match="quorum"):
            await lonely.supervisor.wait_ready(1)
        assert lonely.supervisor.state.phase is Phase.STARTING


async def test_unreachable_is_told_from_unclear(binary: Found, datadirs: DataDirs) -> None:
    async with cluster(binary, datadirs, size=1) as (node,):
        (voter,) = await node.admin.members()
        pid = node.supervisor.state.pid
        assert pid is not None
        impatient = EtcdAdmin(node.admin.endpoint, read_timeout_s=0.3)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreTimeout):
                await impatient.status()
            with pytest.raises(CommitUncertain):
                await impatient.update_peer_urls(voter.id, [node.peer_url])
        finally:
            os.kill(pid, signal.SIGCONT)
        await node.supervisor.stop()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await impatient.remove(voter.id)
        impatient.close()
