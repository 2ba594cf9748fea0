"""Plans of several workloads judged by the rules themselves, and small clusters by trying every node.

The judge (`placement_rules`) reads records only. What it asks: no task is given a node that breaks a rule at that
moment; one that is given none could be given none; no other node suits it better (`best_node`); a plan that was carried
out is followed by an empty one; and where tasks of lower priority make way, they are such, they make room, and none of
them could have stayed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any, TypeVar

from cloudless.core import keys
from cloudless.core.model import (
    COST_LABEL,
    NETWORK_PENALTY_LABEL,
    Desired,
    NodeOperator,
    NodeTerm,
    Placement,
    Port,
    PortProtocol,
    Resources,
    Rollout,
    SchedulerRecord,
    SpreadTopology,
    Taint,
    TaintEffect,
    TaskDesired,
    TaskState,
    Toleration,
    TolerationOperator,
    Topology,
    WorkloadRecord,
    WorkloadTerm,
)
from cloudless.core.orchestration import plan_workloads
from cloudless.core.plan import Change
from cloudless.core.scheduling import Ask, Placed, Scratch, place, scheduler_of
from cloudless.core.state import Task
from cloudless.testing.builders import TestCluster, build_workload
from cloudless.testing.placement_rules import Standing, find_breaches
from tests.properties.best_node import judge_node

T = TypeVar("T")
NAMES = ("w0", "w1", "w2")
SEEDS = range(300)
_PORTS = (
    Port(name="a", host_port=80),
    Port(name="b", host_port=53),
    Port(name="c", host_port=53, protocol=PortProtocol.UDP),
)


class Draw(random.Random):
    """Draws small clusters, and workloads that want much of them and of each other. One seed, one cluster.

    Drawn so, hundreds are tried in the time in which hypothesis draws a few.
    """

    def some(self, items: Sequence[T], most: int) -> tuple[T, ...]:
        """Return up to so many of the items, none half of the time."""
        return tuple(self.sample(items, self.randint(0, most))) if self.random() < 0.5 else ()

    def cluster(self) -> TestCluster:
        cluster = TestCluster()
        for n in range(self.randint(1, 4)):
            cpu, memory, gpus = self.randint(200, 1000), self.randint(200, 1000), self.randint(0, 2)
            cluster.add_node(
                f"n{n}",
                zone=self.choice("ab"),
                region=self.choice(["r1", "r1", "r2"]),
                capacity=Resources(cpu, memory, gpus=gpus),
                labels=self.labels(),
            )
            cluster.set_node_spec(f"n{n}", taints=self.taints())
        cluster.put(keys.SCHEDULER, self.settings())
        for name in NAMES:
            made = build_workload(
                name,
                uid=name,
                replicas=self.randint(0, 4),
                requests=self.requests(),
                placement=self.placement(),
                ports=self.some(_PORTS, 2),
                priority=self.choice([0, 0, 3, 7]),
                rollout=Rollout(max_surge=0, max_unavailable=self.randint(1, 4)),
            )
            cluster.add_workload(replace(made, labels=self.choice([{}, {"app": "a"}, {"app": "b"}])))
        return cluster

    def requests(self) -> Resources:
        return Resources(self.randint(0, 400), self.randint(0, 400), gpus=self.choice([0, 0, 1]))

    def labels(self) -> dict[str, str]:
        disk = self.choice(["", "ssd", "hdd"])
        return ({"disk": disk} if disk else {}) | ({COST_LABEL: self.choice("12")} if self.random() < 0.3 else {})

    def taints(self) -> tuple[Taint, ...]:
        if self.random() < 0.6:
            return ()
        return (Taint(key=self.choice(["gpu", "old"]), effect=self.choice(list(TaintEffect))),)

    def settings(self) -> SchedulerRecord:
        pack = self.choice([0, 50])
        weights: dict[str, Any] = {
            name: self.choice([0, 50]) for name in ("affinity", "locality", "reliability", "cost", "network")
        }
        balance = 0 if pack else self.choice([0, 50])
        return replace(SchedulerRecord(pack=pack, balance=balance, preemption=self.random() < 0.5), **weights)

    def characters(self, cluster: TestCluster) -> None:
        """Let nodes be more or less reliable and well reached, and larger, so that there is a choice."""
        wishes = scheduler_of(cluster.machine)
        cluster.put(keys.SCHEDULER, replace(wishes, locality=self.choice([wishes.locality, 500])))
        for node_id, node in list(cluster.machine.nodes.items()):
            assert node.info is not None
            size = self.randint(2, 4)
            capacity = sum([node.info.capacity] * size, Resources())
            cluster.put(keys.node_info(node_id), replace(node.info, capacity=capacity))
            penalty = {NETWORK_PENALTY_LABEL: self.choice(["0", "0.5", "1"])} if self.random() < 0.5 else {}
            cluster.set_node_spec(node_id, taints=node.spec.taints, labels=penalty)
            assert node.status is not None
            cluster.put(keys.node_status(node_id), replace(node.status, reliability=self.choice([1.0, 1.0, 0.6, 0.0])))

    def placement(self) -> Placement:
        return Placement(
            zones=self.some("ab", 1),
            regions=self.some(["r1", "r2"], 1) if self.random() < 0.3 else (),
            node_selector={"disk": "ssd"} if self.random() < 0.15 else {},
            spread_topology=self.choice(list(SpreadTopology)),
            tolerations=tuple(
                Toleration(key=key, operator=self.choice(list(TolerationOperator)))
                for key in self.some(["gpu", "old"], 2)
            ),
            node_affinity=tuple(self.node_term() for _ in self.some("xx", 2)),
            workload_affinity=tuple(self.workload_term() for _ in self.some("xx", 2)),
            workload_anti_affinity=tuple(self.workload_term() for _ in self.some("xx", 2)),
        )

    def node_term(self) -> NodeTerm:
        operator = self.choice(list(NodeOperator))
        compares = operator in (NodeOperator.IN, NodeOperator.NOT_IN)
        return NodeTerm(
            key="disk", operator=operator, values=("ssd",) if compares else (), weight=self.choice([0, 0, 1, 30])
        )

    def workload_term(self) -> WorkloadTerm:
        named = self.random() < 0.6
        return WorkloadTerm(
            workload=self.choice(NAMES) if named else "",
            labels={} if named else self.choice([{"app": "a"}, {"app": "b"}]),
            topology=self.choice(list(Topology)),
            weight=self.choice([0, 0, 1, 30]),
        )


def standing(cluster: TestCluster, record: WorkloadRecord, task: TaskDesired | None = None) -> Standing:
    return Standing(
        namespace=record.namespace,
        workload=record.name,
        labels=record.labels,
        placement=record.spec.placement,
        requests=record.spec.requests,
        ports=frozenset((port.host_port, port.protocol) for port in record.spec.ports if port.host_port),
        executor=record.spec.executor,
        node_id=task.node_id if task is not None else "",
        staying=task is None or task.desired is Desired.RUNNING,
    )


def holding(cluster: TestCluster, without: frozenset[str] = frozenset()) -> list[Standing]:
    """Return every task that has not ended."""
    machine = cluster.machine
    return [
        standing(cluster, machine.workloads["default", task.desired.workload].record, task.desired)
        for task_id, task in sorted(machine.tasks.items())
        if not task.ended and task_id not in without
    ]


def started(change: Change) -> TaskDesired | None:
    (put,) = change.puts
    assert isinstance(put.record, TaskDesired)
    return put.record if put.record.desired is Desired.RUNNING else None


def carry_out(cluster: TestCluster) -> list[Task]:
    """Plan all workloads, judge each start at its moment, commit; return the tasks told to stop."""
    result = plan_workloads(cluster.machine, [("default", name) for name in NAMES], 0, 1, {})
    victims: list[Task] = []
    for change in result.plan.changes:
        task = started(change)
        if task is not None:
            record = cluster.machine.workloads["default", task.workload].record
            breaches = find_breaches(standing(cluster, record), task.node_id, cluster.machine.nodes, holding(cluster))
            assert not breaches, (task.id, task.node_id, breaches)
        else:
            (put,) = change.puts
            assert isinstance(put.record, TaskDesired)
            victims.append(cluster.machine.tasks[put.record.id])
        assert not cluster.commit([change])
    return victims


@contextmanager
def telling(seed: int) -> Iterator[Draw]:
    """Draw with a seed, and name it should anything fail."""
    try:
        yield Draw(seed)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


def obey(cluster: TestCluster) -> None:
    for task in list(cluster.machine.tasks.values()):
        if not task.wanted and not task.ended:
            cluster.report(task.id, TaskState.STOPPED)
        elif task.wanted and task.state is None:
            cluster.report(task.id, TaskState.RUNNING)


def test_no_rule_is_broken_at_the_moment_of_placement_and_a_plan_carried_out_is_followed_by_an_empty_one() -> None:
    for seed in SEEDS:
        with telling(seed) as draw:
            judge_rounds(draw, draw.cluster())


def judge_rounds(draw: Draw, cluster: TestCluster) -> None:
    for _ in range(3):
        carry_out(cluster)
        # One that was planned first may want to be near one that was planned after it.
        for _ in NAMES:
            carry_out(cluster)
        again = plan_workloads(cluster.machine, [("default", name) for name in NAMES], 0, 1, {})
        assert not again.plan.changes, "nothing has changed, and yet there is something to do"
        obey(cluster)
        cluster.update_workload(draw.choice(NAMES), replicas=draw.randint(0, 5), placement=draw.placement())


def test_on_a_small_cluster_a_node_is_found_exactly_if_one_keeps_all_rules() -> None:
    for seed in SEEDS:
        with telling(seed) as draw:
            judge_next(draw.cluster())


def judge_next(cluster: TestCluster) -> None:
    """Each workload's next task, beside what a first round has placed, by trying every node."""
    carry_out(cluster)
    obey(cluster)
    for name in NAMES:
        record = cluster.machine.workloads["default", name].record
        possible = {
            node_id
            for node_id in cluster.machine.nodes
            if not find_breaches(standing(cluster, record), node_id, cluster.machine.nodes, holding(cluster))
        }
        ports = tuple((port.host_port, port.protocol) for port in record.spec.ports)
        ask = Ask(
            namespace="default",
            workload=name,
            seed="next",
            requests=record.spec.requests,
            placement=record.spec.placement,
            host_ports=ports,
            labels=record.labels,
        )
        (outcome,) = place([ask], cluster.machine, Scratch(cluster.machine))
        if isinstance(outcome, Placed):
            assert outcome.node_id in possible
        else:
            assert not possible, outcome.diagnosis.text


def test_on_a_small_cluster_no_node_that_keeps_all_rules_suits_better_than_the_one_taken() -> None:
    judged = 0
    for seed in SEEDS:
        with telling(seed) as draw:
            cluster = draw.cluster()
            draw.characters(cluster)
            judged += judge_best(cluster)
    assert judged > len(SEEDS) // 3, f"only {judged} times there was a choice: the draw tests little"


def judge_best(cluster: TestCluster) -> int:
    """Compare the node of each workload's next task with all the others; return how often there was a choice."""
    carry_out(cluster)
    obey(cluster)
    machine, wishes, judged = cluster.machine, scheduler_of(cluster.machine), 0
    for name in NAMES:
        record, others = machine.workloads["default", name].record, holding(cluster)
        wanted = standing(cluster, record)
        possible = [n for n in machine.nodes if not find_breaches(wanted, n, machine.nodes, others)]
        if len(possible) < 2:
            continue
        ports = tuple((port.host_port, port.protocol) for port in record.spec.ports)
        ask = Ask(
            namespace="default",
            workload=name,
            seed="next",
            requests=record.spec.requests,
            placement=record.spec.placement,
            host_ports=ports,
            labels=record.labels,
        )
        (outcome,) = place([ask], machine, Scratch(machine))
        assert isinstance(outcome, Placed)
        suits = {n: judge_node(wanted, n, machine.nodes, others, wishes) for n in possible}
        taken = suits[outcome.node_id]
        better = {n: s for n, s in suits.items() if taken.is_worse_than(s, wishes.balance > 0)}
        assert not better, f"{name}: {outcome.node_id} was taken ({taken}), wishes {wishes}: {better}"
        judged += len(set(suits.values())) > 1
    return judged


def test_whoever_makes_way_is_lower_makes_room_and_could_not_have_stayed() -> None:
    judged = 0
    for seed in SEEDS:
        with telling(seed) as draw:
            judged += judge_preemption(draw.cluster(), draw.randint(1, 9), draw.requests())
    assert judged > len(SEEDS) // 20, "hardly anybody made way: the draw tests nothing"


def judge_preemption(cluster: TestCluster, priority: int, requests: Resources) -> bool:
    """Return whether anybody made way."""
    cluster.put(keys.SCHEDULER, SchedulerRecord(preemption=True))
    for _ in range(2):
        carry_out(cluster)
        obey(cluster)
    machine = cluster.machine
    if any(not task.wanted and not task.ended for task in machine.tasks.values()):
        return False
    made = build_workload("high", uid="high", replicas=1, requests=requests, priority=priority)
    cluster.add_workload(made)
    high = standing(cluster, made)
    result = plan_workloads(machine, [("default", "high")], 0, 1, {})
    starts = [task for change in result.plan.changes if (task := started(change)) is not None]
    victims = [machine.tasks[put.record.id] for change in result.plan.changes for put in change.puts
               if isinstance(put.record, TaskDesired) and put.record.desired is Desired.STOPPED]  # fmt: skip

    def priority_of(task: Task) -> int:
        return machine.workloads["default", task.desired.workload].record.spec.priority

    def fits(node_id: str, gone: frozenset[str]) -> bool:
        return not find_breaches(high, node_id, machine.nodes, holding(cluster, gone))

    lower = {
        node_id: [
            t for t in machine.tasks.values() if t.active and t.desired.node_id == node_id and priority_of(t) < priority
        ]
        for node_id in machine.nodes
    }
    if any(fits(node_id, frozenset()) for node_id in machine.nodes):
        assert starts
        assert not victims
        return False
    assert not starts
    if not victims:
        assert not any(fits(node_id, frozenset(t.id for t in tasks)) for node_id, tasks in lower.items())
        return False
    (home,) = {task.desired.node_id for task in victims}
    gone = frozenset(task.id for task in victims)
    assert all(priority_of(task) < priority for task in victims)
    assert fits(home, gone)
    assert not any(fits(home, gone - {task_id}) for task_id in gone)
    cheapest = min(
        max(priority_of(task) for task in some)
        for node_id, tasks in lower.items()
        for size in range(1, len(tasks) + 1)
        for some in combinations(tasks, size)
        if fits(node_id, frozenset(task.id for task in some))
    )
    promises = [
        machine.workloads["default", task.desired.workload].record.spec.rollout.max_unavailable
        for tasks in lower.values()
        for task in tasks
    ]
    if min(promises) >= 4:
        assert max(priority_of(task) for task in victims) == cheapest, "no promise stands in the way of the lowest"
    return True
