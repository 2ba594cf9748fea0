"""The scheduler as one would explain it: for each task look at every node, keep those no filter refuses, take the best.

It shares the filters and the rank with the real one, and none of its shortcuts: no sites, shelves or heaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from cloudless.core.scheduling import Ask, Placed, Room, Scratch, Unplaced
from cloudless.core.scheduling.filters import ROOM_FILTERS, SITE_FILTERS, Obstacle
from cloudless.core.scheduling.scorers import Rank, rank, topology_domain
from cloudless.core.scheduling.shelf import ring_distance, ring_point

Refusal = tuple[Ask, int, Counter[str]]


def place_plainly(asks: Sequence[Ask], scratch: Scratch) -> list[Placed | Refusal]:
    """Return the node of each ask, or how many nodes there are and how many each obstacle's code rules out."""
    groups: dict[Hashable, list[int]] = {}
    for index, ask in enumerate(asks):
        groups.setdefault(ask.signature, []).append(index)
    outcomes: dict[int, Placed | Refusal] = {}
    for indexes in groups.values():
        start = ring_point(asks[indexes[0]].seed)
        for index in indexes:
            outcomes[index] = _place_one(asks[index], start, scratch)
    return [outcomes[index] for index in range(len(asks))]


def summarise(outcome: Placed | Unplaced) -> Placed | Refusal:
    """Return a real outcome in the shape of a plain one."""
    if isinstance(outcome, Placed):
        return outcome
    counts: Counter[str] = Counter()
    for code, (_, count) in zip(outcome.diagnosis.codes, outcome.diagnosis.reasons, strict=True):
        counts[code] += count
    return outcome.ask, outcome.diagnosis.nodes_total, counts


def _place_one(ask: Ask, start: int, scratch: Scratch) -> Placed | Refusal:
    obstacles = {node_id: _first_obstacle(ask, room) for node_id, room in scratch.rooms.items()}
    fitting = [scratch.rooms[node_id] for node_id, obstacle in obstacles.items() if obstacle is None]
    if not fitting:
        return ask, len(obstacles), Counter(o.code for o in obstacles.values() if o is not None)
    best = min(fitting, key=lambda room: _order(ask, room, start, scratch))
    scratch.reserve(ask, best)
    return Placed(ask, best.node.id)


def _first_obstacle(ask: Ask, room: Room) -> Obstacle | None:
    found = [check(ask, room.shelf.site) for check in SITE_FILTERS] + [check(ask, room) for check in ROOM_FILTERS]
    return next((obstacle for obstacle in found if obstacle is not None), None)


def _order(ask: Ask, room: Room, start: int, scratch: Scratch) -> tuple[int, int, str, Rank, str]:
    topology = ask.placement.spread_topology
    domain = topology_domain(topology, room.shelf.site)
    counts = scratch.counts(ask.spread_key)
    held = sum(
        count
        for node_id, count in counts.items()
        if node_id in scratch.rooms and topology_domain(topology, scratch.rooms[node_id].shelf.site) == domain
    )
    own = counts.get(room.node.id, 0)
    return held, ring_distance(start, ring_point(domain)), domain, rank(ask, room, own, start), room.node.id
