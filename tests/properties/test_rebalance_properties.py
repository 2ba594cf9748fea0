"""Rebalancing leads to rest: every move makes things better by an order of its own, so none is ever taken back.

The order is counted here from the records alone, by the rules as the manual states them: tasks of a workload by domain,
then by node, then how full the nodes are.
"""

from __future__ import annotations

from collections import Counter

from cloudless.core import keys
from cloudless.core.model import (
    Placement,
    Resources,
    Rollout,
    SpreadTopology,
    Taint,
    TaintEffect,
    TaskDesired,
    TaskState,
    Topology,
    WorkloadTerm,
)
from cloudless.core.orchestration import plan_workloads
from cloudless.core.orchestration.changes import Decider
from cloudless.core.orchestration.rebalance import plan_move
from cloudless.core.plan import Change
from cloudless.core.scheduling import Scratch
from cloudless.core.scheduling.shelf import share, size_of
from cloudless.core.state import Task
from cloudless.testing.builders import TestCluster, build_workload
from cloudless.testing.placement_rules import find_breaches
from tests.properties.test_placement_oracle import NAMES, Draw, carry_out, holding, obey, standing, telling

SEEDS = range(120)
REFS = [("default", name) for name in NAMES]
MOVES_MAX = 60
Order = tuple[int, int, tuple[int, ...]]


def draw_cluster(draw: Draw) -> TestCluster:
    """Return a cluster whose workloads permit moves, at rest, in which some nodes have been away or came later."""
    cluster = TestCluster()
    cluster.put(keys.SCHEDULER, draw.settings())
    nodes = [f"n{number}" for number in range(draw.randint(2, 6))]
    for node_id in nodes:
        capacity = Resources(draw.randint(800, 2_500), draw.randint(800, 2_500))
        cluster.add_node(node_id, zone=draw.choice("ab"), region=draw.choice(["r1", "r1", "r2"]), capacity=capacity)
    for name in NAMES:
        apart = WorkloadTerm(workload=draw.choice(NAMES), topology=Topology.NODE, weight=draw.choice([0, 30]))
        placement = Placement(
            spread_topology=draw.choice(list(SpreadTopology)),
            zones=draw.some("ab", 1) if draw.random() < 0.2 else (),
            workload_anti_affinity=(apart,) if draw.random() < 0.2 else (),
        )
        made = build_workload(
            name,
            uid=name,
            replicas=draw.randint(1, 6),
            requests=Resources(draw.randint(0, 200), draw.randint(0, 200)),
            placement=placement,
            rollout=Rollout(max_surge=draw.choice([1, 1, 1, 0]), max_unavailable=1),
        )
        cluster.add_workload(made)
    away = draw.sample(nodes, draw.randint(1, len(nodes) - 1))
    for node_id in away:
        effect = draw.choice([TaintEffect.NO_SCHEDULE, TaintEffect.PREFER_NO_SCHEDULE])
        taints = (Taint(key="old", effect=effect),) if draw.random() < 0.1 else ()
        cluster.set_node_spec(node_id, cordoned=True, taints=taints)
    come_to_rest(cluster)
    for node_id in away:
        cluster.set_node_spec(node_id, taints=cluster.machine.nodes[node_id].spec.taints)
    come_to_rest(cluster)
    return cluster


def come_to_rest(cluster: TestCluster) -> None:
    for _ in range(4):
        carry_out(cluster)
        obey(cluster)


def find(cluster: TestCluster) -> Change | None:
    """Return the move that the leader would begin."""
    return plan_move(cluster.machine, REFS, Decider(1, 0), {}, Scratch(cluster.machine))


def moved(cluster: TestCluster, change: Change) -> tuple[Task, TaskDesired]:
    """Return the task that a change moves, and the one that takes its place."""
    desired = [put.record for put in change.puts if isinstance(put.record, TaskDesired)]
    (marked,) = [task for task in desired if task.successor_id]
    (new,) = [task for task in desired if task.id == marked.successor_id]
    return cluster.machine.tasks[marked.id], new


def order_of(cluster: TestCluster) -> Order:
    """Return the sums of the squares of tasks by domain and by node, and how full the nodes are, the fullest first."""
    machine = cluster.machine
    by_domain: Counter[tuple[str, str]] = Counter()
    by_node: Counter[tuple[str, str]] = Counter()
    left = {node_id: node.info.capacity for node_id, node in machine.nodes.items() if node.info is not None}
    for task in machine.tasks.values():
        if not task.active:
            continue
        node_id, name = task.desired.node_id, task.desired.workload
        info = machine.nodes[node_id].info
        assert info is not None
        left[node_id] -= task.desired.spec.requests
        match machine.workloads["default", name].record.spec.placement.spread_topology:
            case SpreadTopology.NONE:
                continue
            case SpreadTopology.REGION:
                by_domain[name, info.region] += 1
            case SpreadTopology.ZONE:
                by_domain[name, f"{info.region}/{info.zone}"] += 1
        by_node[name, node_id] += 1
    sizes = {node_id: size_of(node.info.capacity) for node_id, node in machine.nodes.items() if node.info is not None}
    fullness = sorted((-share(left[node_id], sizes[node_id]) for node_id in left), reverse=True)
    return sum(n * n for n in by_domain.values()), sum(n * n for n in by_node.values()), tuple(fullness)


def running(cluster: TestCluster) -> Counter[str]:
    tasks = cluster.machine.tasks.values()
    return Counter(t.desired.workload for t in tasks if t.active and t.state is TaskState.RUNNING)


def count_waiting(cluster: TestCluster) -> int:
    planned = plan_workloads(cluster.machine, REFS, 0, 1, {}).workloads
    return sum(len(workload.unplaced) for workload in planned)


def carry_through(cluster: TestCluster, change: Change) -> int:
    """Move a task; no workload has fewer running tasks at any moment, and one more at most.

    Returns how many tasks that waited for a node got one by that.
    """
    before, waiting = running(cluster), count_waiting(cluster)
    assert not cluster.commit([change])
    for _ in range(4):
        assert 0 <= sum(running(cluster).values()) - sum(before.values()) <= 1 + waiting
        assert running(cluster) >= before
        result = plan_workloads(cluster.machine, REFS, 0, 1, {})
        assert not cluster.commit(result.plan.changes)
        assert running(cluster) >= before
        assert not plan_workloads(cluster.machine, REFS, 0, 1, {}).plan.changes, "nothing is done twice"
        obey(cluster)
    placed = sum((running(cluster) - before).values())
    assert placed == waiting - count_waiting(cluster)
    return placed


def test_each_move_keeps_the_rules_makes_the_spread_better_and_is_never_taken_back() -> None:
    total = 0
    for seed in SEEDS:
        with telling(seed) as draw:
            total += judge(draw_cluster(draw))
    assert total > len(SEEDS), f"{total} moves: the draw tests little"


def judge(cluster: TestCluster) -> int:
    """Move until nothing is better any more; return how many moves there were."""
    machine = cluster.machine
    came_from: dict[tuple[str, int], list[str]] = {}
    for moves in range(MOVES_MAX):
        change = find(cluster)
        if change is None:
            return moves
        old, new = moved(cluster, change)
        assert old.desired.node_id != new.node_id
        record = machine.workloads["default", new.workload].record
        assert record.spec.rollout.max_surge
        breaches = find_breaches(standing(cluster, record), new.node_id, machine.nodes, holding(cluster))
        assert not breaches, breaches
        before = order_of(cluster)
        placed = carry_through(cluster, change)
        after = order_of(cluster)
        assert placed or after < before
        if not placed and after[:2] == before[:2]:
            free = [-fullness for fullness in (before[2][0], after[2][0])]
            assert machine.held(keys.Kind.SCHEDULER), "only levelling looks at room"
            assert free[1] >= free[0]
        again = find(cluster)
        if again is not None:
            next_old, next_new = moved(cluster, again)
            assert (next_old.id, next_new.node_id) != (new.id, old.desired.node_id), "there and back again"
        came_from.setdefault((new.workload, new.slot), []).append(old.desired.node_id)
    raise AssertionError(f"does not come to rest: {came_from}")
