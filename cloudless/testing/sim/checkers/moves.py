"""Moves of tasks to better nodes: only where that is wanted and permitted, one at a time, and always for the better."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cloudless.core.keys import Kind
from cloudless.core.model import (
    Desired,
    RestartCondition,
    RolloutPhase,
    RolloutStrategy,
    SpreadTopology,
    TaskDesired,
    TaskState,
    WorkloadRecord,
)
from cloudless.core.orchestration import find_rollout
from cloudless.core.orchestration.succession import SUCCESSOR_DEADLINE_S
from cloudless.core.state import StateMachine, Task
from cloudless.testing.placement_rules import find_breaches
from cloudless.testing.sim.checkers.displaced import may_be_displaced
from cloudless.testing.sim.checkers.placement import SLOWING, SOON_S, standing_of, standing_tasks
from cloudless.testing.sim.checkers.tasks import RECENTLY_S, Recent
from cloudless.testing.sim.happenings import Stored

Evenness = tuple[int, int]


class MovesKept(Recent):
    """A task gives way only to one that begins with it, elsewhere, where its workload is spread better, alone of all.

    And that one is only taken back for a reason. Of the workload nothing is excused when a move begins: a task is made
    only while that is as it was seen. What changed lately about a node is.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._began_s: dict[str, float] = {}

    def on_Stored(self, stored: Stored) -> None:
        self.remember(stored)
        for transition in stored.transitions:
            before, after = transition.before, transition.after
            if transition.kind is not Kind.TASK_DESIRED or before is None or after is None:
                continue
            if after.successor_id not in ("", before.successor_id):
                self._began_s[after.successor_id] = self.world.loop.now_s
                self._check(after, stored)
            elif before.desired is Desired.RUNNING and after.desired is Desired.STOPPED and after.id in self._began_s:
                self._check_taken_back(after)

    def recently(self, *names: str) -> bool:
        now_s = self.world.loop.now_s
        patience_s = SOON_S if SLOWING.isdisjoint(self.world.options.kinds) else RECENTLY_S
        return any(now_s - self._changed_s.get(name, -patience_s - 1) <= patience_s for name in names)

    def _check(self, old: TaskDesired, stored: Stored) -> None:
        truth = self.world.truth
        new = truth.tasks.get(old.successor_id)
        began = {t.after.id for t in stored.transitions if t.kind is Kind.TASK_DESIRED and t.before is None and t.after}
        if new is None or new.id not in began or not new.active:
            raise self.refuse(f"{old.id} gives way to {old.successor_id}, which did not begin with that")
        if not self.world.options.rebalance_after_s:
            raise self.refuse(f"{old.id} is moved, and nobody wants that")
        if new.desired.node_id == old.node_id or (new.desired.slot, new.desired.workload) != (old.slot, old.workload):
            raise self.refuse(f"{new.id} on {new.desired.node_id} does not take the place of {old.id}")
        record = truth.workloads[old.namespace, old.workload].record
        if not permits_moves(record):
            raise self.refuse(f"{old.id} is moved, and its workload does not permit it")
        notes = find_rollout(truth, record)
        if record.rollout_generation and (notes is None or notes.record.phase is not RolloutPhase.COMPLETED):
            raise self.refuse(f"{old.id} is moved while a rollout is under way")
        before, after = evenness(truth, record, without=new.id), evenness(truth, record, without=old.id)
        if after >= before:
            raise self.refuse(f"{old.id} is moved from {old.node_id} to {new.desired.node_id}: {before} became {after}")
        self._check_calm(old)

    def _check_calm(self, old: TaskDesired) -> None:
        truth = self.world.truth
        known = [node_id for node_id in sorted(truth.nodes) if not self.recently(f"node/{node_id}")]
        draining = [node_id for node_id in known if truth.nodes[node_id].spec.draining]
        if draining:
            raise self.refuse(f"{old.id} is moved while {draining} are drained")
        under_way = [task for task in truth.tasks.values() if task.id != old.id and is_moving(truth, task)]
        for task in under_way:
            if {task.desired.node_id, truth.tasks[task.desired.successor_id].desired.node_id}.issubset(known):
                raise self.refuse(f"{old.id} is moved while {task.id} still is")

    def _check_taken_back(self, new: TaskDesired) -> None:
        """Refuse that a successor stops while the old task is there, and it could stay and has had little time."""
        truth = self.world.truth
        workload = truth.workloads.get((new.namespace, new.workload))
        task = truth.tasks[new.id]
        if workload is None or self.recently(f"node/{new.node_id}", f"workload/{new.workload}") or not self.stays(task):
            return
        rivals = [rival for rival in self.rivals(new.id, task) if rival.desired.successor_id == new.id]
        deadline_s = workload.record.spec.rollout.progress_deadline_s or SUCCESSOR_DEADLINE_S
        # Of a leader's clock that jumped, and of a task that is displaced, others judge.
        excused = "jump-clock" in self.world.options.kinds or may_be_displaced(truth, workload.record)
        waited_s = self.world.loop.now_s - self._began_s[new.id]
        if rivals and not excused and waited_s < deadline_s / 2:
            raise self.refuse(f"{new.id} was taken back after {waited_s:.1f} s of {deadline_s:.0f} s: {new.reason}")


def is_moving(truth: StateMachine, task: Task) -> bool:
    """Return whether a task is to give way to one that is there, and both can be reached."""
    successor = truth.tasks.get(task.desired.successor_id)
    if successor is None or not (task.active and successor.active):
        return False
    return all(truth.nodes[held.desired.node_id].reachable for held in (task, successor))


def permits_moves(record: WorkloadRecord) -> bool:
    """Return whether a workload's tasks may have a second one beside them for a while, and run until they are told."""
    rollout = record.spec.rollout
    permitted = rollout.strategy is not RolloutStrategy.RECREATE and rollout.surge_of(record.spec.replicas) > 0
    return permitted and record.spec.restart_policy.condition is RestartCondition.ALWAYS


def evenness(truth: StateMachine, record: WorkloadRecord, *, without: str = "") -> Evenness:
    """Return the sums of the squares of a workload's tasks by domain of its spread, and by node: less is more even.

    The newest wanted task of each slot counts, also one that has just ended: the leader may not know.
    """
    newest: dict[int, Task] = {}
    for task_id in truth.tasks_of(record.namespace, record.name):
        task = truth.tasks[task_id]
        held = newest.get(task.desired.slot)
        if task.wanted and task_id != without and (held is None or _age(held) < _age(task)):
            newest[task.desired.slot] = task
    node_ids = [task.desired.node_id for task in newest.values()]
    return _squares(_domain_of(truth, record, node_id) for node_id in node_ids), _squares(node_ids)


def _age(task: Task) -> tuple[int, str]:
    return task.desired_create_revision, task.id


def _domain_of(truth: StateMachine, record: WorkloadRecord, node_id: str) -> str:
    info = truth.nodes[node_id].info
    zoned = record.spec.placement.spread_topology is SpreadTopology.ZONE
    return info.zone if zoned and info is not None else ""


def _squares(names: Any) -> int:
    return sum(count * count for count in Counter(names).values())


def find_uneven(world: Any) -> str:
    """Return which task should have been moved by now, "" if none, or if moves are no subject.

    Where workloads want more of nodes than to be spread, others may be in the way of a move.
    """
    truth = world.truth
    if not world.options.rebalance_after_s or world.options.placing is not None:
        return ""
    for workload in truth.workloads.values():
        record = workload.record
        tasks = [truth.tasks[task_id] for task_id in truth.tasks_of(record.namespace, record.name)]
        if not permits_moves(record) or any(_has_failed(truth, task) for task in tasks):
            continue
        for task in sorted((task for task in tasks if task.active), key=lambda task: task.id):
            for node_id in sorted(truth.nodes.keys() - {task.desired.node_id}):
                if _is_better(truth, record, task, node_id):
                    return f"task {task.id} on {task.desired.node_id} would be better off on {node_id}"
    return ""


def _has_failed(truth: StateMachine, task: Task) -> bool:
    """Return whether a task ended by itself, or was to be moved in vain: both are left where they are."""
    if task.ended and task.state is not TaskState.STOPPED:
        return True
    return task.active and bool(task.desired.successor_id)


def _is_better(truth: StateMachine, record: WorkloadRecord, task: Task, node_id: str) -> bool:
    node = truth.nodes[node_id]
    if node.info is None or find_breaches(standing_of(record), node_id, truth.nodes, standing_tasks(truth)):
        return False
    held = [truth.tasks[other] for other in truth.tasks_of(record.namespace, record.name) if other != task.id]
    node_ids = [*(other.desired.node_id for other in held if other.active), node_id]
    moved = _squares(_domain_of(truth, record, other) for other in node_ids), _squares(node_ids)
    return moved < evenness(truth, record)
