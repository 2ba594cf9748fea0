"""Where room is short, the higher priority has it: by order, and, if settings allow, by making lower ones leave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from cloudless.core import keys
from cloudless.core.model import (
    Placement,
    Port,
    Resources,
    Rollout,
    SchedulerRecord,
    Taint,
    TaintEffect,
    TaskState,
    WorkloadTerm,
)
from cloudless.core.orchestration import SpecChange, plan_workloads, preview_workloads
from cloudless.core.orchestration.replicas import OrchestrationPlan
from cloudless.core.scheduling.filters import ROOM_FILTERS, SITE_FILTERS
from cloudless.core.scheduling.wakes import UNBLOCKED_BY, Happening, unblocking
from cloudless.testing.builders import TestCluster, build_workload

ROOMY = Rollout(max_surge=0, max_unavailable=10)


def cluster_of(*sizes: int, preemption: bool = True) -> TestCluster:
    """Return a cluster with nodes n1, n2, … of so many millicores."""
    cluster = TestCluster()
    for number, size in enumerate(sizes, 1):
        cluster.add_node(f"n{number}", capacity=Resources(size, 10_000))
    cluster.put(keys.SCHEDULER, SchedulerRecord(preemption=preemption))
    return cluster


def add(cluster: TestCluster, name: str, priority: int, cpu: int = 100, replicas: int = 1, **spec: Any) -> None:
    fields: dict[str, Any] = {"rollout": ROOMY, **spec}
    requests = Resources(cpu, 1)
    record = build_workload(name, uid=name, priority=priority, requests=requests, replicas=replicas, **fields)
    cluster.add_workload(record)


def decide(cluster: TestCluster, *names: str) -> OrchestrationPlan:
    return plan_workloads(cluster.machine, [("default", name) for name in names], 0, 1, {})


def carry_out(cluster: TestCluster, *names: str) -> OrchestrationPlan:
    result = decide(cluster, *names)
    assert not cluster.commit(result.plan.changes)
    return result


def obey(cluster: TestCluster) -> None:
    """Let agents do what they are told."""
    for task in list(cluster.machine.tasks.values()):
        if not task.wanted and not task.ended:
            cluster.report(task.id, TaskState.STOPPED)
        elif task.wanted and task.state is None:
            cluster.report(task.id, TaskState.RUNNING)


def homes(cluster: TestCluster, name: str) -> list[str]:
    tasks = (cluster.machine.tasks[task_id] for task_id in cluster.machine.tasks_of("default", name))
    return sorted(task.desired.node_id for task in tasks if task.active)


def stopped(cluster: TestCluster) -> list[str]:
    return sorted(task.desired.workload for task in cluster.machine.tasks.values() if not task.wanted)


def settle(cluster: TestCluster, *names: str) -> None:
    for _ in range(10):
        if not carry_out(cluster, *names).plan.changes:
            return
        obey(cluster)
    raise AssertionError("does not settle")


def full(cluster: TestCluster, workloads: Iterable[tuple[str, int, int]]) -> None:
    """Let workloads (name, priority, cpu) run, one task each."""
    for name, priority, cpu in workloads:
        add(cluster, name, priority, cpu)
        carry_out(cluster, name)
        obey(cluster)
        assert homes(cluster, name)


def test_the_higher_priority_is_placed_first() -> None:
    cluster = cluster_of(100, preemption=False)
    add(cluster, "low", 0)
    add(cluster, "high", 5)
    carry_out(cluster, "low", "high")
    assert (homes(cluster, "low"), homes(cluster, "high")) == ([], ["n1"])


def test_nobody_makes_way_unless_the_settings_say_so() -> None:
    cluster = cluster_of(100, preemption=False)
    full(cluster, [("low", 0, 100)])
    add(cluster, "high", 5)
    assert not carry_out(cluster, "high").plan.changes


@pytest.mark.parametrize("priority", [5, 6])
def test_equal_and_higher_priorities_never_make_way(priority: int) -> None:
    cluster = cluster_of(100)
    full(cluster, [("held", priority, 100)])
    add(cluster, "other", 5)
    assert not carry_out(cluster, "other").plan.changes


def test_a_lower_priority_makes_way_and_the_higher_one_gets_its_room_when_it_has_ended() -> None:
    cluster = cluster_of(100)
    full(cluster, [("low", 0, 100)])
    add(cluster, "high", 5)
    result = carry_out(cluster, "high", "low")
    (change,) = result.plan.changes
    assert "makes room for default/high, whose priority is 5, not 0" in change.reason
    (high,) = result.workloads
    assert high.waiting == ("slot 0 gets node n1 when 1 tasks there have ended",)
    assert (high.claims, homes(cluster, "high")) == (1, [])
    again = decide(cluster, "low", "high")
    assert not again.plan.changes, "it waits, and asks nobody else"
    assert {workload.name: workload.claims for workload in again.workloads} == {"high": 1, "low": 0}
    obey(cluster)
    settle(cluster, "low", "high")
    assert (homes(cluster, "high"), homes(cluster, "low")) == (["n1"], [])


def test_room_that_is_made_is_not_given_to_a_lower_priority() -> None:
    cluster = cluster_of(200)
    full(cluster, [("a", 0, 100), ("b", 0, 100)])
    add(cluster, "high", 5, 200)
    carry_out(cluster, "high")
    first = next(task for task in cluster.machine.tasks.values() if not task.wanted)
    cluster.report(first.id, TaskState.STOPPED)
    add(cluster, "small", 1, 50)
    result = decide(cluster, "small", "a", "b", "high")
    assert not result.plan.changes
    obey(cluster)
    settle(cluster, "a", "b", "high", "small")
    assert homes(cluster, "high") == ["n1"]


def test_the_lowest_and_the_fewest_make_way() -> None:
    cluster = cluster_of(400)
    full(cluster, [("mid", 3, 100), ("low1", 1, 100), ("low2", 1, 100), ("bulky", 1, 100)])
    add(cluster, "high", 5, 100)
    carry_out(cluster, "high")
    assert len(stopped(cluster)) == 1
    assert stopped(cluster) != ["mid"]
    cluster = cluster_of(600)
    full(cluster, [("s1", 1, 100), ("s2", 1, 100), ("s3", 1, 100), ("bulky", 1, 300)])
    add(cluster, "high", 5, 300)
    carry_out(cluster, "high")
    assert stopped(cluster) == ["bulky"]


def test_the_node_whose_victims_are_lowest_is_taken() -> None:
    cluster = cluster_of(100, 100)
    full(cluster, [("one", 3, 100), ("two", 1, 100)])
    add(cluster, "high", 5, 100)
    carry_out(cluster, "high")
    assert stopped(cluster) == ["two"]


BESIDE_DB = Placement(workload_affinity=(WorkloadTerm(workload="db"),))


def test_nobody_makes_way_for_a_task_that_must_be_near_it() -> None:
    cluster = cluster_of(100)
    full(cluster, [("db", 0, 100)])
    add(cluster, "high", 5, placement=BESIDE_DB)
    assert not carry_out(cluster, "high").plan.changes
    cluster = cluster_of(200)
    full(cluster, [("db", 0, 100), ("other", 1, 100)])
    add(cluster, "high", 5, placement=BESIDE_DB)
    carry_out(cluster, "high")
    assert stopped(cluster) == ["other"]


def test_a_drain_that_takes_neighbours_where_only_one_has_room_comes_to_rest() -> None:
    cluster = cluster_of(200)
    full(cluster, [("db", 0, 100)])
    add(cluster, "high", 5, placement=BESIDE_DB)
    settle(cluster, "db", "high")
    assert homes(cluster, "high") == homes(cluster, "db") == ["n1"]
    cluster.add_node("n2", capacity=Resources(150, 10_000))
    cluster.set_node_spec("n1", draining=True)
    settle(cluster, "db", "high")
    assert homes(cluster, "db") == ["n2"]


def test_nobody_makes_way_where_that_would_not_make_room() -> None:
    cluster = cluster_of(200)
    full(cluster, [("low", 0, 100), ("equal", 5, 100)])
    add(cluster, "high", 5, 200)
    assert not carry_out(cluster, "high").plan.changes
    tainted = cluster_of(100)
    full(tainted, [("low", 0, 100)])
    tainted.set_node_spec("n1", taints=(Taint(key="x", effect=TaintEffect.NO_SCHEDULE),))
    add(tainted, "high", 5)
    assert not carry_out(tainted, "high").plan.changes


def test_a_workload_that_must_stay_available_is_spared_where_another_can_go() -> None:
    cluster = cluster_of(100, 100)
    add(cluster, "needed", 1, 100, rollout=Rollout(max_surge=1, max_unavailable=0))
    carry_out(cluster, "needed")
    obey(cluster)
    full(cluster, [("spare", 2, 100)])
    add(cluster, "high", 5, 100)
    carry_out(cluster, "high")
    assert stopped(cluster) == ["spare"]
    add(cluster, "higher", 6, 100)
    carry_out(cluster, "high", "higher")
    assert stopped(cluster) == ["needed", "spare"], "where nothing else helps, it makes way all the same"


def test_a_fixed_port_is_made_free_too() -> None:
    cluster = cluster_of(1000)
    port = (Port(name="http", host_port=80),)
    add(cluster, "low", 0, ports=port)
    carry_out(cluster, "low")
    obey(cluster)
    full(cluster, [("other", 0, 100)])
    add(cluster, "high", 5, ports=port)
    carry_out(cluster, "high")
    assert stopped(cluster) == ["low"]
    obey(cluster)
    settle(cluster, "low", "high", "other")
    assert (homes(cluster, "high"), homes(cluster, "low")) == (["n1"], [])


def test_a_plan_shows_whom_it_would_displace() -> None:
    cluster = cluster_of(100)
    full(cluster, [("low", 0, 100)])
    record = build_workload("high", uid="h", priority=5, requests=Resources(100, 1), placement=Placement())
    (preview,) = preview_workloads(cluster.machine, [SpecChange(record)], 0)
    assert [task.workload for task in preview.stops] == ["low"]


def test_each_obstacle_says_what_can_take_it_away() -> None:
    assert len(UNBLOCKED_BY) >= len(SITE_FILTERS) + len(ROOM_FILTERS)
    assert unblocking(["taint", "zone"]) == {Happening.NODE_CHANGED}
    assert unblocking(["taint", "capacity"]) == {Happening.NODE_CHANGED, Happening.ROOM_MADE}
    assert unblocking(["a code of a later version"]) == set(Happening)
