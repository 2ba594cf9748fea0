"""Where a task had better run, among the nodes where it may. Lower ranks are taken first.

Nodes to avoid come last: those the task failed on, and those with a taint that it does not tolerate and that would
rather have it elsewhere. Then, if spreading is asked for, the domain and then the node with the fewest tasks of the
workload. Then the least loss: each wish of `SchedulerRecord` says from 0 to a million how far a node is from what is
wished, and the losses add up by their weights. Among equals the fullest node (the emptiest, with `balance`), then the
next one in the ring from the seed's place on, so that equal nodes are not always taken in the order of their names.

A loss is the same for all nodes of a site (cost, network, reliability, preferred labels), of a domain (locality,
preferred neighbours in a zone or region), or it is a node's own (how full it is, preferred neighbours on it).
"""

from __future__ import annotations

from cloudless.core.model import SpreadTopology, Topology
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.neighbours import Bond, Neighbours
from cloudless.core.scheduling.node_terms import holds
from cloudless.core.scheduling.scratch import Room, Scratch
from cloudless.core.scheduling.shelf import Shelf, ring_distance, ring_point, share
from cloudless.core.scheduling.site import MILLION, Places
from cloudless.core.scheduling.taints import DISCOURAGING, find_intolerable

Rank = tuple[int, int, int, int, int]
"""Avoided, tasks of the workload on the node, loss, fullness, place in the ring."""


class Scorer:
    """Ranks nodes for the asks of one signature; ties are broken by the seed of the first one."""

    def __init__(self, ask: Ask, scratch: Scratch, neighbours: Neighbours) -> None:
        self._ask, self._weights = ask, scratch.settings
        self._cost_most = scratch.cost_most
        self.start = ring_point(ask.seed)
        self.emptiest_first = self._weights.balance > 0
        self._counts = scratch.counts(ask.spread_key)
        self._spread_nodes = ask.placement.spread_topology is not SpreadTopology.NONE
        self._avoid = frozenset(ask.avoid)
        terms = ask.placement.node_affinity
        self._terms_weight = sum(term.weight for term in terms) + sum(bond.weight for bond in neighbours.preferred)
        self._near = tuple(bond for bond in neighbours.preferred if bond.topology is Topology.NODE)
        self._wide = tuple(bond for bond in neighbours.preferred if bond.topology is not Topology.NODE)
        self._of_shelf: dict[Shelf, tuple[int, int, int]] = {}
        self._homes: set[str] = set()
        if self._weights.locality:
            for node_id in self._counts:
                self._settle(scratch.rooms.get(node_id))

    @property
    def topologies(self) -> frozenset[Topology]:
        """What `domain_loss` depends on."""
        wide = {bond.topology for bond in self._wide}
        return frozenset(wide | {Topology.ZONE} if self._weights.locality else wide)

    @property
    def nodes_apart(self) -> frozenset[str]:
        """The nodes that differ from the others of their shelf."""
        apart = set(self._avoid)
        if self._spread_nodes:
            apart.update(self._counts)
        for bond in self._near:
            apart.update(bond.tally.counts)
        return frozenset(apart)

    def rank(self, room: Room) -> Rank:
        """Return the sort key of a node among those of its domain."""
        avoided, loss, asked = self._of_shelf.get(room.shelf) or self._look_at(room.shelf)
        node_id = room.node.id
        left = room.free_share - asked
        if self.emptiest_first:
            loss += self._weights.balance * (MILLION - left // 2)
            left = -left
        else:
            loss += self._weights.pack * (left // 2)
        if self._near:
            loss += self._estrangement(self._near, room.places)
        if node_id in self._avoid:
            avoided += 1
        count = self._counts.get(node_id, 0) if self._spread_nodes else 0
        return avoided, count, loss, left, ring_distance(self.start, room.point)

    def note(self, room: Room) -> None:
        """Take into account that a task was placed in the room."""
        if self._weights.locality:
            self._settle(room)

    def domain_loss(self, places: Places) -> int:
        """Return the loss that all nodes of a domain share; it may change with every placement."""
        loss = self._estrangement(self._wide, places) if self._wide else 0
        if self._homes:
            loss += self._weights.locality * self._distance(places)
        return loss

    def _look_at(self, shelf: Shelf) -> tuple[int, int, int]:
        """Return what all nodes of a shelf share: whether they are avoided, their loss, the share that is asked."""
        site, weights, placement = shelf.site, self._weights, self._ask.placement
        loss = weights.network * site.penalty + weights.reliability * site.unreliability
        if site.cost:
            loss += weights.cost * (site.cost * MILLION // self._cost_most)
        if placement.node_affinity:
            missed = sum(t.weight for t in placement.node_affinity if t.weight and not holds(t, site.label(t.key)))
            loss += self._share_of_terms(missed)
        avoided = 1 if site.taints and find_intolerable(site.taints, placement.tolerations, DISCOURAGING) else 0
        self._of_shelf[shelf] = found = avoided, loss, share(self._ask.requests, shelf.size)
        return found

    def _estrangement(self, bonds: tuple[Bond, ...], places: Places) -> int:
        return self._share_of_terms(sum(bond.weight for bond in bonds if bond.tally.near(places) is bond.against))

    def _share_of_terms(self, missed: int) -> int:
        return self._weights.affinity * (missed * MILLION // self._terms_weight) if missed else 0

    def _distance(self, places: Places) -> int:
        """Return how far a domain is from the workload's tasks: 0 the same zone, half a million the same region."""
        _, zone, region = places
        if zone in self._homes:
            return 0
        return MILLION // 2 if region in self._homes else MILLION

    def _settle(self, room: Room | None) -> None:
        if room is not None:
            self._homes.update(room.places[1:])
