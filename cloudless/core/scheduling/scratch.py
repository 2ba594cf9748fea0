"""What is free on each node, kept while a plan is being made.

Free is capacity minus the requests of every task on the node that has not ended, whether it is wanted
or being stopped: a task holds its room until its agent has said that it is over. Placements made by
the plan at hand are reserved at once. The scratch view is the planner's own and is thrown away with it.

Building it costs one pass over the nodes' tasks, and only when something is to be placed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from cloudless.core.model import NodeInfo, Resources
from cloudless.core.scheduling.ask import Ask
from cloudless.core.state.view import Node, View

SpreadKey = tuple[str, str, int]


class Room:
    """One node and what is free on it now."""

    __slots__ = ("free", "info", "labels", "node", "ports")

    def __init__(self, node: Node, info: NodeInfo, used: Resources, ports: set[int]) -> None:
        self.node = node
        self.info = info
        self.labels: Mapping[str, str] = node.labels
        self.free = info.capacity - used
        self.ports = ports


class Scratch:
    """The rooms of all known nodes, and how many tasks of a workload are where."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._counts: dict[SpreadKey, dict[str, int]] = {}

    @cached_property
    def rooms(self) -> dict[str, Room]:
        """Every node that has told what it is, by id, in the order of ids."""
        rooms: dict[str, Room] = {}
        for node_id in sorted(self._view.nodes):
            node = self._view.nodes[node_id]
            if node.info is not None:
                rooms[node_id] = Room(node, node.info, *self._held_on(node_id))
        return rooms

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
        room.free = room.free - ask.requests
        room.ports.update(ask.host_ports)
        counts = self.counts(ask.spread_key)
        counts[room.node.id] = counts.get(room.node.id, 0) + 1

    def _held_on(self, node_id: str) -> tuple[Resources, set[int]]:
        tasks, ports = self._view.tasks, set[int]()
        cpu = memory = storage = bandwidth = gpus = 0
        for task_id in self._view.tasks_on(node_id):
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
