"""Where a task had better run, among the nodes where it may. Lower ranks are taken first.

Nodes to avoid come last. Then, if spreading is asked for, the node with the fewest tasks of the
workload; then the node that is fullest after the placement, which keeps large gaps open elsewhere;
then a hash of (seed, node), so that equal nodes are not always taken in the order of their names.
"""

from __future__ import annotations

import hashlib

from cloudless.core.model import SpreadTopology
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.scratch import Room

Rank = tuple[int, int, float, int]


def rank(ask: Ask, room: Room, count: int, tie: int) -> Rank:
    """Return the sort key of a node that holds `count` tasks of the workload."""
    avoided = 1 if room.node.id in ask.avoid else 0
    spread = 0 if ask.placement.spread_topology is SpreadTopology.NONE else count
    return avoided, spread, -packing(ask, room), tie


def packing(ask: Ask, room: Room) -> float:
    """Return how full the node is after the placement, 0..1: the mean of its cpu and memory in use."""
    capacity, free = room.info.capacity, room.free
    cpu = (
        1 - (free.cpu_millicores - ask.requests.cpu_millicores) / capacity.cpu_millicores
        if capacity.cpu_millicores
        else 1.0
    )
    memory = 1 - (free.memory_mb - ask.requests.memory_mb) / capacity.memory_mb if capacity.memory_mb else 1.0
    return (cpu + memory) / 2


def tie_break(seed: str, name: str) -> int:
    """Return a number that orders equal choices, the same on every coordinator."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest(), "big")


def topology_domain(topology: SpreadTopology, room: Room) -> str:
    """Return the domain whose tasks are counted first; nodes themselves are ranked within it."""
    match topology:
        case SpreadTopology.ZONE:
            return f"{room.info.region}/{room.info.zone}"
        case SpreadTopology.REGION:
            return room.info.region
        case _:
            return ""
