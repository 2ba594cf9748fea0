"""Where tasks run on a live cluster: taints, the company of others, priorities, and what people are told about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudless.cli.methods import (
    DELETE_WORKLOAD,
    EXPLAIN_WORKLOAD,
    LIST_EVENTS,
    LIST_WORKLOADS,
    PLAN_WORKLOAD,
    SET_SCHEDULER,
    UPDATE_NODE,
)
from cloudless.rpc.v1.cluster_pb2 import SetSchedulerRequest
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.node_pb2 import UpdateNodeRequest
from cloudless.rpc.v1.objects_pb2 import DESIRED_RUNNING, TAINT_EFFECT_NO_EXECUTE, Taint
from cloudless.rpc.v1.workload_pb2 import (
    DeleteWorkloadRequest,
    ExplainWorkloadRequest,
    ListWorkloadsRequest,
    PlanWorkloadRequest,
)
from etcd.find import Found
from tests.integration.cluster import LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

AGENTS = {"agent-1": "zone-a", "agent-2": "zone-b", "agent-3": "zone-a"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "placement.yaml"
APART = {"antiAffinity": {"workloads": {"required": [{"workload": "apart"}]}}}


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("placement"), binary.path)
    made.add_coordinators()
    made.found_together()
    for name, zone in AGENTS.items():
        made.add_agent(name, zone=zone)
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(living: LocalCluster) -> LocalCluster:
    """The cluster with the default settings, without taints and workloads."""
    living.call(SET_SCHEDULER, SetSchedulerRequest(defaults=True))
    for agent in AGENTS:
        living.call(UPDATE_NODE, UpdateNodeRequest(node_id=agent, remove_taints=[Taint(key="bad")]))
    for workload in living.call(LIST_WORKLOADS, ListWorkloadsRequest()).workloads:
        if not workload.record.deleted_at_ms:
            living.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=workload.record.name))
    living.until(lambda: not living.call(LIST_WORKLOADS, ListWorkloadsRequest()).workloads, "no workload left")
    return living


def homes(cluster: LocalCluster, name: str) -> dict[str, str]:
    """Return the node of each task that runs."""
    return {task.desired.id: task.desired.node_id for task in cluster.tasks(name) if task.state == "RUNNING"}


def wait_for(cluster: LocalCluster, name: str, replicas: int) -> dict[str, str]:
    return cluster.until(
        lambda: found if len(found := homes(cluster, name)) == replicas == len(cluster.tasks(name)) else None,
        f"{replicas} tasks of {name} run",
    )


def test_a_taint_drives_out_who_does_not_tolerate_it(cluster: LocalCluster) -> None:
    spread = {"spreadTopology": "node"}
    tolerant = {**spread, "tolerations": [{"key": "bad", "operator": "EXISTS"}]}
    cluster.apply(manifest_of("leaves", replicas=3, placement=spread))
    cluster.apply(manifest_of("stays", replicas=3, placement=tolerant))
    before = wait_for(cluster, "stays", 3)
    assert set(wait_for(cluster, "leaves", 3).values()) == set(AGENTS)
    taint = Taint(key="bad", effect=TAINT_EFFECT_NO_EXECUTE)
    cluster.call(UPDATE_NODE, UpdateNodeRequest(node_id="agent-2", set_taints=[taint]))
    cluster.until(lambda: "agent-2" not in wait_for(cluster, "leaves", 3).values(), "they have left agent-2")
    assert wait_for(cluster, "stays", 3) == before


def test_who_finds_no_node_waits_and_is_explained_and_planned_alike(cluster: LocalCluster) -> None:
    manifest = manifest_of("apart", replicas=4, placement=APART)
    (planned,) = cluster.call(PLAN_WORKLOAD, PlanWorkloadRequest(manifest=manifest)).workloads
    assert {task.node_id for task in planned.starts} == set(AGENTS)
    (missing,) = planned.unplaced
    assert missing.text == "0 of 3 nodes fit: 3 are with a task of apart"
    assert not cluster.tasks("apart"), "a plan is no order"
    cluster.apply(manifest)
    assert set(wait_for(cluster, "apart", 3).values()) == set(AGENTS)
    told = cluster.call(EXPLAIN_WORKLOAD, ExplainWorkloadRequest(name="apart"))
    (slot,) = told.unplaced
    assert slot.text == missing.text
    assert {miss.node_id for miss in slot.nearest} == set(AGENTS)
    (again,) = cluster.call(PLAN_WORKLOAD, PlanWorkloadRequest(manifest=manifest)).workloads
    assert (again.action, len(again.starts), len(again.stops)) == ("unchanged", 0, 0)


def test_a_higher_priority_displaces_a_lower_one_and_events_say_so(cluster: LocalCluster) -> None:
    cluster.call(SET_SCHEDULER, SetSchedulerRequest(preemption=True))
    port: dict[str, Any] = {"ports": [{"name": "web", "hostPort": 18_099}]}
    cluster.apply(manifest_of("low", replicas=3, **port))
    low = wait_for(cluster, "low", 3)
    cluster.apply(manifest_of("high", replicas=1, priority=10, **port))
    (home,) = wait_for(cluster, "high", 1).values()
    left = wait_for(cluster, "low", 2)
    assert home not in left.values()
    (gone,) = low.keys() - left.keys()
    events = cluster.call(LIST_EVENTS, ListEventsRequest(subject=f"task/{gone}")).events
    assert any("makes room for default/high, whose priority is 10" in event.message for event in events)


def test_a_node_that_died_and_is_back_gets_tasks_again_one_by_one_and_none_is_ever_missing(
    cluster: LocalCluster,
) -> None:
    cluster.apply(manifest_of("web", replicas=6, placement={"spreadTopology": "node"}))
    assert Counter(wait_for(cluster, "web", 6).values()) == dict.fromkeys(AGENTS, 2)
    cluster.kill("agent-3")
    cluster.kill_tasks("agent-3")
    others = {"agent-1": 3, "agent-2": 3}
    cluster.until(lambda: Counter(homes(cluster, "web").values()) == others, "its tasks are replaced")
    replaced = homes(cluster, "web")
    cluster.start("agent-3")
    cluster.until(lambda: cluster.phases()["agent-3"] == "READY", "agent-3 is back")
    assert homes(cluster, "web") == replaced, "nobody has asked for more yet"

    cluster.call(SET_SCHEDULER, SetSchedulerRequest(rebalance_after_s=5))

    def is_even() -> bool:
        wanted = [task for task in cluster.tasks("web") if task.desired.desired == DESIRED_RUNNING]
        running = [task.desired.slot for task in wanted if task.state == "RUNNING"]
        assert len(set(running)) == 6, f"a replica is missing: {wanted}"
        assert len(wanted) <= 7, f"more than one is moved: {wanted}"
        return Counter(homes(cluster, "web").values()) == dict.fromkeys(AGENTS, 2)

    cluster.until(is_even, "the spread is as it was", timeout_s=60)
    came = wait_for(cluster, "web", 6).keys() - replaced.keys()
    assert len(came) == 2
    gone = {f"task/{task_id}" for task_id in replaced.keys() - homes(cluster, "web").keys()}
    events = cluster.call(LIST_EVENTS, ListEventsRequest(limit=500)).events
    moves = [e.at_ms for e in events if e.kind == "TaskMoving" and e.subject in gone]
    ends = [e.at_ms for e in events if e.kind == "TaskStopping" and e.subject in gone]
    assert len(moves) == len(ends) == 2
    assert moves[0] <= ends[0] < moves[1] <= ends[1], "one at a time"
    reasons = [e.message for e in events if e.kind == "TaskCreated" and e.subject.removeprefix("task/") in came]
    assert len(reasons) == 2
    assert all("to spread better: agent-3 has" in reason for reason in reasons), reasons


def test_the_example_runs_as_it_says(cluster: LocalCluster) -> None:
    cluster.apply(EXAMPLE.read_text(encoding="utf-8"))
    wait_for(cluster, "cache", 1)
    shop = wait_for(cluster, "shop", 2)
    assert len(set(shop.values())) == 2, "never two on one node"
