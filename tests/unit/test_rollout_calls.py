"""What coordinators answer about rollouts and nodes: handlers over a store in memory, with the leader's care beside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace

import pytest

from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.nodes import Nodes
from cloudless.coordinator.api.rollouts import Rollouts
from cloudless.coordinator.api.workloads import Workloads
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.coordinator.orchestrator import Orchestrator
from cloudless.core import keys
from cloudless.core.model import TaskState, WorkloadMode
from cloudless.errors import Conflict, InvalidSpec, NotFound
from cloudless.rpc.v1 import node_pb2, objects_pb2
from cloudless.rpc.v1 import workload_pb2 as pb
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.leading import CLOCK, Cluster, leading, report

TERM = 1


class Serving:
    """The handlers of one coordinator, and agents that do at once what is wanted."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        numbers = count(1)
        leases = RecordLeases(RollingLease(cluster.store, CLOCK), RollingLease(cluster.store, CLOCK))
        ids = SimpleNamespace(new=lambda: f"id{next(numbers):06d}")
        access = Access("c1", cluster.replica, cluster.committer, leases, CLOCK, ids)
        self.workloads, self.rollouts = Workloads(access), Rollouts(access)
        self.nodes = Nodes(access, lambda node_id: None)

    async def apply(self, version: str, **spec: object) -> pb.ApplyResult:
        document = {
            "apiVersion": "cloudless/v1",
            "kind": "Workload",
            "metadata": {"name": "web"},
            "spec": {"command": ["run", version], **spec},
        }
        request = pb.ApplyWorkloadRequest(manifest=json.dumps(document))
        return (await self.workloads.ApplyWorkload(request, None)).results[0]

    async def order(self, action: str, request_id: str = "", generation: int = 0) -> pb.Workload:
        request = pb.UpdateRolloutRequest(
            options=WriteOptions(request_id=request_id),
            name="web",
            action=pb.RolloutAction.Value(f"ROLLOUT_ACTION_{action}"),
            to_generation=generation,
        )
        return (await self.rollouts.UpdateRollout(request, None)).workload

    async def look(self) -> pb.GetRolloutResponse:
        return await self.rollouts.GetRollout(pb.GetRolloutRequest(name="web"), None)

    async def obey(self) -> None:
        sequences = count(1)
        while True:
            for task in list(self.cluster.replica.machine.tasks.values()):
                done = TaskState.RUNNING if task.wanted else TaskState.STOPPED
                if not task.ended and task.state is not done:
                    seen = report(task.id, next(sequences), done, task.desired.node_id)
                    await self.cluster.put(keys.task_observed(task.id), seen)
            await CLOCK.sleep(0.05)

    async def phase(self, phase: str) -> None:
        wanted = objects_pb2.RolloutPhase.Value(f"ROLLOUT_PHASE_{phase}")
        for _ in range(200):
            if (await self.look()).rollout.phase == wanted:
                return
            await CLOCK.sleep(0.1)
        raise AssertionError(f"not {phase}: {await self.look()}")


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    async with leading() as cluster:
        for node_id in ("n1", "n2"):
            await cluster.add_node(node_id)
        made = Serving(cluster)
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(TERM, cluster.committer), made.obey()):
            yield made


@virtually
async def test_a_rollout_is_followed_paused_resumed_and_undone_through_the_api() -> None:
    async with serving() as made:
        assert (await made.apply("v1", replicas=3)).action == "created"
        assert not (await made.look()).HasField("rollout")
        await eventually(lambda: len(made.cluster.wanted()) == 3)
        await made.apply("v2", replicas=3)
        await made.phase("COMPLETED")
        assert (await made.look()).workload.summary.updated == 3
        again = await made.order("UNDO", "once")
        assert (again.record.task_generation, again.record.rollback_of) == (1, 2)
        assert (await made.order("UNDO", "once")).record.generation == again.record.generation, "one id, one effect"
        await made.phase("COMPLETED")
        listed = (await made.rollouts.ListRevisions(pb.ListRevisionsRequest(name="web"), None)).revisions
        assert [(revision.generation, revision.current) for revision in listed] == [(1, True), (2, False)]
        assert "v2" in listed[1].manifest
        assert listed[1].reason == "undone by a person"


@virtually
async def test_a_canary_awaits_its_promotion() -> None:
    async with serving() as made:
        canary = {"strategy": "CANARY", "canary": 1}
        await made.apply("v1", replicas=3, rollout=canary)
        await eventually(lambda: len(made.cluster.wanted()) == 3)
        await made.apply("v2", replicas=3, rollout=canary)
        await made.phase("AWAITING_PROMOTION")
        assert any("promote" in line for line in (await made.look()).waiting)
        await made.order("PROMOTE")
        await made.phase("COMPLETED")


@virtually
async def test_orders_that_make_no_sense_are_refused() -> None:
    async with serving() as made:
        await made.apply("v1")
        for action in ("PAUSE", "PROMOTE"):
            with pytest.raises(Conflict):
                await made.order(action)
        with pytest.raises(NotFound):
            await made.order("UNDO")
        with pytest.raises(InvalidSpec):
            await made.order("UNSPECIFIED")
        with pytest.raises(InvalidSpec):
            await made.order("PAUSE", generation=2)
        with pytest.raises(NotFound):
            await made.rollouts.GetRollout(pb.GetRolloutRequest(name="nobody"), None)


@virtually
async def test_a_workload_of_every_node_is_not_scaled_and_follows_the_nodes() -> None:
    async with serving() as made:
        await made.apply("v1", mode=WorkloadMode.PER_NODE.value)
        await eventually(lambda: sorted(made.cluster.wanted().values()) == ["n1", "n2"])
        await made.cluster.add_node("n3")
        await eventually(lambda: sorted(made.cluster.wanted().values()) == ["n1", "n2", "n3"], within_s=2)
        with pytest.raises(Conflict, match="one task on each node"):
            await made.workloads.ScaleWorkload(pb.ScaleWorkloadRequest(name="web", replicas=9), None)


@virtually
async def test_a_drain_may_have_a_deadline_and_only_a_node_out_of_reach_is_removed() -> None:
    async with serving() as made:
        drain = node_pb2.UpdateNodeRequest(node_id="n1", draining=True, drain_deadline_s=60)
        spec = (await made.nodes.UpdateNode(drain, None)).node.spec
        assert spec.drain_until_ms == pytest.approx(CLOCK.wall_ms() + 60_000, abs=1_000)
        back = node_pb2.UpdateNodeRequest(node_id="n1", draining=False, cordoned=False)
        assert (await made.nodes.UpdateNode(back, None)).node.spec.drain_until_ms == 0
        for seconds in (-1, float("nan"), 1e12):
            bad = node_pb2.UpdateNodeRequest(node_id="n1", draining=True, drain_deadline_s=seconds)
            with pytest.raises(InvalidSpec):
                await made.nodes.UpdateNode(bad, None)
        with pytest.raises(InvalidSpec):
            await made.nodes.UpdateNode(node_pb2.UpdateNodeRequest(node_id="n1", drain_deadline_s=5), None)
        remove = node_pb2.RemoveNodeRequest(node_id="n1", options=WriteOptions(request_id="away"))
        with pytest.raises(Conflict, match="would register again"):
            await made.nodes.RemoveNode(remove, None)
        await made.apply("v1", replicas=2)
        await eventually(lambda: len(made.cluster.wanted()) == 2)
        await made.cluster.set_reachable("n1", False)
        await made.nodes.RemoveNode(remove, None)
        await made.nodes.RemoveNode(remove, None)
        assert set(made.cluster.replica.machine.nodes) == {"n2"}
        await eventually(lambda: set(made.cluster.wanted().values()) == {"n2"})
