"""Find a node for each ask: filter, rank, reserve, next.

Asks that differ only in their seed are placed as a group, those of the highest priority first. A group costs one
look at each site and shelf, and a task O(log nodes): only the chosen node's rank can change, so a heap per domain
gives the next one. Domains are as fine as what the task wants of them: one for all nodes, regions, or zones.
Within a group ties are broken with the first ask's seed. The node chosen is the one that a look at all nodes
would have found, task by task; `tests/properties` compares the two.

Guarantee: no node is given more than it has free, and no filter is violated, by all placements of one
scratch view together. An ask that does not fit does not hinder the ones after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from cloudless.core.model import SpreadTopology, Topology
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.diagnosis import Diagnosis, diagnose
from cloudless.core.scheduling.filters import find_obstacle, find_site_obstacle, may_take
from cloudless.core.scheduling.neighbours import Neighbours
from cloudless.core.scheduling.scorers import Rank, Scorer
from cloudless.core.scheduling.scratch import Room, Scratch
from cloudless.core.scheduling.site import Places, Site, places_of
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
    """Place the asks, reserving in `scratch`; return one outcome for each, in their order.

    Higher priorities are served first, and asks of one priority in their order.
    """
    scratch = scratch or Scratch(view)
    scratch.distinguish(asks)
    outcomes: dict[int, Placed | Unplaced] = {}
    for indexes in sorted(_group(asks), key=lambda indexes: -asks[indexes[0]].priority):
        outcomes.update(_place_group([(index, asks[index]) for index in indexes], scratch))
    return tuple(outcomes[index] for index in range(len(asks)))


def _group(asks: Sequence[Ask]) -> list[list[int]]:
    """Return the places of equal asks together."""
    groups: dict[Hashable, list[int]] = {}
    group: list[int] = []
    for index, ask in enumerate(asks):
        # Asks of one workload come one after the other and share their parts: a signature costs more than this look.
        if not index or not ask.is_like(asks[index - 1]):
            group = groups.setdefault(ask.signature, [])
        group.append(index)
    return list(groups.values())


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


@dataclass(slots=True)
class _Domain:
    """Nodes among which only a node's own rank decides; the heap has no room that may not take the next task.

    `key` orders domains by the best node of each.
    """

    name: str
    places: Places
    spread: str
    heap: list[_Entry] = field(default_factory=list)
    key: tuple[int | str, ...] = ()


_KEY = attrgetter("key")


class _Candidates:
    """The nodes that may run the tasks of one signature, best first within each domain.

    Every domain has a heap of ranked rooms. A shelf is in the order of its rooms' ranks, save those that
    differ from the others by what tasks they hold, or are to be avoided. So these are ranked one by one, and of the
    others only the best of each shelf, which the next one follows when it is taken.
    """

    def __init__(self, ask: Ask, scratch: Scratch) -> None:
        self._ask = ask
        self._scratch = scratch
        self._neighbours = scratch.neighbours_of(ask)
        self._wide = Neighbours(tuple(bond for bond in self._neighbours.required if bond.topology is not Topology.NODE))
        self._scorer = Scorer(ask, scratch, self._neighbours)
        self._spread = ask.placement.spread_topology
        self._held = self._count_domains() if self._spread in _DOMAIN_SPREADS else {}
        self._finest = self._find_finest()
        self._moving = bool(self._wide.required or self._scorer.topologies)
        self._domains: dict[str, _Domain] = {}
        self._fill()

    def take(self) -> Room | None:
        """Reserve the best node's room and return it, None if nothing fits any more."""
        if not self._domains:
            return None
        domain = min(self._domains.values(), key=_KEY)
        loose_ends = self._neighbours.loose_ends if self._neighbours.required else 0
        _, _, room, followers = heapq.heappop(domain.heap)
        if followers is not None:
            self._push_next(domain.heap, followers)
        self._scratch.reserve(self._ask, room)
        self._scorer.note(room)
        self._held[domain.spread] = self._held.get(domain.spread, 0) + 1
        if loose_ends and self._neighbours.loose_ends != loose_ends:
            self._fill()
            return room
        if may_take(self._ask, room, self._neighbours):
            self._push(domain.heap, room)
        self._order(self._domains.values() if self._moving else [domain])
        return room

    def _order(self, domains: Iterable[_Domain]) -> None:
        """Find the keys of domains anew, and forget those that have no node left."""
        for domain in list(domains):
            if not domain.heap or (self._wide.required and self._wide.find_broken(domain.places) is not None):
                del self._domains[domain.name]
                continue
            (avoided, count, loss, left, distance), node_id, *_ = domain.heap[0]
            loss += self._scorer.domain_loss(domain.places)
            domain.key = avoided, self._held.get(domain.spread, 0), count, loss, left, distance, node_id

    def _fill(self) -> None:
        """Rank all nodes that may run a task now."""
        self._domains = {}
        ask, neighbours = self._ask, self._neighbours
        apart = self._scorer.nodes_apart
        only = self._neighbours.only_nodes
        for site, shelves in self._scratch.sites.items():
            if find_site_obstacle(self._ask, site) is None and not self._is_barred(site):
                domain = self._domain_of(site)
                for shelf in shelves if only is None else ():
                    walk = shelf.walk(
                        self._ask.requests, self._scorer.start, emptiest_first=self._scorer.emptiest_first
                    )
                    fit = (room for room in walk if room.node.id not in apart and may_take(ask, room, neighbours))
                    self._push_next(domain.heap, fit)
        for node_id in sorted(apart if only is None else only):
            room = self._scratch.rooms.get(node_id)
            if room is not None and find_obstacle(self._ask, room, self._neighbours) is None:
                self._push(self._domain_of(room.shelf.site).heap, room)
        self._order(self._domains.values())

    def _is_barred(self, site: Site) -> bool:
        """Return whether what a task wants of others keeps it out of the site's zone or region."""
        return bool(self._wide.required) and self._wide.find_broken(places_of("", site)) is not None

    def _push_next(self, heap: list[_Entry], rooms: Iterator[Room]) -> None:
        room = next(rooms, None)
        if room is not None:
            self._push(heap, room, rooms)

    def _push(self, heap: list[_Entry], room: Room, followers: Iterator[Room] | None = None) -> None:
        heapq.heappush(heap, (self._scorer.rank(room), room.node.id, room, followers))

    def _domain_of(self, site: Site) -> _Domain:
        places = places_of("", site)
        name = "" if self._finest is None else places[1] if self._finest is Topology.ZONE else places[2]
        held = self._domains.get(name)
        if held is None:
            held = self._domains[name] = _Domain(name, places, spread_domain(self._spread, site))
        return held

    def _find_finest(self) -> Topology | None:
        """Return what makes a domain: the finest that anything depends on, None if nothing does."""
        if self._spread is SpreadTopology.ZONE:
            return Topology.ZONE
        wanted = {bond.topology for bond in self._wide.required} | self._scorer.topologies
        if Topology.ZONE in wanted:
            return Topology.ZONE
        return Topology.REGION if Topology.REGION in wanted or self._spread is SpreadTopology.REGION else None

    def _count_domains(self) -> dict[str, int]:
        held: dict[str, int] = {}
        for node_id, count in self._scratch.counts(self._ask.spread_key).items():
            room = self._scratch.rooms.get(node_id)
            if room is not None:
                domain = spread_domain(self._spread, room.shelf.site)
                held[domain] = held.get(domain, 0) + count
        return held


_DOMAIN_SPREADS = frozenset({SpreadTopology.ZONE, SpreadTopology.REGION})


def spread_domain(spread: SpreadTopology, site: Site) -> str:
    """Return the domain whose tasks are counted when spreading; nodes themselves are ranked within it."""
    match spread:
        case SpreadTopology.ZONE:
            return places_of("", site)[1]
        case SpreadTopology.REGION:
            return site.region
        case _:
            return ""
