"""Which tasks of lower priority make way for one that fits nowhere, if the cluster's settings allow it.

A node can make way if nothing but its room or its ports is in the way, and these are free once tasks have ended: those
being stopped already, and as few others as possible. Those must be of a strictly lower priority and none that the task
must be near: it would come for them, they would go for it, and so on for ever. They are chosen so that none could stay:
first those stay whose workloads would fall below what has to be available, then those of higher
priority, then small ones. Of several nodes the one is taken that breaks the fewest such promises, whose victims'
highest priority is lowest, that has the fewest victims. At most `NODES_MAX` nodes that can are compared.

Nothing is sure until the victims have ended. Their room is reserved for the task in the plan, and in every plan until
then, so that nobody of lower priority takes it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloudless.core.model import TaskState
from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.filters import find_site_obstacle, workload_affinity
from cloudless.core.scheduling.neighbours import Neighbours
from cloudless.core.scheduling.scratch import Room, Scratch, held_by
from cloudless.core.scheduling.shelf import ring_distance, ring_point
from cloudless.core.state.view import Task, View

NODES_MAX = 100


@dataclass(frozen=True, slots=True)
class Way:
    """How room is made on a node: `victims` are to be stopped, `leaving` counts those being stopped already."""

    room: Room
    victims: tuple[Task, ...]
    leaving: int


def find_way(ask: Ask, scratch: Scratch, view: View) -> Way | None:
    """Return how room can be made for an ask that fits nowhere, None if lower priorities cannot make it."""
    scratch.distinguish([ask])
    neighbours = scratch.neighbours_of(ask)
    start = ring_point(ask.seed)
    found: list[tuple[tuple[bool, int, int, int, int], str, Way]] = []
    open_sites = {site for site in scratch.sites if find_site_obstacle(ask, site) is None}
    for room in sorted(scratch.rooms.values(), key=lambda room: ring_distance(start, room.point)):
        if room.shelf.site not in open_sites or workload_affinity(ask, room, neighbours) is not None:
            continue
        node = _NodeTasks(ask, room, scratch, view, neighbours)
        way = node.find_way()
        if way is not None:
            found.append((node.cost_of(way, room.node.id in ask.avoid), room.node.id, way))
            if len(found) >= NODES_MAX:
                break
    return min(found, key=lambda item: item[:2])[2] if found else None


class _NodeTasks:
    """The tasks of one node, as far as they could make way."""

    def __init__(self, ask: Ask, room: Room, scratch: Scratch, view: View, neighbours: Neighbours) -> None:
        self._ask, self._room, self._view = ask, room, view
        self._scratch, self._neighbours = scratch, neighbours
        tasks = [task for task_id in view.tasks_on(room.node.id) if not (task := view.tasks[task_id]).ended]
        self._leaving = [task for task in tasks if not task.wanted or task.id in scratch.leaving]
        self._lower = [
            task
            for task in tasks
            if task.wanted
            and task.id not in scratch.leaving
            and self._priority_of(task) < ask.priority
            and not self._is_needed(task)
        ]

    def find_way(self) -> Way | None:
        if self._fits_without(self._leaving):
            return Way(self._room, (), len(self._leaving))
        if not self._lower or not self._fits_without([*self._leaving, *self._lower]):
            return None
        promised = self._find_promised(self._lower)
        victims = list(self._lower)
        for task in sorted(self._lower, key=lambda task: self._stay_first(task, promised)):
            others = [other for other in victims if other is not task]
            if self._fits_without([*self._leaving, *others]):
                victims = others
        return Way(self._room, tuple(sorted(victims, key=lambda task: task.id)), len(self._leaving))

    def cost_of(self, way: Way, avoided: bool) -> tuple[bool, int, int, int, int]:
        """Return how bad the way is; none without victims can be worse than one with."""
        if not way.victims:
            return avoided, 0, -(2**31), 0, 0
        broken = len(self._find_promised(way.victims))
        highest = max(self._priority_of(task) for task in way.victims)
        distance = ring_distance(ring_point(self._ask.seed), self._room.point)
        return avoided, broken, highest, len(way.victims), distance

    def _fits_without(self, tasks: Sequence[Task]) -> bool:
        given, ports = held_by(tasks)
        return self._ask.requests.fits_in(self._room.free + given) and (
            not self._ask.host_ports or (self._room.ports - ports).isdisjoint(self._ask.host_ports)
        )

    def _stay_first(self, task: Task, promised: frozenset[str]) -> tuple[bool, int, int, int, str]:
        asked = task.desired.spec.requests
        return (
            task.id not in promised,
            -self._priority_of(task),
            asked.cpu_millicores + asked.memory_mb,
            task.desired_create_revision,
            task.id,
        )

    def _find_promised(self, tasks: Iterable[Task]) -> frozenset[str]:
        """Return those without which their workloads would have fewer available tasks than they must."""
        spare: dict[tuple[str, str], int] = {}
        promised: set[str] = set()
        for task in sorted(tasks, key=lambda task: task.id):
            if not _is_available(task):
                continue
            ref = task.desired.namespace, task.desired.workload
            left = spare[ref] if ref in spare else self._spare_of(ref)
            spare[ref] = left - 1
            if left <= 0:
                promised.add(task.id)
        return frozenset(promised)

    def _spare_of(self, ref: tuple[str, str]) -> int:
        """Return how many available tasks of a workload may go, with those that leave in this plan gone."""
        spec = self._view.workloads[ref].record.spec
        tasks = (self._view.tasks[task_id] for task_id in self._view.tasks_of(*ref))
        available = sum(
            1
            for task in tasks
            if task.wanted and _is_available(task) and task.id not in self._scratch.leaving and self._is_reachable(task)
        )
        return available - spec.rollout.available_least(spec.replicas)

    def _is_reachable(self, task: Task) -> bool:
        node = self._view.nodes.get(task.desired.node_id)
        return node is not None and node.reachable

    def _is_needed(self, task: Task) -> bool:
        ref = task.desired.namespace, task.desired.workload
        workload = self._view.workloads.get(ref)
        return workload is not None and self._neighbours.needs(*ref, workload.record.labels)

    def _priority_of(self, task: Task) -> int:
        """Return a task's priority: its workload's, as it is now. One without a workload does not count as lower."""
        workload = self._view.workloads.get((task.desired.namespace, task.desired.workload))
        return workload.record.spec.priority if workload is not None else self._ask.priority


def _is_available(task: Task) -> bool:
    return task.state is TaskState.RUNNING and task.observed is not None and task.observed.ready


def priority_words(ask: Ask, view: View, victim: Task) -> str:
    """Return why a victim has to stop."""
    workload = view.workloads.get((victim.desired.namespace, victim.desired.workload))
    own = workload.record.spec.priority if workload is not None else 0
    return f"makes room for {ask.namespace}/{ask.workload}, whose priority is {ask.priority}, not {own}"
