"""The scheduler as one would explain it: for each task look at every node, keep those no filter refuses, take the best.

It shares the filters and the rank with the real one, and none of its shortcuts: no shelves, domains or heaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from cloudless.core.scheduling import Ask, Placed, Room, Scratch, Unplaced
from cloudless.core.scheduling.filters import find_obstacle
from cloudless.core.scheduling.placement import spread_domain
from cloudless.core.scheduling.scorers import Scorer

Refusal = tuple[Ask, int, Counter[str]]


def place_plainly(asks: Sequence[Ask], scratch: Scratch) -> list[Placed | Refusal]:
    """Return the node of each ask, or how many nodes there are and how many each obstacle's code rules out."""
    scratch.distinguish(asks)
    groups: dict[Hashable, list[int]] = {}
    for index, ask in enumerate(asks):
        groups.setdefault(ask.signature, []).append(index)
    outcomes: dict[int, Placed | Refusal] = {}
    for indexes in sorted(groups.values(), key=lambda indexes: -asks[indexes[0]].priority):
        for index in indexes:
            outcomes[index] = _place_one(asks[index], asks[indexes[0]].seed, scratch)
    return [outcomes[index] for index in range(len(asks))]


def summarise(outcome: Placed | Unplaced) -> Placed | Refusal:
    """Return a real outcome in the shape of a plain one."""
    if isinstance(outcome, Placed):
        return outcome
    counts: Counter[str] = Counter()
    for code, (_, count) in zip(outcome.diagnosis.codes, outcome.diagnosis.reasons, strict=True):
        counts[code] += count
    return outcome.ask, outcome.diagnosis.nodes_total, counts


def _place_one(ask: Ask, first_seed: str, scratch: Scratch) -> Placed | Refusal:
    neighbours = scratch.neighbours_of(ask)
    obstacles = {node_id: find_obstacle(ask, room, neighbours) for node_id, room in scratch.rooms.items()}
    fitting = [scratch.rooms[node_id] for node_id, obstacle in obstacles.items() if obstacle is None]
    if not fitting:
        return ask, len(obstacles), Counter(o.code for o in obstacles.values() if o is not None)
    like_the_first = Ask(**{name: getattr(ask, name) for name in Ask.__slots__} | {"seed": first_seed})
    scorer = Scorer(like_the_first, scratch, neighbours)
    best = min(fitting, key=lambda room: _order(ask, room, scorer, scratch))
    scratch.reserve(ask, best)
    return Placed(ask, best.node.id)


def _order(ask: Ask, room: Room, scorer: Scorer, scratch: Scratch) -> tuple[int | str, ...]:
    topology = ask.placement.spread_topology
    domain = spread_domain(topology, room.shelf.site)
    counts = scratch.counts(ask.spread_key) if domain else {}
    held = sum(
        count
        for node_id, count in counts.items()
        if node_id in scratch.rooms and spread_domain(topology, scratch.rooms[node_id].shelf.site) == domain
    )
    avoided, count, loss, left, distance = scorer.rank(room)
    return avoided, held, count, loss + scorer.domain_loss(room.places), left, distance, room.node.id
