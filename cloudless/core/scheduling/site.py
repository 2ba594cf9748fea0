"""What many nodes have in common, so that it is looked at once for all of them.

A cluster has thousands of nodes and few kinds of them. Nodes of one site agree in everything that no
placement changes and that filters and scorers ask for; those look at a site, not at its nodes. Of a node's labels
only those count that some ask names (see `Scratch.distinguish`): no two nodes have the same host name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from cloudless.core.abilities import START
from cloudless.core.model import COST_LABEL, NETWORK_PENALTY_LABEL, NodeInfo, Placement, Taint
from cloudless.core.state.view import Node

MILLION = 1_000_000
MEASURES: Mapping[str, float] = {COST_LABEL: 1e9, NETWORK_PENALTY_LABEL: 1.0}
"""Labels that are numbers, with the highest of each."""
_RELIABILITY_STEPS = 20
"""Reliability counts in twentieths: it differs a little from node to node, and each difference makes a site."""

Places = tuple[str, str, str]
"""A node's id, its zone within its region, and its region: indexed by `topology_index`."""


class Site(NamedTuple):
    """The facts that nodes of one site share. `enrolled` is whether the node was ever reached.

    `labels` has the values of the labels that asks name, None for one that is absent. `cost` and `penalty` are in
    millionths, `unreliability` is from 0 to a million.
    """

    enrolled: bool
    reachable: bool
    draining: bool
    cordoned: bool
    executors: tuple[str, ...]
    capabilities: tuple[str, ...]
    starts_tasks: bool
    region: str
    zone: str
    taints: tuple[Taint, ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    cost: int = 0
    penalty: int = 0
    unreliability: int = 0

    def label(self, key: str) -> str | None:
        """Return a label's value. Raises KeyError for one that nobody distinguished nodes by."""
        return dict(self.labels)[key]


def site_of(node: Node, info: NodeInfo, labels: Mapping[str, str], label_keys: tuple[str, ...]) -> Site:
    """Return a node's site; `labels` are all of its labels, `label_keys` those that count."""
    spec = node.spec
    return Site(
        node.status is not None,
        node.reachable,
        spec.draining,
        spec.cordoned,
        info.executors,
        info.capabilities,
        START not in info.unable,
        info.region,
        info.zone,
        spec.taints,
        tuple((key, labels.get(key)) for key in label_keys) if label_keys else (),
        _measure(labels, COST_LABEL),
        _measure(labels, NETWORK_PENALTY_LABEL),
        _unreliability(node),
    )


def places_of(node_id: str, site: Site) -> Places:
    """Return within what a node is, from near to far. Zones of one name in two regions are two zones."""
    return node_id, f"{site.region}/{site.zone}", site.region


def label_keys_of(placement: Placement) -> frozenset[str]:
    """Return the labels of nodes that a placement names."""
    if not placement.node_selector and not placement.node_affinity:
        return frozenset()
    return frozenset(placement.node_selector) | {term.key for term in placement.node_affinity}


@lru_cache(maxsize=4_096)
def millionths(text: str, most: float) -> int | None:
    """Return a number from 0 to `most` in millionths, None if the text is no such number."""
    try:
        number = float(text)
    except ValueError:
        return None
    return round(number * MILLION) if 0.0 <= number <= most else None


def reliability_of(node: Node) -> float:
    """Return how reliable the node was, from 0 to 1; one that nothing is known of counts as reliable."""
    return float(getattr(node.status, "reliability", 1.0))


def _measure(labels: Mapping[str, str], key: str) -> int:
    """Return a label's number in millionths; one that cannot be read counts as 0: an agent may have said it."""
    return (millionths(labels[key], MEASURES[key]) or 0) if key in labels else 0


def _unreliability(node: Node) -> int:
    steps = round((1.0 - min(1.0, max(0.0, reliability_of(node)))) * _RELIABILITY_STEPS)
    return steps * MILLION // _RELIABILITY_STEPS
