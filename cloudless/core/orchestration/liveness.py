"""Decide which nodes count as reachable, from how long each has been silent.

::

    status         heard of within the timeout   silent for the timeout   never heard of by this leader
    ─────────────  ────────────────────────────  ───────────────────────  ─────────────────────────────
    none yet       REACHABLE                     UNREACHABLE              UNREACHABLE after the timeout
    REACHABLE      (stays)                       UNREACHABLE              UNREACHABLE after the timeout
    UNREACHABLE    REACHABLE                     (stays)                  (stays)

A new leader has heard of nobody at first. It gives every node a whole timeout, counted from when it
began to listen, before it calls a node unreachable, and calls none reachable that it has not heard of:
taking over flaps nothing. Only changes are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from cloudless.core import keys
from cloudless.core.model import NodeStatus, Reachability
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import Node, View


class LivenessPlan(NamedTuple):
    """Status changes, and the seconds until a node that stays silent becomes unreachable."""

    changes: tuple[Change, ...] = ()
    next_deadline_s: float | None = None


def plan_liveness(
    view: View,
    silent_s: Mapping[str, float],
    now_ms: int,
    term: int,
    timeout_s: float,
    listening_s: float = 0.0,
) -> LivenessPlan:
    """Plan the status of every node that has told what it is.

    `silent_s` is how long each node has been silent, for those heard of; `listening_s` how long this
    leader has been listening, which stands in for the others.
    """
    changes: list[Change] = []
    deadlines: list[float] = []
    for node_id in sorted(view.nodes):
        node = view.nodes[node_id]
        if node.info is None:
            continue
        silence_s = max(0.0, silent_s.get(node_id, listening_s))
        found = _find_reachability(node, silence_s, timeout_s, heard=node_id in silent_s)
        if found is not Reachability.UNREACHABLE and silence_s < timeout_s:
            deadlines.append(timeout_s - silence_s)
        if found is not None and (node.status is None or node.status.reachability is not found):
            reason = "heard of" if found is Reachability.REACHABLE else f"silent for {silence_s:.1f} s"
            held = node.status or NodeStatus(reachability=found)
            status = replace(held, reachability=found, since_ms=now_ms, reason=reason, term=term)
            changes.append(_change_status(node, status))
    return LivenessPlan(tuple(changes), min(deadlines, default=None))


def _find_reachability(node: Node, silence_s: float, timeout_s: float, *, heard: bool) -> Reachability | None:
    if silence_s >= timeout_s:
        return Reachability.UNREACHABLE
    if heard:
        return Reachability.REACHABLE
    return node.status.reachability if node.status else None


def _change_status(node: Node, status: NodeStatus) -> Change:
    key = keys.node_status(node.id)
    return Change(
        puts=(PutRecord(key, status),),
        preconditions=(
            Precondition(key, node.status_revision),
            Precondition(keys.node_info(node.id), node.info_revision),
        ),
        reason=f"node {node.id} is {status.reachability.value.lower()}: {status.reason}",
    )
