"""What people ask about placement: a plan that writes nothing, taints of a node, the scheduler's settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.nodes import Nodes
from cloudless.coordinator.api.scheduler import SchedulerCalls
from cloudless.coordinator.api.workloads import Workloads
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.core.model import Resources, SchedulerRecord, TaintEffect
from cloudless.core.scheduling import scheduler_of
from cloudless.errors import Conflict, InvalidSpec
from cloudless.rpc.v1 import cluster_pb2, node_pb2, objects_pb2
from cloudless.rpc.v1 import workload_pb2 as pb
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.testing.builders import build_workload
from cloudless.testing.virtual_time import virtually
from tests.unit.leading import CLOCK, Cluster, leading

CONTEXT: Any = SimpleNamespace(time_remaining=lambda: 5.0)
MANIFEST = """
apiVersion: cloudless/v1
kind: Workload
metadata: {name: web}
spec:
  command: [sleep, "60"]
  replicas: %d
  resources: {requests: {cpu: 3000m, memory: 64Mi}}
"""


def build_access(cluster: Cluster) -> Access:
    leases = RecordLeases(RollingLease(cluster.store, CLOCK), RollingLease(cluster.store, CLOCK))
    ids = iter(range(1_000))
    return Access(
        "c1", cluster.replica, cluster.committer, leases, CLOCK, SimpleNamespace(new=lambda: f"id-{next(ids)}")
    )


@virtually
async def test_a_plan_says_what_would_happen_and_writes_nothing() -> None:
    async with leading() as cluster:
        await cluster.add_node("n1")
        await cluster.add_node("n2")
        workloads = Workloads(build_access(cluster))
        await cluster.replica.linearize(timeout_s=1)
        before = cluster.replica.machine.revision
        planned = (await workloads.PlanWorkload(pb.PlanWorkloadRequest(manifest=MANIFEST % 3), CONTEXT)).workloads
        assert [(each.name, each.action) for each in planned] == [("web", "created")]
        (web,) = planned
        assert {(field.path, field.before, field.after) for field in web.fields} >= {("replicas", "", "3")}
        assert sorted(task.node_id for task in web.starts) == ["n1", "n2"]
        assert not web.stops
        (slot,) = web.unplaced
        assert slot.text.startswith("0 of 2 nodes fit: 2 lack cpu")
        assert [(miss.node_id, list(miss.obstacles)) for miss in slot.nearest] == [
            (node_id, ["lacks cpu (asks 3000m, at most 1000m free)"]) for node_id in ("n1", "n2")
        ]
        assert cluster.replica.machine.revision == before
        assert not cluster.replica.machine.workloads


@virtually
async def test_a_plan_of_what_is_there_changes_nothing_and_scaling_down_stops() -> None:
    async with leading() as cluster:
        await cluster.add_node("n1")
        access = build_access(cluster)
        workloads = Workloads(access)
        await workloads.ApplyWorkload(pb.ApplyWorkloadRequest(manifest=MANIFEST % 0), CONTEXT)
        (web,) = (await workloads.PlanWorkload(pb.PlanWorkloadRequest(manifest=MANIFEST % 0), CONTEXT)).workloads
        assert (web.action, len(web.starts), len(web.fields)) == ("unchanged", 0, 0)
        (web,) = (await workloads.PlanWorkload(pb.PlanWorkloadRequest(manifest=MANIFEST % 1), CONTEXT)).workloads
        assert [(f.path, f.before, f.after) for f in web.fields] == [("replicas", "0", "1")]
        assert [task.node_id for task in web.starts] == ["n1"]


@virtually
async def test_explain_names_the_nodes_that_nearly_fit() -> None:
    async with leading() as cluster:
        await cluster.add_node("n1")
        await cluster.add_workload(build_workload(replicas=1, requests=Resources(cpu_millicores=64_000)))
        workloads = Workloads(build_access(cluster))
        told = await workloads.ExplainWorkload(pb.ExplainWorkloadRequest(name="web"), CONTEXT)
        ((near,),) = (slot.nearest for slot in told.unplaced)
        assert (near.node_id, list(near.obstacles)) == ("n1", ["lacks cpu (asks 64000m, at most 4000m free)"])


def taint(key: str, effect: str = "", value: str = "") -> objects_pb2.Taint:
    made = objects_pb2.Taint(key=key, value=value)
    if effect:
        made.effect = objects_pb2.TaintEffect.Value(f"TAINT_EFFECT_{effect}")
    return made


@virtually
async def test_taints_are_put_on_a_node_replaced_and_taken_off() -> None:
    async with leading() as cluster:
        await cluster.add_node("n1")
        nodes = Nodes(build_access(cluster), lambda _: None)

        async def update(**changes: Any) -> set[tuple[str, str, TaintEffect]]:
            await nodes.UpdateNode(node_pb2.UpdateNodeRequest(node_id="n1", **changes), CONTEXT)
            return {(t.key, t.value, t.effect) for t in cluster.replica.machine.nodes["n1"].spec.taints}

        both = [taint("gpu", "NO_SCHEDULE", "a"), taint("gpu", "NO_EXECUTE")]
        assert len(await update(set_taints=both)) == 2
        replaced = await update(set_taints=[taint("gpu", "NO_SCHEDULE", "b")])
        assert ("gpu", "b", TaintEffect.NO_SCHEDULE) in replaced
        assert len(replaced) == 2
        left = await update(remove_taints=[taint("gpu", "NO_EXECUTE")])
        assert {effect for _, _, effect in left} == {TaintEffect.NO_SCHEDULE}
        assert await update(remove_taints=[taint("gpu")]) == set()
        with pytest.raises(InvalidSpec) as refused:
            await update(set_taints=[taint("gpu"), taint("/", "NO_EXECUTE")], remove_taints=[taint("x" * 300)])
        assert [p.field for p in refused.value.problems] == [
            "set_taints[0].effect",
            "set_taints[1].key",
            "remove_taints[0].key",
        ]
        with pytest.raises(InvalidSpec):
            await update(set_taints=[taint(f"k{n}", "NO_EXECUTE") for n in range(33)])
        with pytest.raises(InvalidSpec, match="number"):
            await update(set_labels={"cloudless.io/cost": "cheap"})


@virtually
async def test_the_schedulers_settings_are_kept_and_checked() -> None:
    async with leading() as cluster:
        calls = SchedulerCalls(build_access(cluster))
        held = (await calls.GetScheduler(cluster_pb2.GetSchedulerRequest(), CONTEXT)).settings
        assert (held.pack, held.preemption) == (SchedulerRecord().pack, False)
        request = cluster_pb2.SetSchedulerRequest(pack=0, balance=40, preemption=True)
        answer = await calls.SetScheduler(request, CONTEXT)
        assert (answer.settings.pack, answer.settings.balance, answer.settings.preemption) == (0, 40, True)
        assert scheduler_of(cluster.replica.machine).affinity == SchedulerRecord().affinity
        again = await calls.SetScheduler(request, CONTEXT)
        assert again.revision == answer.revision
        wrong = [cluster_pb2.SetSchedulerRequest(pack=1), cluster_pb2.SetSchedulerRequest(cost=1001)]
        for request in (*wrong, cluster_pb2.SetSchedulerRequest(network=-1)):
            with pytest.raises(InvalidSpec):
                await calls.SetScheduler(request, CONTEXT)
        for wrong_s in (-1, 4, 86_401):
            with pytest.raises(InvalidSpec, match=f"rebalance_after_s: must be 0 .never. or from 5 .*, not {wrong_s}"):
                await calls.SetScheduler(cluster_pb2.SetSchedulerRequest(rebalance_after_s=wrong_s), CONTEXT)
        on = await calls.SetScheduler(cluster_pb2.SetSchedulerRequest(rebalance_after_s=5), CONTEXT)
        assert (on.settings.rebalance_after_s, on.settings.balance) == (5, 40)
        off = await calls.SetScheduler(cluster_pb2.SetSchedulerRequest(rebalance_after_s=0), CONTEXT)
        assert not off.settings.rebalance_after_s
        late = cluster_pb2.SetSchedulerRequest(options=WriteOptions(if_revision=1), cost=3)
        with pytest.raises(Conflict):
            await calls.SetScheduler(late, CONTEXT)
        default = await calls.SetScheduler(cluster_pb2.SetSchedulerRequest(defaults=True), CONTEXT)
        assert (default.settings.pack, default.settings.balance) == (50, 0)
