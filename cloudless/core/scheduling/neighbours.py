"""Which tasks are near which node: what affinity and anti-affinity between workloads ask for.

A tally counts the tasks of a selection by node, zone or region. It is counted when first asked for, and follows the
reservations of the scratch view from then on. A task counts until it has ended, even if it was told to stop: it
still runs. Affinity counts only those that are to stay, so none that the plan at hand stops. Given up, and counted by
neither, is a task of a node that was removed, or that is unreachable for longer than its workload waits.

Anti-affinity holds both ways, as in Kubernetes: a task that wants no neighbour of some kind also keeps such
neighbours away that come after it. What a running task wants is in its workload as it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from cloudless.core.model import Topology, WorkloadTerm
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.site import Places
from cloudless.core.state.view import Task, View

TOPOLOGY_INDEX = {Topology.NODE: 0, Topology.ZONE: 1, Topology.REGION: 2}


class HasPlaces(Protocol):
    """A node's room, as far as it matters here."""

    places: Places


class Selection(NamedTuple):
    """Tasks of one namespace: of the workload named, or of those whose labels contain `labels`."""

    namespace: str
    workload: str
    labels: tuple[tuple[str, str], ...] = ()

    def holds(self, namespace: str, workload: str, labels: Mapping[str, str]) -> bool:
        if namespace != self.namespace:
            return False
        if self.workload:
            return workload == self.workload
        return all(labels.get(key) == value for key, value in self.labels)


def selection_of(namespace: str, term: WorkloadTerm) -> Selection:
    return Selection(namespace, term.workload, tuple(sorted(term.labels.items())))


@dataclass(slots=True)
class Tally:
    """How many tasks of a selection each place has; places without any are left out."""

    index: int
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, places: Places) -> None:
        place = places[self.index]
        self.counts[place] = self.counts.get(place, 0) + 1

    def drop(self, places: Places) -> None:
        place = places[self.index]
        left = self.counts.get(place, 0) - 1
        if left > 0:
            self.counts[place] = left
        else:
            self.counts.pop(place, None)

    def near(self, places: Places) -> bool:
        return places[self.index] in self.counts


@dataclass(frozen=True, slots=True)
class Bond:
    """One term and what it counts. `own`: the asking tasks are themselves of the selection.

    `keeper` is the workload whose anti-affinity it is, if it is not the asking one's.
    """

    topology: Topology
    selection: Selection
    tally: Tally
    own: bool = False
    weight: int = 0
    against: bool = False
    keeper: str = ""

    def allows(self, places: Places) -> bool:
        """Return whether a task may run there. The first of a workload that wants its own kind near may go anywhere."""
        if self.against:
            return not self.tally.near(places)
        return self.tally.near(places) or (self.own and not self.tally.counts)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What an ask wants of the tasks near a node: required bonds, and preferred ones."""

    required: tuple[Bond, ...] = ()
    preferred: tuple[Bond, ...] = ()

    def find_broken(self, places: Places) -> Bond | None:
        """Return the first required bond that rules the place out."""
        for bond in self.required:
            if not bond.allows(places):
                return bond
        return None

    def needs(self, namespace: str, workload: str, labels: Mapping[str, str]) -> bool:
        """Return whether a task must be near such ones as those of this workload."""
        return any(not bond.against and bond.selection.holds(namespace, workload, labels) for bond in self.required)

    @property
    def only_nodes(self) -> frozenset[str] | None:
        """The nodes that have the neighbours a task must have on its own node; None if any node may do."""
        needed = [
            frozenset(bond.tally.counts)
            for bond in self.required
            if not bond.against and bond.topology is Topology.NODE and (bond.tally.counts or not bond.own)
        ]
        return frozenset.intersection(*needed) if needed else None

    @property
    def loose_ends(self) -> int:
        """Count the bonds to their own kind on one node that still allow any node: the first task binds the others."""
        return sum(
            1
            for bond in self.required
            if bond.own and not bond.against and bond.topology is Topology.NODE and not bond.tally.counts
        )


NO_NEIGHBOURS = Neighbours()


class Tallies:
    """All tallies of one scratch view, of the nodes in `rooms`; `leaving` are the tasks that the plan at hand stops."""

    def __init__(
        self, view: View, rooms: Mapping[str, HasPlaces], given_up: Callable[[Task], bool], leaving: Container[str]
    ) -> None:
        self._view, self._rooms, self._given_up, self._leaving = view, rooms, given_up, leaving
        self._held: dict[tuple[Selection, Topology, bool], Tally] = {}
        self._fed_by: dict[tuple[str, str], tuple[Tally, ...]] = {}
        self._noted: dict[tuple[str, str], tuple[Ask, list[Places]]] = {}

    def neighbours_of(self, ask: Ask) -> Neighbours:
        """Return what an ask wants of other tasks, and they of it."""
        wanted = ask.placement
        keepers = self._keepers_of(ask)
        if not (wanted.workload_affinity or wanted.workload_anti_affinity or keepers):
            return NO_NEIGHBOURS
        near = [self._bond(ask, term, against=False) for term in wanted.workload_affinity]
        apart = [self._bond(ask, term, against=True) for term in wanted.workload_anti_affinity]
        return Neighbours(
            (*(bond for bond in (*near, *apart) if not bond.weight), *keepers),
            tuple(bond for bond in (*near, *apart) if bond.weight),
        )

    def note(self, ask: Ask, places: Places) -> None:
        """Count a task that was just placed."""
        ref = ask.namespace, ask.workload
        self._noted.setdefault(ref, (ask, []))[1].append(places)
        fed = self._fed_by.get(ref)
        if fed is None:
            fed = tuple(tally for (selection, _, _), tally in self._held.items() if selection.holds(*ref, ask.labels))
            self._fed_by[ref] = fed
        for tally in fed:
            tally.add(places)

    def drop(self, task: Task) -> None:
        """Count a task that the plan has just stopped no more among those that stay."""
        if task.ended or not task.wanted or self._given_up(task):
            return
        ref = task.desired.namespace, task.desired.workload
        workload = self._view.workloads.get(ref)
        labels = workload.record.labels if workload is not None else {}
        for (selection, _, staying_only), tally in self._held.items():
            if staying_only and selection.holds(*ref, labels):
                tally.drop(self._rooms[task.desired.node_id].places)

    def _bond(self, ask: Ask, term: WorkloadTerm, *, against: bool) -> Bond:
        selection = selection_of(ask.namespace, term)
        tally = self._tally(selection, term.topology, staying_only=not against)
        own = selection.holds(ask.namespace, ask.workload, ask.labels)
        return Bond(term.topology, selection, tally, own, term.weight, against)

    def _keepers_of(self, ask: Ask) -> tuple[Bond, ...]:
        by_name, by_labels = self._keepers
        ref = ask.namespace, ask.workload
        found = [*by_name.get(ref, ()), *(k for k in by_labels.get(ask.namespace, ()) if k[2].holds(*ref, ask.labels))]
        return tuple(
            Bond(topology, wanted, self._tally(Selection(*keeper), topology, False), against=True, keeper=keeper[1])
            for keeper, topology, wanted in found
            if keeper != ref  # it says so itself
        )

    @cached_property
    def _keepers(self) -> tuple[dict[tuple[str, str], list[_Keeper]], dict[str, list[_Keeper]]]:
        """The workloads that keep others away: by the one they name, and by namespace those that name labels."""
        by_name: dict[tuple[str, str], list[_Keeper]] = {}
        by_labels: dict[str, list[_Keeper]] = {}
        for (namespace, name), workload in self._view.workloads.items():
            for term in workload.record.spec.placement.workload_anti_affinity:
                if term.weight:
                    continue
                keeper = (namespace, name), term.topology, selection_of(namespace, term)
                if term.workload:
                    by_name.setdefault((namespace, term.workload), []).append(keeper)
                else:
                    by_labels.setdefault(namespace, []).append(keeper)
        return by_name, by_labels

    def _tally(self, selection: Selection, topology: Topology, staying_only: bool) -> Tally:
        key = selection, topology, staying_only
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = Tally(TOPOLOGY_INDEX[topology])
            self._fed_by.clear()
            for task in self._tasks_of(selection):
                staying = task.wanted and task.id not in self._leaving
                if not task.ended and (staying or not staying_only) and not self._given_up(task):
                    held.add(self._rooms[task.desired.node_id].places)
            for asked, noted in self._noted.values():  # what was placed before anybody asked about it
                if selection.holds(asked.namespace, asked.workload, asked.labels):
                    for places in noted:
                        held.add(places)
        return held

    def _tasks_of(self, selection: Selection) -> Iterable[Task]:
        view = self._view
        if selection.workload:
            names = [selection.workload]
        else:
            names = [
                name
                for (namespace, name), workload in view.workloads.items()
                if selection.holds(namespace, name, workload.record.labels)
            ]
        return (view.tasks[task_id] for name in names for task_id in view.tasks_of(selection.namespace, name))


_Keeper = tuple[tuple[str, str], Topology, Selection]
