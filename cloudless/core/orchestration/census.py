"""Where each task of a workload stands: the facts `replicas` decides on, gathered from one view.

    of this incarnation, wanted, not ended   an occupant of its slot
    of this incarnation, told to stop        stopping, until its agent says it ended
    of this incarnation, ended by itself     judged by `ending`: its slot is done, or waits, or is free
    of another incarnation (other uid)       foreign: to be stopped

Each slot aims at a generation of the template: the workload's own, or the one before while a rollout holds the slot
back. Its occupants of another generation are outdated, and only ends of that generation count for it.

An occupant is lost when its node has been away for the workload's `lost_after_s`, unknown before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cloudless.core.model import RestartPolicy, TaskState
from cloudless.core.orchestration.absence import absence_s
from cloudless.core.orchestration.ending import Ending, judge_ending
from cloudless.core.orchestration.readiness import available_in_s
from cloudless.core.scheduling import why_leave
from cloudless.core.state.view import Node, Task, View, Workload


@dataclass(frozen=True, slots=True)
class Occupant:
    """A wanted task that has not ended. `absent_s` is None while its node is reachable.

    `draining`: the node is being drained, or has a taint NO_EXECUTE that the workload does not tolerate.
    `moving`: its successor is in the slot too, where nothing speaks against that one's node.
    `available_in_s` as in `readiness`, None while the node is unreachable; `target` is the slot's. `leaves_in_s`: when
    the drain of its node has to be over, 0 if that time has come, None if there is none.
    """

    task: Task
    target: int
    draining: bool
    absent_s: float | None
    lost: bool
    available_in_s: float | None
    leaves_in_s: float | None = None
    moving: bool = False

    @property
    def outdated(self) -> bool:
        return self.task.desired.task_generation != self.target

    @property
    def running(self) -> bool:
        return self.absent_s is None and self.task.state is TaskState.RUNNING

    @property
    def available(self) -> bool:
        """Whether it does its work: what must not become too few."""
        return self.available_in_s == 0

    @property
    def staying(self) -> bool:
        """Whether nothing speaks against leaving it where it is."""
        return not (self.outdated or self.draining or self.lost or self.moving)


@dataclass(slots=True)
class Slot:
    """One replica's place: its occupants, and what its ended tasks ask for. `ended`: by themselves, oldest first."""

    number: int
    target: int
    occupants: list[Occupant] = field(default_factory=list)
    ended: list[Task] = field(default_factory=list)
    ending: Ending = field(default_factory=Ending)

    @property
    def filled(self) -> bool:
        return bool(self.occupants) or self.ending.done is not None

    @property
    def available(self) -> bool:
        return self.ending.done is not None or any(occupant.available for occupant in self.occupants)

    @property
    def begun(self) -> bool:
        """Whether there is, or was, a task of the generation it aims at."""
        return any(not o.outdated for o in self.occupants) or self.ending.last is not None

    @property
    def updated(self) -> bool:
        """Whether a task of the generation it aims at is available, or done."""
        return self.ending.done is not None or any(o.available and not o.outdated for o in self.occupants)

    def aim(self, target: int, policy: RestartPolicy, now_ms: int) -> None:
        """Let the slot have tasks of another generation, whose restart policy is `policy`."""
        self.target = target
        self.occupants = [replace(occupant, target=target) for occupant in self.occupants]
        self.judge(policy, now_ms)

    def judge(self, policy: RestartPolicy, now_ms: int) -> None:
        """Judge the ends of the generation it aims at."""
        ended = [task for task in self.ended if task.desired.task_generation == self.target]
        self.ending = judge_ending(ended, policy, now_ms)


@dataclass(frozen=True, slots=True)
class Census:
    """All tasks of one workload. `stopping` are those of this incarnation told to stop and not seen to have ended."""

    generation: int
    slots: dict[int, Slot]
    stopping: tuple[Occupant, ...]
    foreign: tuple[Task, ...]

    def slot(self, number: int) -> Slot:
        return self.slots.get(number) or Slot(number, self.generation)


def take_census(view: View, workload: Workload, now_ms: int, unreachable_s: Mapping[str, float]) -> Census:
    """Sort a workload's tasks into slots, each of which aims at the workload's own generation."""
    record = workload.record
    target = record.task_generation
    slots: dict[int, Slot] = {}
    stopping: list[Occupant] = []
    foreign: list[Task] = []
    for task in tasks_of(view, record.namespace, record.name):
        number = task.desired.slot
        if task.desired.workload_uid != record.uid:
            foreign.append(task)
        elif task.active:
            slot = slots.setdefault(number, Slot(number, target))
            slot.occupants.append(_occupant(view, workload, task, now_ms, unreachable_s))
        elif not task.ended:
            stopping.append(_occupant(view, workload, task, now_ms, unreachable_s))
        elif task.wanted:
            slots.setdefault(number, Slot(number, target)).ended.append(task)
    for slot in slots.values():
        if len(slot.occupants) > 1:
            slot.occupants = _with_moves(slot.occupants)
        if slot.ended:
            slot.ended.sort(key=lambda task: (task.desired_create_revision, task.id))
            slot.judge(record.spec.restart_policy, now_ms)
    return Census(target, slots, tuple(stopping), tuple(foreign))


def _with_moves(occupants: list[Occupant]) -> list[Occupant]:
    """Return a slot's occupants, of which those are moving whose successor is there and may stay where it is."""
    good = {o.task.id for o in occupants if not (o.lost or o.draining)}
    return [replace(o, moving=True) if o.task.desired.successor_id in good else o for o in occupants]


def tasks_of(view: View, namespace: str, name: str) -> tuple[Task, ...]:
    """Return a workload's tasks, of every incarnation, in the order of their ids."""
    return tuple(view.tasks[task_id] for task_id in sorted(view.tasks_of(namespace, name)))


def _leaves_in_s(node: Node | None, now_ms: int) -> float | None:
    if node is None or not node.spec.draining or not node.spec.drain_until_ms:
        return None
    return max(0.0, (node.spec.drain_until_ms - now_ms) / 1000)


def _occupant(view: View, workload: Workload, task: Task, now_ms: int, unreachable_s: Mapping[str, float]) -> Occupant:
    record = workload.record
    node = view.nodes.get(task.desired.node_id)
    absent_s = absence_s(view, task.desired.node_id, unreachable_s)
    return Occupant(
        task=task,
        target=record.task_generation,
        draining=node is not None and bool(why_leave(node, record.spec.placement)),
        leaves_in_s=_leaves_in_s(node, now_ms),
        absent_s=absent_s,
        lost=absent_s is not None and absent_s >= record.spec.lost_after_s,
        available_in_s=available_in_s(task, record.spec.rollout.min_ready_s, now_ms) if absent_s is None else None,
    )
