"""Filters say where a task may run, scorers where it had better; what does not fit is explained."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from cloudless.core.abilities import needed_abilities
from cloudless.core.model import (
    ExecutorKind,
    Limits,
    Placement,
    PortProtocol,
    Resources,
    SecurityContext,
    SpreadTopology,
    TaskState,
    WorkloadSpec,
)
from cloudless.core.orchestration import plan_workloads
from cloudless.core.scheduling import Ask, Placed, Scratch, Unplaced, place
from cloudless.testing.builders import TestCluster, build_workload

ASK = Resources(cpu_millicores=500, memory_mb=256)


def ask(seed: str = "t", **fields: Any) -> Ask:
    return Ask(**{"namespace": "default", "workload": "web", "seed": seed, "requests": ASK, **fields})


def three_nodes() -> TestCluster:
    cluster = TestCluster()
    cluster.add_node("n1", zone="a", labels={"disk": "ssd"})
    cluster.add_node("n2", zone="b", region="far")
    cluster.add_node("n3", zone="a", executors=("process",))
    return cluster


def nodes_for(cluster: TestCluster, *asks: Ask) -> list[str]:
    return [o.node_id if isinstance(o, Placed) else o.diagnosis.text for o in place(asks, cluster.machine)]


@pytest.mark.parametrize(
    ("fields", "node_id"),
    [
        ({"placement": Placement(zones=("b",))}, "n2"),
        ({"placement": Placement(regions=("far",))}, "n2"),
        ({"placement": Placement(node_selector={"disk": "ssd"})}, "n1"),
        ({"executor": ExecutorKind.DOCKER, "placement": Placement(zones=("a",))}, "n1"),
        ({"avoid": ("n1", "n2")}, "n3"),
        ({"placement": Placement(zones=("b",)), "avoid": ("n2",)}, "n2"),
    ],
)
def test_a_task_runs_where_it_may(fields: dict[str, Any], node_id: str) -> None:
    assert nodes_for(three_nodes(), ask(**fields)) == [node_id]


def test_closed_and_absent_nodes_take_no_tasks() -> None:
    cluster = three_nodes()
    cluster.set_node_spec("n1", cordoned=True)
    cluster.set_node_spec("n2", draining=True)
    cluster.set_reachable("n3", False)
    assert nodes_for(cluster, ask()) == ["0 of 3 nodes fit: 1 is being drained, 1 is cordoned, 1 is offline"]


def test_a_task_is_placed_only_where_its_limits_can_be_kept() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", capabilities=())
    cluster.add_node("n2", capabilities=("limit-memory",))
    assert nodes_for(cluster, ask(needs=("limit-memory",))) == ["n2"]
    words = "0 of 2 nodes fit: 1 cannot limit cpu, 1 cannot limit cpu and limit memory"
    assert nodes_for(cluster, ask(needs=("limit-cpu", "limit-memory"))) == [words]


def test_a_node_that_can_start_nothing_is_given_nothing() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", unable={"start-tasks": "12Mi are left on its disk"})
    assert nodes_for(cluster, ask()) == ["0 of 1 node fits: 1 cannot start tasks now"]


def test_a_process_needs_what_bounds_it_and_a_container_nothing() -> None:
    security = SecurityContext(run_as_group=1, private_tmp=True)
    process = WorkloadSpec(limits=Limits(memory_mb=64), security_context=security)
    assert needed_abilities(process) == ("limit-memory", "mounts", "run-as-user")
    assert needed_abilities(replace(process, executor=ExecutorKind.DOCKER)) == needed_abilities(WorkloadSpec()) == ()


def test_a_workload_waits_for_a_node_that_can_keep_its_limits() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", capabilities=())
    cluster.add_workload(build_workload(replicas=1, limits=Limits(pids=5)))
    assert not plan_workloads(cluster.machine, [("default", "web")], 0, 1, {}).plan.changes
    cluster.add_node("n2", capabilities=("limit-pids",))
    assert plan_workloads(cluster.machine, [("default", "web")], 0, 1, {}).plan.changes


def test_a_label_set_by_a_person_counts() -> None:
    cluster = three_nodes()
    cluster.set_node_spec("n2", labels={"disk": "ssd", "x": "y"})
    assert nodes_for(cluster, ask(placement=Placement(node_selector={"x": "y"}))) == ["n2"]


def test_the_diagnosis_counts_reasons_and_says_how_much_is_lacking() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", reachable=False)
    cluster.add_node("n2", capacity=Resources(200, 4096))
    cluster.add_node("n3", capacity=Resources(100, 4096))
    assert nodes_for(cluster, ask()) == ["0 of 3 nodes fit: 1 is offline, 2 lack cpu (asks 500m, at most 200m free)"]


def test_without_nodes_the_diagnosis_says_so() -> None:
    assert nodes_for(TestCluster(), ask()) == ["there is no node"]


def test_each_placement_reserves_its_room() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", capacity=Resources(1100, 4096))
    outcomes = place([ask(f"t{n}") for n in range(3)], cluster.machine)
    assert [type(outcome) for outcome in outcomes] == [Placed, Placed, Unplaced]


def test_one_scratch_serves_several_workloads() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", capacity=Resources(600, 4096))
    scratch = Scratch(cluster.machine)
    first = place([ask()], cluster.machine, scratch)
    second = place([ask(workload="other")], cluster.machine, scratch)
    assert isinstance(first[0], Placed)
    assert isinstance(second[0], Unplaced)


def test_a_fixed_port_is_given_once_per_node() -> None:
    cluster = TestCluster()
    cluster.add_node("n1")
    cluster.add_node("n2")
    placed = nodes_for(cluster, *(ask(f"t{n}", host_ports=((80, PortProtocol.TCP),)) for n in range(3)))
    assert sorted(placed[:2]) == ["n1", "n2"]
    assert placed[2] == "0 of 2 nodes fit: 2 have port 80 taken"


def test_a_stopping_task_holds_its_room_until_it_has_ended() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", capacity=Resources(100, 4096))
    cluster.add_workload(build_workload(replicas=1))
    cluster.commit(plan_workloads(cluster.machine, [("default", "web")], 0, 1, {}).plan.changes)
    (task,) = cluster.machine.tasks.values()
    cluster.report(task.id, TaskState.RUNNING)
    cluster.update_workload(replicas=0)
    cluster.commit(plan_workloads(cluster.machine, [("default", "web")], 0, 1, {}).plan.changes)
    small = ask(requests=Resources(100, 1), workload="other")
    assert nodes_for(cluster, small) != ["n1"]
    cluster.report(task.id, TaskState.STOPPED)
    assert nodes_for(cluster, small) == ["n1"]


def test_tasks_are_packed_by_default() -> None:
    cluster = TestCluster()
    for n in range(4):
        cluster.add_node(f"n{n}")
    assert len(set(nodes_for(cluster, *(ask(f"t{n}") for n in range(8))))) == 1


@pytest.mark.parametrize(
    ("topology", "per_zone", "per_node"),
    [(SpreadTopology.ZONE, [4, 4], [2, 2, 4]), (SpreadTopology.NODE, [3, 5], [2, 3, 3])],
)
def test_tasks_are_spread_evenly_on_request(topology: SpreadTopology, per_zone: list[int], per_node: list[int]) -> None:
    cluster = TestCluster()
    zones = {"n1": "a", "n2": "a", "n3": "b"}
    for node_id, zone in zones.items():
        cluster.add_node(node_id, zone=zone)
    chosen = nodes_for(cluster, *(ask(f"t{n}", placement=Placement(spread_topology=topology)) for n in range(8)))
    assert sorted(Counter(chosen).values()) == per_node
    if topology is SpreadTopology.ZONE:
        assert sorted(Counter(zones[node_id] for node_id in chosen).values()) == per_zone


def test_a_full_zone_does_not_stop_the_others() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", zone="a", capacity=Resources(500, 4096))
    cluster.add_node("n2", zone="b")
    chosen = nodes_for(
        cluster, *(ask(f"t{n}", placement=Placement(spread_topology=SpreadTopology.ZONE)) for n in range(5))
    )
    assert Counter(chosen) == {"n1": 1, "n2": 4}


def test_equal_nodes_are_chosen_by_the_seed_and_always_the_same() -> None:
    cluster = TestCluster()
    for n in range(20):
        cluster.add_node(f"n{n}")
    chosen = [nodes_for(cluster, ask(seed))[0] for seed in "abcdefghij"]
    assert len(set(chosen)) > 3
    assert chosen == [nodes_for(cluster, ask(seed))[0] for seed in "abcdefghij"]
