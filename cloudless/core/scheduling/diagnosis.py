"""Why nothing fits, counted over all nodes, in words: every refusal explains itself."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from cloudless.core.model import Resources
from cloudless.core.quantity import format_cpu, format_mb
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.filters import Obstacle, find_obstacles, find_room_obstacle, find_site_obstacle
from cloudless.core.scheduling.neighbours import Neighbours
from cloudless.core.scheduling.scratch import Room, Scratch

NEAREST_MAX = 3


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How many nodes there are and how many each reason rules out, most frequent first.

    `codes` are the obstacles' stable names in the same order as `reasons`. `nearest` are the nodes with the least in
    the way and all of that, if the scratch view explains.
    """

    nodes_total: int
    reasons: tuple[tuple[str, int], ...]
    codes: tuple[str, ...] = ()
    nearest: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def text(self) -> str:
        """One line: `0 of 3 nodes fit: 1 is offline, 2 lack cpu (asks 500m, at most 200m free)`."""
        if not self.nodes_total:
            return "there is no node"
        nodes = "1 node fits" if self.nodes_total == 1 else f"{self.nodes_total} nodes fit"
        return f"0 of {nodes}: " + ", ".join(f"{count} {reason}" for reason, count in self.reasons)


def diagnose(ask: Ask, scratch: Scratch) -> Diagnosis:
    """Count what is in the way on each node; call it when no node fits."""
    scratch.distinguish([ask])
    neighbours = scratch.neighbours_of(ask)
    held: dict[Obstacle, list[Room]] = {}
    for site, shelves in scratch.sites.items():
        rooms = [room for shelf in shelves for room in shelf.rooms()]
        common = find_site_obstacle(ask, site)
        if common is not None:
            held.setdefault(common, []).extend(rooms)
            continue
        for room in rooms:
            obstacle = find_room_obstacle(ask, room, neighbours)
            if obstacle is not None:
                held.setdefault(obstacle, []).append(room)
    ranked = sorted(held.items(), key=lambda item: (len(item[1]), item[0].many))
    return Diagnosis(
        len(scratch.rooms),
        tuple((_words(ask, obstacle, blocked), len(blocked)) for obstacle, blocked in ranked),
        tuple(obstacle.code for obstacle, _ in ranked),
        _find_nearest(ask, scratch, neighbours) if scratch.explains else (),
    )


def _find_nearest(ask: Ask, scratch: Scratch, neighbours: Neighbours) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = ((find_obstacles(ask, room, neighbours), room) for room in scratch.rooms.values())
    nearest = heapq.nsmallest(NEAREST_MAX, found, key=lambda item: (len(item[0]), item[1].node.id))
    return tuple(
        (room.node.id, tuple(_words(ask, obstacle, [room]) for obstacle in obstacles)) for obstacles, room in nearest
    )


def _words(ask: Ask, obstacle: Obstacle, rooms: list[Room]) -> str:
    text = obstacle.one if len(rooms) == 1 else obstacle.many
    if not obstacle.lacking:
        return text
    details = (_shortage(name, ask.requests, [room.free for room in rooms]) for name in obstacle.lacking)
    return f"{text} ({', '.join(details)})"


def _shortage(name: str, asked: Resources, free: list[Resources]) -> str:
    match name:
        case "cpu":
            most = max(f.cpu_millicores for f in free)
            return f"asks {format_cpu(asked.cpu_millicores)}, at most {format_cpu(most)} free"
        case "memory":
            return f"asks {format_mb(asked.memory_mb)}, at most {format_mb(max(f.memory_mb for f in free))} free"
        case "storage":
            return f"asks {format_mb(asked.storage_mb)}, at most {format_mb(max(f.storage_mb for f in free))} free"
        case "bandwidth":
            return f"asks {asked.bandwidth_mbps} Mbps, at most {max(f.bandwidth_mbps for f in free)} Mbps free"
        case _:
            return f"asks {asked.gpus}, at most {max(f.gpus for f in free)} free"
