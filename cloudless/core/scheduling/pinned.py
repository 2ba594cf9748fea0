"""Placing a task on a node that is given: for workloads that run one task on each node.

What keeps tasks off a node for good is told from what passes: a node without room, or out of reach, is still one the
workload belongs on.
"""

from __future__ import annotations

from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.diagnosis import Diagnosis
from cloudless.core.scheduling.filters import Obstacle, find_obstacle, find_site_obstacle
from cloudless.core.scheduling.placement import Placed, Unplaced
from cloudless.core.scheduling.scratch import Scratch
from cloudless.core.scheduling.site import label_keys_of, site_of
from cloudless.core.state.view import Node

PASSING = frozenset({"offline", "enrolling", "cordoned", "not-starting", "taint"})
"""Codes of obstacles that say nothing against tasks on the node already; NO_EXECUTE makes them leave anyhow."""


def place_on(ask: Ask, node_id: str, scratch: Scratch) -> Placed | Unplaced:
    """Place the ask on this node and no other."""
    scratch.distinguish([ask])
    room = scratch.rooms[node_id]
    obstacle = find_obstacle(ask, room, scratch.neighbours_of(ask))
    if obstacle is not None:
        return Unplaced(ask, Diagnosis(1, ((f"{obstacle.one} ({node_id})", 1),), (obstacle.code,)))
    scratch.reserve(ask, room)
    return Placed(ask, node_id)


def find_standing_obstacle(ask: Ask, node: Node) -> Obstacle | None:
    """Return what keeps such tasks off the node whatever is on it; None if they belong there."""
    assert node.info is not None
    named = tuple(sorted(label_keys_of(ask.placement)))
    return find_site_obstacle(ask, site_of(node, node.info, node.labels, named))
