"""Find a node for each ask: filter, rank, reserve, next.

Asks that differ only in their seed are placed as a group. The filters run once per node and group;
after that only the chosen node's rank can change, so a heap per topology domain gives the next node in
O(log nodes). Within a group ties are broken with the first ask's seed.

Guarantee: no node is given more than it has free, and no filter is violated, by all placements of one
scratch view together. An ask that does not fit does not hinder the ones after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.diagnosis import Diagnosis, diagnose
from cloudless.core.scheduling.filters import find_obstacle, may_still_take
from cloudless.core.scheduling.scorers import Rank, rank, tie_break, topology_domain
from cloudless.core.scheduling.scratch import Room, Scratch
from cloudless.core.state.view import View


@dataclass(frozen=True, slots=True)
class Placed:
    ask: Ask
    node_id: str


@dataclass(frozen=True, slots=True)
class Unplaced:
    ask: Ask
    diagnosis: Diagnosis


def place(asks: Sequence[Ask], view: View, scratch: Scratch | None = None) -> tuple[Placed | Unplaced, ...]:
    """Place the asks in their order, reserving in `scratch`; return one outcome for each, in the same order."""
    scratch = scratch or Scratch(view)
    groups: dict[Hashable, list[int]] = {}
    for index, ask in enumerate(asks):
        groups.setdefault(ask.signature, []).append(index)
    outcomes: dict[int, Placed | Unplaced] = {}
    for indexes in groups.values():
        outcomes.update(_place_group([(index, asks[index]) for index in indexes], scratch))
    return tuple(outcomes[index] for index in range(len(asks)))


def _place_group(group: Sequence[tuple[int, Ask]], scratch: Scratch) -> dict[int, Placed | Unplaced]:
    candidates = _Candidates(group[0][1], scratch)
    outcomes: dict[int, Placed | Unplaced] = {}
    diagnosis: Diagnosis | None = None
    for index, ask in group:
        room = candidates.take()
        if room is not None:
            outcomes[index] = Placed(ask, room.node.id)
        else:
            # What did not fit once does not fit again: nothing is given back within a plan.
            diagnosis = diagnosis or diagnose(ask, scratch.rooms.values())
            outcomes[index] = Unplaced(ask, diagnosis)
    return outcomes


class _Candidates:
    """The nodes that pass all filters for one signature, best first within each topology domain."""

    def __init__(self, ask: Ask, scratch: Scratch) -> None:
        self._ask = ask
        self._scratch = scratch
        self._counts = scratch.counts(ask.spread_key)
        self._nodes: dict[str, list[tuple[Rank, str]]] = {}
        topology = ask.placement.spread_topology
        for node_id, room in scratch.rooms.items():
            if find_obstacle(ask, room) is None:
                entry = (rank(ask, room, self._counts.get(node_id, 0), tie_break(ask.seed, node_id)), node_id)
                self._nodes.setdefault(topology_domain(topology, room), []).append(entry)
        held = self._count_domains()
        self._domains = [(held.get(domain, 0), tie_break(ask.seed, domain), domain) for domain in self._nodes]
        heapq.heapify(self._domains)
        for nodes in self._nodes.values():
            heapq.heapify(nodes)

    def take(self) -> Room | None:
        """Reserve the best node's room and return it, None if nothing fits any more."""
        while self._domains:
            count, tie, domain = self._domains[0]
            room = self._take_from(self._nodes[domain])
            if room is not None:
                heapq.heapreplace(self._domains, (count + 1, tie, domain))
                return room
            heapq.heappop(self._domains)
        return None

    def _take_from(self, nodes: list[tuple[Rank, str]]) -> Room | None:
        while nodes:
            (_, _, _, tie), node_id = nodes[0]
            room = self._scratch.rooms[node_id]
            if may_still_take(self._ask, room):
                self._scratch.reserve(self._ask, room)
                heapq.heapreplace(nodes, (rank(self._ask, room, self._counts[node_id], tie), node_id))
                return room
            heapq.heappop(nodes)
        return None

    def _count_domains(self) -> dict[str, int]:
        held: dict[str, int] = {}
        topology = self._ask.placement.spread_topology
        for node_id, count in self._counts.items():
            room = self._scratch.rooms.get(node_id)
            if room is not None:
                domain = topology_domain(topology, room)
                held[domain] = held.get(domain, 0) + count
        return held
