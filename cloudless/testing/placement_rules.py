"""The rules of placement as the manual states them, judged from the cluster's records: nothing of the scheduler's own.

`find_breaches` says of one task and the node it was just given what that breaks; `None` is never an answer. What is on
a node is told by `Standing`, one for each task that holds room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloudless.core.model import (
    ExecutorKind,
    NodeOperator,
    NodeTerm,
    Placement,
    PortProtocol,
    Resources,
    TaintEffect,
    Toleration,
    TolerationOperator,
    Topology,
    WorkloadTerm,
)
from cloudless.core.state import Node

Ports = frozenset[tuple[int, PortProtocol]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A task on a node, or one that is to be: what it holds and what it wants of others."""

    namespace: str
    workload: str
    labels: Mapping[str, str]
    placement: Placement
    requests: Resources
    ports: Ports = frozenset()
    executor: ExecutorKind = ExecutorKind.PROCESS
    node_id: str = ""
    staying: bool = True


def find_breaches(task: Standing, node_id: str, nodes: Mapping[str, Node], others: Iterable[Standing]) -> list[str]:
    """Return every rule that `task` on `node_id` would break beside `others`."""
    present = list(others)
    node = nodes[node_id]
    found = [*_node_breaches(task, node), *_room_breaches(task, node, present)]
    for term in task.placement.workload_affinity:
        if not term.weight and not _has_company(task, term, node, nodes, present):
            found.append(f"no task of {term.workload or dict(term.labels)} in its {term.topology.value}")
    for term in task.placement.workload_anti_affinity:
        if not term.weight and any(_means(task, term, o) and _near(term, node, nodes, o) for o in present):
            found.append(f"a task of {term.workload or dict(term.labels)} in its {term.topology.value}")
    for other in present:
        for term in other.placement.workload_anti_affinity:
            if not term.weight and _means(other, term, task) and _near(term, node, nodes, other):
                found.append(f"{other.workload} wants nothing like it in its {term.topology.value}")
    return found


def _node_breaches(task: Standing, node: Node) -> list[str]:
    info, where, labels = node.info, task.placement, node.labels
    assert info is not None
    checks = {
        "unreachable": node.reachable,
        "cordoned": not node.spec.cordoned,
        "draining": not node.spec.draining,
        "executor": task.executor.value in info.executors,
        "region": not where.regions or info.region in where.regions,
        "zone": not where.zones or info.zone in where.zones,
        "selector": all(labels.get(key) == value for key, value in where.node_selector.items()),
        "labels": all(_holds(term, labels) for term in where.node_affinity if not term.weight),
        "taint": all(
            any(covers(t, taint.key, taint.value, taint.effect) for t in where.tolerations)
            for taint in node.spec.taints
            if taint.effect is not TaintEffect.PREFER_NO_SCHEDULE
        ),
    }
    return [rule for rule, kept in checks.items() if not kept]


def _room_breaches(task: Standing, node: Node, others: list[Standing]) -> list[str]:
    assert node.info is not None
    here = [other for other in others if other.node_id == node.id]
    found = []
    for name in ("cpu_millicores", "memory_mb", "storage_mb", "bandwidth_mbps", "gpus"):
        used = sum(getattr(other.requests, name) for other in here) + getattr(task.requests, name)
        if getattr(task.requests, name) and used > getattr(node.info.capacity, name):
            found.append(name)
    taken = {port for other in here for port in other.ports}
    return found + (["ports"] if taken & task.ports else [])


def _holds(term: NodeTerm, labels: Mapping[str, str]) -> bool:
    has = term.key in labels
    if term.operator is NodeOperator.EXISTS:
        return has
    if term.operator is NodeOperator.DOES_NOT_EXIST:
        return not has
    among = has and labels[term.key] in term.values
    return among if term.operator is NodeOperator.IN else not among


def covers(toleration: Toleration, key: str, value: str, effect: TaintEffect) -> bool:
    """Return whether a toleration is for such a taint."""
    if toleration.effect not in (None, effect):
        return False
    if toleration.operator is TolerationOperator.EXISTS:
        return not toleration.key or toleration.key == key
    return toleration.key == key and toleration.value == value


def _means(owner: Standing, term: WorkloadTerm, other: Standing) -> bool:
    if owner.namespace != other.namespace:
        return False
    return other.workload == term.workload if term.workload else term.labels.items() <= dict(other.labels).items()


def _near(term: WorkloadTerm, node: Node, nodes: Mapping[str, Node], other: Standing) -> bool:
    there = nodes.get(other.node_id)
    if there is None or there.info is None or node.info is None:
        return False
    same_region = there.info.region == node.info.region
    match term.topology:
        case Topology.NODE:
            return there.id == node.id
        case Topology.ZONE:
            return same_region and there.info.zone == node.info.zone
        case Topology.REGION:
            return same_region


def _has_company(
    task: Standing, term: WorkloadTerm, node: Node, nodes: Mapping[str, Node], others: list[Standing]
) -> bool:
    meant = [other for other in others if other.staying and _means(task, term, other) and other.node_id in nodes]
    if not meant:
        return _means(task, term, task)  # the first of its kind
    return any(_near(term, node, nodes, other) for other in meant)
