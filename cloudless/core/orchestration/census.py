"""Where each task of a workload stands: the facts `replicas` decides on, gathered from one view.

    of this incarnation, wanted, not ended   an occupant of its slot
    of this incarnation, told to stop        stopping, until its agent says it ended
    of this incarnation, ended by itself     judged by `ending`: its slot is done, or waits, or is free
    of another incarnation (other uid)       foreign: to be stopped

An occupant is lost when its node has been away for the workload's `lost_after_s`, unknown before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudless.core.model import TaskState
from cloudless.core.orchestration.absence import absence_s
from cloudless.core.orchestration.ending import Ending, judge_ending
from cloudless.core.scheduling import why_leave
from cloudless.core.state.view import Task, View, Workload


@dataclass(frozen=True, slots=True)
class Occupant:
    """A wanted task that has not ended. `absent_s` is None while its node is reachable.

    `draining`: the node is being drained, or has a taint NO_EXECUTE that the workload does not tolerate."""

    task: Task
    outdated: bool
    draining: bool
    absent_s: float | None
    lost: bool

    @property
    def running(self) -> bool:
        return self.absent_s is None and self.task.state is TaskState.RUNNING

    @property
    def available(self) -> bool:
        """Whether it runs, and its readiness probe, if it has one, says that it works."""
        return self.running and self.task.observed is not None and self.task.observed.ready

    @property
    def staying(self) -> bool:
        """Whether nothing speaks against leaving it where it is."""
        return not (self.outdated or self.draining or self.lost)


@dataclass(slots=True)
class Slot:
    """One replica's place: its occupants, and what its ended tasks ask for."""

    number: int
    occupants: list[Occupant] = field(default_factory=list)
    ending: Ending = field(default_factory=Ending)

    @property
    def filled(self) -> bool:
        return bool(self.occupants) or self.ending.done is not None

    @property
    def available(self) -> bool:
        return self.ending.done is not None or any(occupant.available for occupant in self.occupants)


@dataclass(frozen=True, slots=True)
class Census:
    """All tasks of one workload. `stopping` are those of this incarnation told to stop and not seen to have ended."""

    slots: dict[int, Slot]
    stopping: tuple[Occupant, ...]
    foreign: tuple[Task, ...]

    def slot(self, number: int) -> Slot:
        return self.slots.get(number) or Slot(number)


def take_census(view: View, workload: Workload, now_ms: int, unreachable_s: Mapping[str, float]) -> Census:
    """Sort a workload's tasks into slots."""
    record = workload.record
    slots: dict[int, Slot] = {}
    ended: dict[int, list[Task]] = {}
    stopping: list[Occupant] = []
    foreign: list[Task] = []
    for task in tasks_of(view, record.namespace, record.name):
        if task.desired.workload_uid != record.uid:
            foreign.append(task)
        elif task.active:
            slot = slots.setdefault(task.desired.slot, Slot(task.desired.slot))
            slot.occupants.append(_occupant(view, workload, task, unreachable_s))
        elif not task.ended:
            stopping.append(_occupant(view, workload, task, unreachable_s))
        elif task.wanted and task.desired.task_generation >= record.task_generation:
            ended.setdefault(task.desired.slot, []).append(task)
    for number, tasks in ended.items():
        tasks.sort(key=lambda task: (task.desired_create_revision, task.id))
        slot = slots.setdefault(number, Slot(number))
        slot.ending = judge_ending(tasks, record.spec.restart_policy, now_ms)
    return Census(slots, tuple(stopping), tuple(foreign))


def tasks_of(view: View, namespace: str, name: str) -> tuple[Task, ...]:
    """Return a workload's tasks, of every incarnation, in the order of their ids."""
    return tuple(view.tasks[task_id] for task_id in sorted(view.tasks_of(namespace, name)))


def _occupant(view: View, workload: Workload, task: Task, unreachable_s: Mapping[str, float]) -> Occupant:
    node = view.nodes.get(task.desired.node_id)
    absent_s = absence_s(view, task.desired.node_id, unreachable_s)
    return Occupant(
        task=task,
        outdated=task.desired.task_generation < workload.record.task_generation,
        draining=node is not None and bool(why_leave(node, workload.record.spec.placement)),
        absent_s=absent_s,
        lost=absent_s is not None and absent_s >= workload.record.spec.lost_after_s,
    )
