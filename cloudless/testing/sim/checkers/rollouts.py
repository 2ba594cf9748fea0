"""Rollouts: their bounds, that a pause is one, that what fails is taken back once, and in time."""

from __future__ import annotations

from typing import Any

from cloudless.core.keys import Kind
from cloudless.core.model import RolloutPhase, RolloutRecord, RolloutStrategy, TaskDesired, WorkloadRecord
from cloudless.core.orchestration import find_rollout
from cloudless.core.orchestration.revisions import Noted
from cloudless.core.state import Task
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.checkers.tasks import Recent
from cloudless.testing.sim.happenings import LeftOffice, Looked, Stored, TookOffice

OVERDUE_S = 5.0
"""Beyond a deadline: notes are written at most every two seconds, a controller may wait for the store meanwhile."""
Ref = tuple[str, str]


class SurgeKept(Recent):
    """A new task never makes more of them hold a place than replicas and surge allow, drains, losses, moves aside."""

    def on_Stored(self, stored: Stored) -> None:
        self.remember(stored)
        truth = self.world.truth
        for transition in stored.transitions:
            desired = transition.after
            if transition.kind is not Kind.TASK_DESIRED or transition.before is not None or desired is None:
                continue
            workload = truth.workloads.get((desired.namespace, desired.workload))
            if workload is None or self.recently(*self._nodes()):
                continue  # of the workload itself nothing is excused: a task is made only while it is as it was seen
            record = workload.record
            held = [task for task in self._tasks(desired) if self._holds(task, record)]
            most = record.spec.replicas + self._surge(record)
            if len(held) > most:
                raise self.refuse(f"{desired.id} is task {len(held)} of {desired.workload}, {most} are allowed")

    def _nodes(self) -> list[str]:
        return [f"node/{node_id}" for node_id in self.world.truth.nodes]

    def _tasks(self, desired: TaskDesired) -> list[Task]:
        truth = self.world.truth
        return [truth.tasks[task_id] for task_id in truth.tasks_of(desired.namespace, desired.workload)]

    def _holds(self, task: Task, record: WorkloadRecord) -> bool:
        node = self.world.truth.nodes[task.desired.node_id]
        if task.ended or task.desired.workload_uid != record.uid or not node.reachable or node.spec.draining:
            return False
        successor = self.world.truth.tasks.get(task.desired.successor_id)
        if successor is not None and successor.active:
            return False
        return task.wanted or task.desired.task_generation != record.task_generation

    def _surge(self, record: WorkloadRecord) -> int:
        rollout, replicas = record.spec.rollout, record.spec.replicas
        if rollout.strategy is RolloutStrategy.BLUE_GREEN:
            return replicas
        return rollout.surge_of(replicas)


class PauseKept(Checker):
    """While the notes say PAUSED no slot gets its first task of the new template."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._begun: dict[Ref, set[tuple[int, int]]] = {}

    def on_Stored(self, stored: Stored) -> None:
        truth = self.world.truth
        changed = {(t.after.namespace, t.after.name) for t in stored.transitions if _is_workload(t)}
        for transition in stored.transitions:
            desired = transition.after
            if transition.kind is not Kind.TASK_DESIRED or transition.before is not None or desired is None:
                continue
            ref = (desired.namespace, desired.workload)
            place = (desired.slot, desired.task_generation)
            begun = self._begun.setdefault(ref, set())
            workload = truth.workloads.get(ref)
            if workload is not None and ref not in changed and place not in begun:
                self._check(workload.record, desired)
            begun.add(place)

    def _check(self, record: WorkloadRecord, desired: TaskDesired) -> None:
        notes = _current(find_rollout(self.world.truth, record), record)
        new = desired.task_generation == record.task_generation
        paused = notes is not None and notes.phase is RolloutPhase.PAUSED
        if new and paused and notes is not None and notes.stable_generation in record.history:
            raise self.refuse(f"{desired.id} begins slot {desired.slot} anew while the rollout is paused")


class RolledBackOnce(Checker):
    """A leader puts a template back only where that is wanted, and never takes a rollback back."""

    def on_Stored(self, stored: Stored) -> None:
        noted = {(t.after.namespace, t.after.workload): t.after for t in stored.transitions if _is_notes(t)}
        for transition in stored.transitions:
            before, after = transition.before, transition.after
            if not _is_workload(transition) or before is None or after.rollback_of != before.task_generation:
                continue
            notes = noted.get((after.namespace, after.name))
            if notes is None or notes.rollout != after.generation:
                continue  # a person did it
            if before.rollback_of:
                raise self.refuse(f"{after.name}: the rollback of {before.rollback_of} was rolled back")
            if not before.spec.rollout.auto_rollback:
                raise self.refuse(f"{after.name} was rolled back against its own rule")


class DeadlineKept(Checker):
    """A rollout that comes no further is given up soon after its deadline, while one and the same leader leads.

    One that is frozen or was killed leads nobody, though it did not say so.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._calm_since_s: float | None = None
        self._leader: Any = None
        self._moved_s: dict[Ref, float] = {}

    def on_TookOffice(self, took: TookOffice) -> None:
        self._calm_since_s, self._leader = self.world.loop.now_s, took.life

    def on_LeftOffice(self, left: LeftOffice) -> None:
        self._calm_since_s = None

    def on_Stored(self, stored: Stored) -> None:
        now_s = self.world.loop.now_s
        for transition in stored.transitions:
            if _is_workload(transition):
                self._moved_s[transition.after.namespace, transition.after.name] = now_s
            elif _is_notes(transition):
                self._note(transition.before, transition.after, now_s)

    def _note(self, before: RolloutRecord | None, after: RolloutRecord, now_s: float) -> None:
        """Remember when a rollout last came further."""
        ref = (after.namespace, after.workload)
        still = before is not None and (before.rollout, before.phase, before.progress, before.allowed) == (
            (after.rollout, after.phase, after.progress, after.allowed)
        )
        if not still or (
            before is not None and before.rest_from_ms != after.rest_from_ms and before.term == after.term
        ):
            self._moved_s[ref] = now_s

    def on_Looked(self, looked: Looked) -> None:
        now_s = self.world.loop.now_s
        if self._calm_since_s is None:
            return
        if not self._leader.process.running:
            self._calm_since_s = now_s
        for ref, workload in self.world.truth.workloads.items():
            record = workload.record
            notes = _current(find_rollout(self.world.truth, record), record)
            deadline_s = record.spec.rollout.progress_deadline_s
            if notes is None or notes.phase is not RolloutPhase.PROGRESSING or notes.rest_from_ms or not deadline_s:
                continue
            still_s = now_s - max(self._moved_s.get(ref, now_s), self._calm_since_s)
            if still_s > deadline_s + OVERDUE_S and not record.deleted_at_ms:
                raise self.refuse(f"the rollout of {ref[1]} came no further for {still_s:.0f} s: {notes}")


def _is_workload(transition: Any) -> bool:
    return transition.kind is Kind.WORKLOAD and transition.after is not None


def _is_notes(transition: Any) -> bool:
    return transition.kind is Kind.ROLLOUT and transition.after is not None


def _current(noted: Noted | None, record: WorkloadRecord) -> RolloutRecord | None:
    """Return the notes if they are about the workload's present rollout."""
    return noted.record if noted is not None and noted.record.rollout == record.rollout_generation else None
