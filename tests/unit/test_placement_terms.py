"""Taints, node affinity and the company of other tasks: where they let a task run, and what is said if nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from cloudless.core.model import (
    NodeOperator,
    NodeTerm,
    Placement,
    PortProtocol,
    Resources,
    Taint,
    TaintEffect,
    TaskState,
    Toleration,
    TolerationOperator,
    Topology,
    WorkloadTerm,
)
from cloudless.core.orchestration import plan_workloads
from cloudless.core.scheduling import Ask, Placed, Scratch, place
from cloudless.core.scheduling.node_terms import holds
from cloudless.core.scheduling.taints import tolerates
from cloudless.testing.builders import SMALL, TestCluster, build_workload

GPU = Taint(key="gpu", effect=TaintEffect.NO_SCHEDULE, value="yes")


def ask(seed: str = "t", workload: str = "web", labels: dict[str, str] | None = None, **placement: Any) -> Ask:
    where = Placement(**placement)
    return Ask(namespace="default", workload=workload, seed=seed, requests=SMALL, placement=where, labels=labels or {})


def cluster_of(*zones: str, **nodes: Any) -> TestCluster:
    """Return a cluster with nodes n1, n2, … in these zones."""
    cluster = TestCluster()
    for number, zone in enumerate(zones, 1):
        cluster.add_node(f"n{number}", zone=zone, **nodes)
    return cluster


def nodes_for(cluster: TestCluster, *asks: Ask) -> list[str]:
    return [o.node_id if isinstance(o, Placed) else o.diagnosis.text for o in place(asks, cluster.machine)]


def run(cluster: TestCluster, name: str, replicas: int = 1, labels: dict[str, str] | None = None, **spec: Any) -> None:
    """Plan a workload and let its tasks run."""
    record = build_workload(name, uid=name, replicas=replicas, **spec)
    cluster.add_workload(
        type(record)(**{f: getattr(record, f) for f in record.__dataclass_fields__} | {"labels": labels or {}})
    )
    plan(cluster, name)
    for task_id in sorted(cluster.machine.tasks_of("default", name)):
        cluster.report(task_id, TaskState.RUNNING)


def plan(cluster: TestCluster, *names: str) -> list[str]:
    result = plan_workloads(cluster.machine, [("default", name) for name in names], 0, 1, {})
    assert not cluster.commit(result.plan.changes)
    return [change.reason for change in result.plan.changes]


def homes(cluster: TestCluster, name: str) -> list[str]:
    tasks = (cluster.machine.tasks[task_id] for task_id in cluster.machine.tasks_of("default", name))
    return sorted(task.desired.node_id for task in tasks if task.active)


# --- taints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration(key="gpu", value="yes"), True),
        (Toleration(key="gpu", value="no"), False),
        (Toleration(key="gpu"), False),
        (Toleration(key="gpu", operator=TolerationOperator.EXISTS), True),
        (Toleration(key="disk", operator=TolerationOperator.EXISTS), False),
        (Toleration(operator=TolerationOperator.EXISTS), True),
        (Toleration(key="gpu", value="yes", effect=TaintEffect.NO_SCHEDULE), True),
        (Toleration(key="gpu", value="yes", effect=TaintEffect.NO_EXECUTE), False),
    ],
)
def test_a_toleration_covers_a_taint(toleration: Toleration, expected: bool) -> None:
    assert tolerates(toleration, GPU) is expected


@pytest.mark.parametrize("effect", [TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE])
def test_a_taint_keeps_tasks_away_that_do_not_tolerate_it(effect: TaintEffect) -> None:
    cluster = cluster_of("a")
    cluster.set_node_spec("n1", taints=(Taint(key="gpu", effect=effect),))
    refused = f"0 of 1 node fits: 1 has the taint gpu:{effect.value}, which is not tolerated"
    assert nodes_for(cluster, ask()) == [refused]
    tolerant = (Toleration(key="gpu", operator=TolerationOperator.EXISTS),)
    assert nodes_for(cluster, ask(tolerations=tolerant)) == ["n1"]


def test_a_node_that_would_rather_not_is_taken_only_if_no_other_fits() -> None:
    cluster = cluster_of("a", "a", capacity=Resources(100, 64))
    cluster.set_node_spec("n1", taints=(Taint(key="old", effect=TaintEffect.PREFER_NO_SCHEDULE),))
    assert nodes_for(cluster, ask("1"), ask("2")) == ["n2", "n1"]


def test_no_execute_makes_running_tasks_leave_as_a_drain_does() -> None:
    cluster = cluster_of("a")
    run(cluster, "web", replicas=2)
    cluster.set_node_spec("n1", taints=(Taint(key="bad", effect=TaintEffect.NO_EXECUTE),))
    assert plan(cluster, "web") == [], "nobody is stopped before there is another"
    cluster.add_node("n2")
    assert all("node n1 has the taint bad:NO_EXECUTE" in reason for reason in plan(cluster, "web"))
    assert homes(cluster, "web") == ["n1", "n1", "n2", "n2"]
    for task in list(cluster.machine.tasks.values()):
        cluster.report(task.id, TaskState.RUNNING)
    plan(cluster, "web")
    assert homes(cluster, "web") == ["n2", "n2"]
    assert plan(cluster, "web") == []


def test_who_tolerates_no_execute_stays() -> None:
    cluster = cluster_of("a", "a")
    run(cluster, "web", placement=Placement(tolerations=(Toleration(operator=TolerationOperator.EXISTS),)))
    (home,) = homes(cluster, "web")
    cluster.set_node_spec(home, taints=(Taint(key="bad", effect=TaintEffect.NO_EXECUTE),))
    assert plan(cluster, "web") == []


# --- labels of nodes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        (NodeOperator.IN, ("ssd", "nvme"), {"ssd"}),
        (NodeOperator.NOT_IN, ("ssd",), {"hdd", None}),
        (NodeOperator.EXISTS, (), {"ssd", "hdd"}),
        (NodeOperator.DOES_NOT_EXIST, (), {None}),
    ],
)
def test_a_node_term_holds(operator: NodeOperator, values: tuple[str, ...], fits: set[str | None]) -> None:
    term = NodeTerm(key="disk", operator=operator, values=values)
    assert {value for value in ("ssd", "hdd", None) if holds(term, value)} == fits


def test_required_node_affinity_is_a_condition_and_preferred_a_wish() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", labels={"disk": "hdd"})
    cluster.add_node("n2", labels={"disk": "ssd"})
    fast = NodeTerm(key="disk", operator=NodeOperator.IN, values=("ssd",))
    assert nodes_for(cluster, ask(node_affinity=(fast,))) == ["n2"]
    nvme = NodeTerm(key="disk", operator=NodeOperator.IN, values=("nvme",))
    assert nodes_for(cluster, ask(node_affinity=(nvme,))) == ["0 of 2 nodes fit: 2 are not like disk IN nvme"]
    for value, expected in (("ssd", "n2"), ("hdd", "n1")):
        wish = NodeTerm(key="disk", operator=NodeOperator.IN, values=(value,), weight=10)
        assert nodes_for(cluster, ask(node_affinity=(wish,))) == [expected]


# --- other tasks ------------------------------------------------------------------------------------


def near(workload: str, topology: Topology = Topology.NODE, weight: int = 0) -> tuple[WorkloadTerm, ...]:
    return (WorkloadTerm(workload=workload, topology=topology, weight=weight),)


@pytest.mark.parametrize(
    ("topology", "fits"),
    [(Topology.NODE, {"n1"}), (Topology.ZONE, {"n1", "n2"}), (Topology.REGION, {"n1", "n2", "n3"})],
)
def test_affinity_asks_for_a_task_near_by(topology: Topology, fits: set[str]) -> None:
    cluster = cluster_of("a", "a", "b", capacity=Resources(200, 128))
    cluster.add_node("n4", region="far", zone="a")
    run(cluster, "db", placement=Placement(node_selector={}, zones=("a",), regions=("local",)))
    (home,) = homes(cluster, "db")
    fits = {home} if topology is Topology.NODE else fits
    wanted = [ask(str(n), workload_affinity=near("db", topology)) for n in range(6)]
    assert {node for node in nodes_for(cluster, *wanted) if node.startswith("n")} == fits


def test_the_first_of_those_that_want_their_own_kind_near_may_go_anywhere_and_the_others_follow() -> None:
    cluster = cluster_of("a", "b", "c", capacity=Resources(200, 128))
    together = near("web")
    placed = nodes_for(cluster, *(ask(str(n), workload_affinity=together) for n in range(3)))
    assert placed[0] == placed[1]
    assert placed[2].startswith("0 of 3 nodes fit: 1 lacks cpu"), "they stay together or wait"
    in_zone = near("web", Topology.ZONE)
    cluster.add_node("n4", zone="a", capacity=Resources(200, 128))
    zones = {"n1": "a", "n2": "b", "n3": "c", "n4": "a"}
    placed = nodes_for(cluster, *(ask(str(n), workload_affinity=in_zone) for n in range(2)))
    assert len({zones[node] for node in placed}) == 1


def test_without_the_neighbour_nothing_fits() -> None:
    cluster = cluster_of("a", "b")
    assert nodes_for(cluster, ask(workload_affinity=near("db", Topology.ZONE))) == [
        "0 of 2 nodes fit: 2 are in a zone without a task of db"
    ]


def test_a_task_that_the_same_plan_stops_is_no_company() -> None:
    cluster = cluster_of("a", "b")
    run(cluster, "db", placement=Placement(zones=("a",)))
    cluster.mark_deleted("db")
    record = build_workload("web", uid="web", placement=Placement(workload_affinity=near("db", Topology.ZONE)))
    cluster.add_workload(record)
    assert [reason.partition(" ")[0] for reason in plan(cluster, "db", "web")] == ["stop"]
    assert not homes(cluster, "web")


def test_a_task_that_the_same_plan_stops_is_no_company_for_those_already_counted_either() -> None:
    cluster = cluster_of("a", "b")
    run(cluster, "db", placement=Placement(zones=("a",)))
    scratch = Scratch(cluster.machine, {})
    wanted = ask(workload_affinity=near("db", Topology.ZONE))
    (task_id,) = cluster.machine.tasks_of("default", "db")
    assert scratch.neighbours_of(wanted).required[0].allows(scratch.rooms["n1"].places)
    for _ in range(2):  # once is enough, twice is no more
        scratch.leave(cluster.machine.tasks[task_id])
        assert not scratch.neighbours_of(wanted).required[0].allows(scratch.rooms["n1"].places)
    scratch.renew((), {})
    assert scratch.neighbours_of(wanted).required[0].allows(scratch.rooms["n1"].places)


@pytest.mark.parametrize(("topology", "placed"), [(Topology.NODE, 4), (Topology.ZONE, 2), (Topology.REGION, 1)])
def test_anti_affinity_with_its_own_kind_gives_each_its_own_domain(topology: Topology, placed: int) -> None:
    cluster = cluster_of("a", "a", "b", "b")
    found = nodes_for(cluster, *(ask(str(n), workload_anti_affinity=near("web", topology)) for n in range(5)))
    homes_found = [node for node in found if node.startswith("n")]
    assert len(homes_found) == len(set(homes_found)) == placed


def test_a_running_task_keeps_away_what_it_must_not_have_near() -> None:
    cluster = cluster_of("a", "b")
    run(
        cluster,
        "quiet",
        placement=Placement(
            zones=("a",), workload_anti_affinity=(WorkloadTerm(labels={"loud": "yes"}, topology=Topology.ZONE),)
        ),
    )
    assert nodes_for(cluster, ask(labels={"loud": "yes"})) == ["n2"]
    assert set(nodes_for(cluster, *(ask(str(n)) for n in range(3)))) == {"n1"}
    only_a = ask(labels={"loud": "yes"}, zones=("a",))
    assert nodes_for(cluster, only_a) == [
        "0 of 2 nodes fit: 1 is in a zone with a task of quiet, which keeps such tasks away, 1 is outside zone a"
    ]


def test_terms_mean_the_own_namespace_only() -> None:
    cluster = cluster_of("a")
    run(cluster, "web", labels={"app": "x"})
    other = Ask(
        namespace="other", workload="api", requests=SMALL, placement=Placement(workload_anti_affinity=near("web"))
    )
    assert nodes_for(cluster, other) == ["n1"]


def test_labels_select_every_workload_that_has_them() -> None:
    cluster = cluster_of("a", "b")
    run(cluster, "db", labels={"app": "shop", "tier": "db"}, placement=Placement(zones=("b",)))
    shop = (WorkloadTerm(labels={"app": "shop"}, topology=Topology.NODE),)
    assert nodes_for(cluster, ask(workload_affinity=shop)) == ["n2"]
    assert nodes_for(cluster, ask(workload_anti_affinity=shop)) == ["n1"]


def test_preferred_neighbours_are_a_wish() -> None:
    cluster = cluster_of("a", "b")
    run(cluster, "db", placement=Placement(zones=("b",)))
    for topology in (Topology.NODE, Topology.ZONE):
        assert nodes_for(cluster, ask(workload_affinity=near("db", topology, weight=5))) == ["n2"]
        assert nodes_for(cluster, ask(workload_anti_affinity=near("db", topology, weight=5))) == ["n1"]
    assert nodes_for(cluster, ask(zones=("b",), workload_anti_affinity=near("db", weight=5))) == ["n2"]


def test_a_task_of_a_node_that_is_away_counts_until_it_is_given_up() -> None:
    cluster = cluster_of("a", "a")
    apart = Placement(workload_anti_affinity=near("web", Topology.ZONE))
    run(cluster, "web", placement=apart, lost_after_s=60.0)
    (home,) = homes(cluster, "web")
    cluster.set_reachable(home, False)
    other = "n2" if home == "n1" else "n1"
    refs = [("default", "web")]
    assert not plan_workloads(cluster.machine, refs, 0, 1, {home: 59.0}).plan.changes
    result = plan_workloads(cluster.machine, refs, 0, 1, {home: 60.0})
    assert not cluster.commit(result.plan.changes)
    assert homes(cluster, "web") == [other]


def test_udp_and_tcp_ports_are_two() -> None:
    cluster = cluster_of("a")
    tcp, udp = ((53, PortProtocol.TCP),), ((53, PortProtocol.UDP),)
    asks = [
        Ask(namespace="default", workload=f"w{n}", seed=str(n), host_ports=ports)
        for n, ports in enumerate([tcp, udp, udp])
    ]
    assert nodes_for(cluster, *asks) == ["n1", "n1", "0 of 1 node fits: 1 has port 53/udp taken"]


def test_gpus_are_counted() -> None:
    cluster = cluster_of("a", capacity=Resources(1000, 1000, gpus=1))
    asks = [Ask(namespace="default", workload="w", seed=str(n), requests=Resources(1, 1, gpus=1)) for n in range(2)]
    assert nodes_for(cluster, *asks) == ["n1", "0 of 1 node fits: 1 lacks gpu (asks 1, at most 0 free)"]
