"""How long a node has been away, as far as its tasks are concerned."""

from __future__ import annotations

from collections.abc import Mapping

from cloudless.core import keys
from cloudless.core.state.view import View

GONE_S = float("inf")
"""Absence of a node that was removed: it will not come back under this registration."""


def absence_s(view: View, node_id: str, unreachable_s: Mapping[str, float]) -> float | None:
    """Return the seconds a node has been unreachable, None if it is reachable, `GONE_S` if it was removed.

    A node whose information this coordinator cannot read is not taken for removed.
    """
    node = view.nodes.get(node_id)
    if node is not None and node.reachable and node.info is not None:
        return None
    if (node is None or node.info is None) and keys.node_info(node_id) not in view.quarantined:
        return GONE_S
    if node is not None and node.reachable:
        return None
    return max(0.0, unreachable_s.get(node_id, 0.0))


def describe_absence(node_id: str, absent_s: float) -> str:
    """Return why a task of an absent node is given up."""
    if absent_s == GONE_S:
        return f"node {node_id} was removed"
    return f"node {node_id} unreachable for {absent_s:.0f} s"
