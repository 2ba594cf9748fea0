"""How well a node suits a task, as the manual states it, from the cluster's records: nothing of the scheduler's own.

`docs/scheduling.md`, "Wishes": nodes to avoid come last, then `spreadTopology`, then the least weighted loss, then the
fullest node (the emptiest, with `balance`). How full a node is, is told in shares of its rounded size: that is the
definition, so it is taken from `shelf`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudless.core.model import (
    COST_LABEL,
    NETWORK_PENALTY_LABEL,
    NodeInfo,
    NodeOperator,
    NodeTerm,
    Resources,
    SchedulerRecord,
    SpreadTopology,
    TaintEffect,
    Topology,
    WorkloadTerm,
)
from cloudless.core.scheduling.shelf import WHOLE, share, size_of
from cloudless.core.state import Node
from cloudless.testing.placement_rules import Standing, covers

TOLERANCE = 1e-3
"""Losses are added up in whole millionths of each weight; weights are 50 here, and there are seven."""


@dataclass(frozen=True, slots=True)
class Suits:
    """How badly a node suits a task: the least is best. `left` is what stays free, in shares."""

    avoided: bool
    domain: int
    node: int
    loss: float
    left: int

    def is_worse_than(self, other: Suits, emptiest_first: bool) -> bool:
        """Return whether the other node had to be taken before this one."""
        mine, others = (self.avoided, self.domain, self.node), (other.avoided, other.domain, other.node)
        if mine != others:
            return mine > others
        if abs(self.loss - other.loss) > TOLERANCE:
            return self.loss > other.loss
        if self.loss != other.loss or self.left == other.left:
            return False
        return (self.left < other.left) is emptiest_first


def judge_node(
    task: Standing, node_id: str, nodes: Mapping[str, Node], others: Sequence[Standing], wishes: SchedulerRecord
) -> Suits:
    """Return how well a node suits the next task of a workload beside `others`."""
    node, own = nodes[node_id], [other for other in others if other.workload == task.workload and other.staying]
    info = _info(node)
    left_of = info.capacity
    for other in others:
        left_of -= other.requests if other.node_id == node_id else Resources()
    size = size_of(info.capacity)
    left = share(left_of, size) - share(task.requests, size)
    spread = task.placement.spread_topology
    loss = wishes.balance * (1 - left / WHOLE / 2) if wishes.balance else wishes.pack * left / WHOLE / 2
    most = max(_label(other, COST_LABEL) for other in nodes.values())
    loss += wishes.cost * (_label(node, COST_LABEL) / most if most else 0)
    loss += wishes.network * _label(node, NETWORK_PENALTY_LABEL)
    loss += wishes.reliability * (1 - (round(node.status.reliability * 20) / 20 if node.status else 1))
    loss += wishes.affinity * _missed(task, node, nodes, others) + wishes.locality * _distance(node, nodes, own)
    return Suits(
        avoided=any(
            taint.effect is TaintEffect.PREFER_NO_SCHEDULE
            and not any(covers(t, taint.key, taint.value, taint.effect) for t in task.placement.tolerations)
            for taint in node.spec.taints
        ),
        domain=sum(
            1
            for other in own
            if (spread is SpreadTopology.ZONE and _zone(nodes[other.node_id]) == _zone(node))
            or (spread is SpreadTopology.REGION and _info(nodes[other.node_id]).region == info.region)
        ),
        node=sum(1 for other in own if other.node_id == node_id) if spread is not SpreadTopology.NONE else 0,
        loss=loss,
        left=left,
    )


def _info(node: Node) -> NodeInfo:
    assert node.info is not None
    return node.info


def _zone(node: Node) -> tuple[str, str]:
    return _info(node).region, _info(node).zone


def _label(node: Node, key: str) -> float:
    return float(node.labels.get(key, 0))


def _missed(task: Standing, node: Node, nodes: Mapping[str, Node], others: Sequence[Standing]) -> float:
    """Return the share of what is preferred, by weight, that the node does not keep."""
    where = task.placement
    kept = [(term.weight, _holds(term, node.labels)) for term in where.node_affinity]
    staying = [other for other in others if other.staying]
    kept += [(term.weight, _is_near(task, term, node, nodes, staying)) for term in where.workload_affinity]
    kept += [(term.weight, not _is_near(task, term, node, nodes, others)) for term in where.workload_anti_affinity]
    total = sum(weight for weight, _ in kept)
    return sum(weight for weight, holds in kept if not holds) / total if total else 0.0


def _holds(term: NodeTerm, labels: Mapping[str, str]) -> bool:
    match term.operator:
        case NodeOperator.EXISTS:
            return term.key in labels
        case NodeOperator.DOES_NOT_EXIST:
            return term.key not in labels
        case NodeOperator.IN:
            return labels.get(term.key) in term.values
        case NodeOperator.NOT_IN:
            return labels.get(term.key) not in term.values


def _is_near(
    task: Standing, term: WorkloadTerm, node: Node, nodes: Mapping[str, Node], others: Sequence[Standing]
) -> bool:
    meant = [
        other
        for other in others
        if (other.workload == term.workload if term.workload else term.labels.items() <= other.labels.items())
    ]
    match term.topology:
        case Topology.NODE:
            return any(other.node_id == node.id for other in meant)
        case Topology.ZONE:
            return any(_zone(nodes[other.node_id]) == _zone(node) for other in meant)
        case Topology.REGION:
            return any(_info(nodes[other.node_id]).region == _info(node).region for other in meant)


def _distance(node: Node, nodes: Mapping[str, Node], own: Sequence[Standing]) -> float:
    """Return how far a node is from the workload's tasks: 0 in the zone of one, a half in its region, else 1."""
    if not own or any(_zone(nodes[other.node_id]) == _zone(node) for other in own):
        return 0.0
    return 0.5 if any(_info(nodes[other.node_id]).region == _info(node).region for other in own) else 1.0
