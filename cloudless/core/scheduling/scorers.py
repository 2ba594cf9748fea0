"""Where a task had better run, among the nodes where it may. Lower ranks are taken first.

Nodes to avoid come last. Then, if spreading is asked for, the node with the fewest tasks of the
workload; then the node that is fullest after the placement, which keeps large gaps open elsewhere;
then the next one in the ring from the seed's place on, so that equal nodes are not always taken in the
order of their names.
"""

from __future__ import annotations

from cloudless.core.model import SpreadTopology
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.scratch import Room
from cloudless.core.scheduling.shelf import ring_distance, share
from cloudless.core.scheduling.site import Site

Rank = tuple[int, int, int, int]


def rank(ask: Ask, room: Room, count: int, start: int) -> Rank:
    """Return the sort key of a node that holds `count` tasks of the workload; the seed is at `start` in the ring."""
    avoided = 1 if room.node.id in ask.avoid else 0
    spread = 0 if ask.placement.spread_topology is SpreadTopology.NONE else count
    return avoided, spread, left_share(ask, room), ring_distance(start, room.point)


def left_share(ask: Ask, room: Room) -> int:
    """Return the part of the node's cpu plus that of its memory that is left after the placement, in millionths."""
    return room.free_share - share(ask.requests, room.shelf.size)


def topology_domain(topology: SpreadTopology, site: Site) -> str:
    """Return the domain whose tasks are counted first; nodes themselves are ranked within it."""
    match topology:
        case SpreadTopology.ZONE:
            return f"{site.region}/{site.zone}"
        case SpreadTopology.REGION:
            return site.region
        case _:
            return ""
