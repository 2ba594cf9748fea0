"""What is free on each node, kept while a plan is being made.

Free is capacity minus the requests of every task on the node that has not ended, whether it is wanted
or being stopped: a task holds its room until its agent has said that it is over. Placements made by
the plan at hand are reserved at once. The scratch view is the planner's own and is thrown away with it.

Building it costs one pass over the nodes and their tasks, and only when something is to be placed. After
that the nodes are found through their sites and shelves, which reservations keep in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from cloudless.core.model import NodeInfo, Resources
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.shelf import Shelf, Size, ring_point, share, size_of
from cloudless.core.scheduling.site import Site, site_of
from cloudless.core.state.view import Node, View

SpreadKey = tuple[str, str, int]


class Room:
    """One node and what is free on it now. `free_share` follows `free` and gives its place on the shelf."""

    __slots__ = ("free", "free_share", "info", "labels", "node", "point", "ports", "shelf")

    def __init__(self, node: Node, info: NodeInfo, shelf: Shelf, free: Resources, ports: set[int]) -> None:
        self.node = node
        self.info = info
        self.shelf = shelf
        self.labels: Mapping[str, str] = node.labels if node.spec.labels else info.labels
        self.point = ring_point(node.id)
        self.free = free
        self.free_share = share(free, shelf.size)
        self.ports = ports

    def take(self, requests: Resources, ports: Iterable[int]) -> None:
        """Take resources and ports out of the room."""
        self.free = self.free - requests
        self.ports.update(ports)
        self.shelf.move(self, share(self.free, self.shelf.size))


class Scratch:
    """The rooms of all known nodes, and how many tasks of a workload are where."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._counts: dict[SpreadKey, dict[str, int]] = {}

    @cached_property
    def rooms(self) -> Mapping[str, Room]:
        """Every node that has told what it is, by id, in the order of ids."""
        shelves: dict[tuple[Site, Size], Shelf] = {}
        rooms: dict[str, Room] = {}
        for node_id in sorted(self._view.nodes):
            node = self._view.nodes[node_id]
            info = node.info
            if info is not None:
                key = site_of(node, info), size_of(info.capacity)
                shelf = shelves.get(key) or shelves.setdefault(key, Shelf(*key))
                rooms[node_id] = Room(node, info, shelf, *self._free_on(node_id, info.capacity))
        _fill(rooms.values())
        return rooms

    @cached_property
    def sites(self) -> Mapping[Site, list[Shelf]]:
        """The shelves of each site; every room is on one."""
        sites: dict[Site, list[Shelf]] = {}
        for shelf in dict.fromkeys(room.shelf for room in self.rooms.values()):
            sites.setdefault(shelf.site, []).append(shelf)
        return sites

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
        """Take what `ask` needs out of the room."""
        room.take(ask.requests, ask.host_ports)
        counts = self.counts(ask.spread_key)
        counts[room.node.id] = counts.get(room.node.id, 0) + 1

    def _free_on(self, node_id: str, capacity: Resources) -> tuple[Resources, set[int]]:
        task_ids = self._view.tasks_on(node_id)
        if not task_ids:
            return capacity, set()
        used, ports = self._held_by(task_ids)
        return capacity - used, ports

    def _held_by(self, task_ids: Iterable[str]) -> tuple[Resources, set[int]]:
        tasks, ports = self._view.tasks, set[int]()
        cpu = memory = storage = bandwidth = gpus = 0
        for task_id in task_ids:
            task = tasks[task_id]
            if task.ended:
                continue
            spec = task.desired.spec
            asked = spec.requests
            cpu += asked.cpu_millicores
            memory += asked.memory_mb
            storage += asked.storage_mb
            bandwidth += asked.bandwidth_mbps
            gpus += asked.gpus
            ports.update(port.host_port for port in spec.ports if port.host_port)
            if task.observed is not None:
                ports.update(task.observed.ports.values())
        return Resources(cpu, memory, storage, bandwidth, gpus), ports


def _fill(rooms: Iterable[Room]) -> None:
    by_shelf: dict[Shelf, list[Room]] = {}
    for room in rooms:
        by_shelf.setdefault(room.shelf, []).append(room)
    for shelf, alike in by_shelf.items():
        shelf.fill(alike)
