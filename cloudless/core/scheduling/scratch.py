"""What is free on each node, kept while a plan is being made.

Free is capacity minus the requests of every task on the node that has not ended, whether it is wanted
or being stopped: a task holds its room until its agent has said that it is over. Placements made by
the plan at hand are reserved at once. The scratch view is the planner's own and is thrown away with it.

Building it costs one pass over the nodes and their tasks, and only when something is to be placed. After
that the nodes are found through their sites and shelves, which reservations keep in order. A planner that knows what
changed since its last plan renews the scratch view of that instead: it costs a look at those nodes only, and gives
the same (`tests/properties`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from cloudless.core.model import NodeInfo, PortProtocol, Resources, SchedulerRecord
from cloudless.core.scheduling.ask import Ask, HostPort
from cloudless.core.scheduling.neighbours import Neighbours, Tallies
from cloudless.core.scheduling.settings import scheduler_of
from cloudless.core.scheduling.shelf import Shelf, ring_point, share
from cloudless.core.scheduling.shelves import Shelves
from cloudless.core.scheduling.site import Places, Site, label_keys_of
from cloudless.core.state.view import Node, Task, View

SpreadKey = tuple[str, str, int]


class Room:
    """One node and what is free on it now. `free_share` follows `free` and gives its place on the shelf."""

    __slots__ = ("free", "free_share", "info", "labels", "node", "places", "point", "ports", "shelf")

    shelf: Shelf
    places: Places

    def __init__(self, node: Node, info: NodeInfo, free: Resources, ports: set[HostPort]) -> None:
        self.node = node
        self.info = info
        self.labels: Mapping[str, str] = node.labels if node.spec.labels else info.labels
        self.point = ring_point(node.id)
        self.free = free
        self.free_share = 0
        self.ports = ports

    def take(self, requests: Resources, ports: Iterable[HostPort]) -> None:
        """Take resources and ports out of the room."""
        self.free = self.free - requests
        self.ports.update(ports)
        self.shelf.move(self, share(self.free, self.shelf.size))


class Scratch:
    """The rooms of all known nodes, and how many tasks of a workload are where.

    `unreachable_s` is how long each unreachable node has been so; one that is missing there has just become so.
    `explains`: a diagnosis also names the nodes that nearly fit, which costs a look at all that is in the way.
    """

    def __init__(self, view: View, unreachable_s: Mapping[str, float] | None = None, *, explains: bool = False) -> None:
        self._view = view
        self.explains = explains
        self.leaving: set[str] = set()
        """Tasks that the plan at hand stops: nobody is to count on them any more, though they still hold their room."""
        self._unreachable_s = unreachable_s or {}
        self._counts: dict[SpreadKey, dict[str, int]] = {}
        self._label_keys: tuple[str, ...] = ()
        self._rooms: dict[str, Room] | None = None
        self._shelves = Shelves()
        self._reserved: set[str] = set()

    @cached_property
    def settings(self) -> SchedulerRecord:
        """How nodes are to be compared."""
        return scheduler_of(self._view)

    @property
    def rooms(self) -> Mapping[str, Room]:
        """Every node that has told what it is, by id."""
        if self._rooms is None:
            found = (self._look_at(node_id) for node_id in sorted(self._view.nodes))
            self._rooms = {room.node.id: room for room in found if room is not None}
            self._shelves.fill(self._rooms.values(), self._label_keys)
        return self._rooms

    @property
    def sites(self) -> Mapping[Site, list[Shelf]]:
        """The shelves of each site; every room is on one."""
        return self._shelves.by_site if self.rooms else {}

    @cached_property
    def cost_most(self) -> int:
        """The highest cost of a node, in millionths; with it the others' are compared."""
        return max((site.cost for site in self.sites), default=0)

    @cached_property
    def tallies(self) -> Tallies:
        """How many tasks of any selection are where."""
        return Tallies(self._view, self.rooms, self.has_given_up, self.leaving)

    def renew(self, changed: Iterable[str], unreachable_s: Mapping[str, float]) -> None:
        """Make it good for the next plan from the same view, which has moved on.

        `changed` are the nodes that any record of, or any task on, has changed since the last plan.
        """
        self._unreachable_s = unreachable_s
        if self._rooms is not None:
            for node_id in sorted(self._reserved.union(changed)):
                self._refresh(self._rooms, node_id)
        self._reserved.clear()
        self._counts.clear()
        self.leaving.clear()
        for held in ("settings", "cost_most", "tallies"):
            self.__dict__.pop(held, None)

    def distinguish(self, asks: Iterable[Ask]) -> None:
        """Tell nodes apart by the labels that the asks name. Call it before any filter is asked about one of them."""
        named = {key for ask in asks for key in label_keys_of(ask.placement)}
        if not named.issubset(self._label_keys):
            self._label_keys = tuple(sorted(named.union(self._label_keys)))
            if self._rooms is not None:
                self._shelves.fill(self._rooms.values(), self._label_keys)

    def neighbours_of(self, ask: Ask) -> Neighbours:
        """Return what the ask wants of the tasks near a node."""
        return self.tallies.neighbours_of(ask)

    def counts(self, key: SpreadKey) -> dict[str, int]:
        """Return the number of tasks by node that count when this workload's tasks are spread."""
        held = self._counts.get(key)
        if held is None:
            namespace, workload, generation = key
            tasks = (self._view.tasks[task_id] for task_id in self._view.tasks_of(namespace, workload))
            self.count_staying(
                key, (t.desired.node_id for t in tasks if t.active and t.desired.task_generation == generation)
            )
            held = self._counts[key]
        return held

    def count_staying(self, key: SpreadKey, node_ids: Iterable[str]) -> None:
        """Declare where the tasks are that will stay: those about to leave must not push others away."""
        counts: dict[str, int] = {}
        for node_id in node_ids:
            counts[node_id] = counts.get(node_id, 0) + 1
        self._counts[key] = counts

    def reserve(self, ask: Ask, room: Room) -> None:
        """Take what `ask` needs out of the room, and count its task there."""
        self._reserved.add(room.node.id)
        room.take(ask.requests, ask.host_ports)
        counts = self.counts(ask.spread_key)
        counts[room.node.id] = counts.get(room.node.id, 0) + 1
        self.tallies.note(ask, room.places)

    def leave(self, task: Task) -> None:
        """Take note that the plan at hand stops a task."""
        if task.id in self.leaving:
            return
        self.leaving.add(task.id)
        if "tallies" in self.__dict__:
            self.tallies.drop(task)

    def has_given_up(self, task: Task) -> bool:
        """Return whether a task that has not ended is counted on no more, because its node is away."""
        room = self.rooms.get(task.desired.node_id)
        if room is None:
            return True
        if room.node.reachable:
            return False
        workload = self._view.workloads.get((task.desired.namespace, task.desired.workload))
        lost_after_s = workload.record.spec.lost_after_s if workload else 0.0
        return not task.wanted or self._unreachable_s.get(room.node.id, 0.0) >= lost_after_s

    def _look_at(self, node_id: str) -> Room | None:
        """Return a node's room as it is by its records, None while it has not told what it is."""
        node = self._view.nodes.get(node_id)
        if node is None or node.info is None:
            return None
        return Room(node, node.info, *self._free_on(node_id, node.info.capacity))

    def _refresh(self, rooms: dict[str, Room], node_id: str) -> None:
        held, found = rooms.get(node_id), self._look_at(node_id)
        if held is not None:
            self._shelves.remove(held)
        if found is not None:
            rooms[node_id] = found
            self._shelves.add(found, self._label_keys)
        elif held is not None:
            del rooms[node_id]

    def _free_on(self, node_id: str, capacity: Resources) -> tuple[Resources, set[HostPort]]:
        task_ids = self._view.tasks_on(node_id)
        if not task_ids:
            return capacity, set()
        used, ports = held_by(self._view.tasks[task_id] for task_id in task_ids)
        return capacity - used, ports


def held_by(tasks: Iterable[Task]) -> tuple[Resources, set[HostPort]]:
    """Return what those of the tasks that have not ended hold of their node."""
    ports: set[HostPort] = set()
    cpu = memory = storage = bandwidth = gpus = 0
    for task in tasks:
        if task.ended:
            continue
        spec = task.desired.spec
        asked = spec.requests
        cpu += asked.cpu_millicores
        memory += asked.memory_mb
        storage += asked.storage_mb
        bandwidth += asked.bandwidth_mbps
        gpus += asked.gpus
        if spec.ports or (task.observed is not None and task.observed.ports):
            ports.update(ports_of(task))
    return Resources(cpu, memory, storage, bandwidth, gpus), ports


def ports_of(task: Task) -> Iterable[HostPort]:
    """Yield the ports of its node that a task has: the fixed ones, and those its agent chose."""
    declared = {port.name: port for port in task.desired.spec.ports}
    yield from ((port.host_port, port.protocol) for port in declared.values() if port.host_port)
    for name, number in task.observed.ports.items() if task.observed is not None else ():
        yield number, declared[name].protocol if name in declared else PortProtocol.TCP
