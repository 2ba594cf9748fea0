"""Find a node for each ask: filter, rank, reserve, next.

Asks that differ only in their seed are placed as a group. A group costs one look at each site and shelf, and
a task O(log nodes): only the chosen node's rank can change, so a heap per topology domain gives the next one.
Within a group ties are broken with the first ask's seed. The node chosen is the one that a look at all nodes
would have found, task by task; `tests/properties` compares the two.

Guarantee: no node is given more than it has free, and no filter is violated, by all placements of one
scratch view together. An ask that does not fit does not hinder the ones after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from cloudless.core.model import SpreadTopology
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.diagnosis import Diagnosis, diagnose
from cloudless.core.scheduling.filters import find_obstacle, find_site_obstacle, may_take
from cloudless.core.scheduling.scorers import Rank, rank, topology_domain
from cloudless.core.scheduling.scratch import Room, Scratch
from cloudless.core.scheduling.shelf import ring_distance, ring_point
from cloudless.core.state.view import View

_Entry = tuple[Rank, str, Room, Iterator[Room] | None]


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
            diagnosis = diagnosis or diagnose(ask, scratch)
            outcomes[index] = Unplaced(ask, diagnosis)
    return outcomes


class _Candidates:
    """The nodes that may run the tasks of one signature, best first within each topology domain.

    Every domain has a heap of ranked rooms. A shelf is in the order of its rooms' ranks, save those that hold
    tasks of the workload or are to be avoided. So these are ranked one by one, and of the others only the best of
    each shelf, which the next one follows when it is taken.
    """

    def __init__(self, ask: Ask, scratch: Scratch) -> None:
        self._ask = ask
        self._scratch = scratch
        self._topology = ask.placement.spread_topology
        self._start = ring_point(ask.seed)
        self._counts = scratch.counts(ask.spread_key)
        self._heaps: dict[str, list[_Entry]] = {}
        self._apart = set(ask.avoid)
        if self._topology is not SpreadTopology.NONE:
            self._apart.update(self._counts)
        self._add_shelves()
        self._add_apart()
        held = self._count_domains()
        self._domains = [
            (held.get(domain, 0), ring_distance(self._start, ring_point(domain)), domain) for domain in self._heaps
        ]
        heapq.heapify(self._domains)

    def take(self) -> Room | None:
        """Reserve the best node's room and return it, None if nothing fits any more."""
        while self._domains:
            count, tie, domain = self._domains[0]
            room = self._take_from(self._heaps[domain])
            if room is not None:
                heapq.heapreplace(self._domains, (count + 1, tie, domain))
                return room
            heapq.heappop(self._domains)
        return None

    def _take_from(self, heap: list[_Entry]) -> Room | None:
        while heap:
            _, _, room, followers = heapq.heappop(heap)
            if followers is not None:
                self._push_next(heap, followers)
            if may_take(self._ask, room):
                self._scratch.reserve(self._ask, room)
                self._push(heap, room)
                return room
        return None

    def _add_shelves(self) -> None:
        ask, apart = self._ask, self._apart
        for site, shelves in self._scratch.sites.items():
            if find_site_obstacle(ask, site) is None:
                heap = self._heaps.setdefault(topology_domain(self._topology, site), [])
                for shelf in shelves:
                    walk = shelf.walk(ask.requests, self._start)
                    self._push_next(heap, (room for room in walk if room.node.id not in apart and may_take(ask, room)))

    def _add_apart(self) -> None:
        for node_id in sorted(self._apart):
            room = self._scratch.rooms.get(node_id)
            if room is not None and find_obstacle(self._ask, room) is None:
                self._push(self._heaps[topology_domain(self._topology, room.shelf.site)], room)

    def _push_next(self, heap: list[_Entry], rooms: Iterator[Room]) -> None:
        room = next(rooms, None)
        if room is not None:
            self._push(heap, room, rooms)

    def _push(self, heap: list[_Entry], room: Room, followers: Iterator[Room] | None = None) -> None:
        node_id = room.node.id
        ranked = rank(self._ask, room, self._counts.get(node_id, 0), self._start)
        heapq.heappush(heap, (ranked, node_id, room, followers))

    def _count_domains(self) -> dict[str, int]:
        held: dict[str, int] = {}
        for node_id, count in self._counts.items():
            room = self._scratch.rooms.get(node_id)
            if room is not None:
                domain = topology_domain(self._topology, room.shelf.site)
                held[domain] = held.get(domain, 0) + count
        return held
