"""What may make a healthy task leave: a taint of its node, and workloads of higher priority."""

from __future__ import annotations

from collections.abc import Iterable

from cloudless.core.keys import Kind
from cloudless.core.model import SchedulerRecord, Taint, TaintEffect, Toleration, WorkloadRecord
from cloudless.core.state import StateMachine, Task
from cloudless.testing.placement_rules import covers


def may_stay(tolerations: Iterable[Toleration], taints: Iterable[Taint]) -> bool:
    """Return whether no taint drives a task out."""
    held = tuple(tolerations)
    return all(
        taint.effect is not TaintEffect.NO_EXECUTE or any(covers(t, taint.key, taint.value, taint.effect) for t in held)
        for taint in taints
    )


def may_be_displaced(truth: StateMachine, workload: WorkloadRecord) -> bool:
    """Return whether the settings let a workload of higher priority, with fewer tasks than it wants, take its room."""
    held = next((entry.record for entry in truth.held(Kind.SCHEDULER).values()), None)
    if not isinstance(held, SchedulerRecord) or not held.preemption:
        return False
    return any(_is_short(truth, other.record) and other.record.spec.priority > workload.spec.priority
               for other in truth.workloads.values())  # fmt: skip


def _is_short(truth: StateMachine, record: WorkloadRecord) -> bool:
    """Whether it wants a task more, be it to replace one."""
    tasks = [truth.tasks[task_id] for task_id in truth.tasks_of(record.namespace, record.name)]
    current = [task for task in tasks if task.active and task.desired.task_generation == record.task_generation]
    leaving = [task for task in current if _is_leaving(truth, task)]
    return len(current) - len(leaving) < record.spec.replicas


def _is_leaving(truth: StateMachine, task: Task) -> bool:
    node = truth.nodes.get(task.desired.node_id)
    return node is None or not node.reachable or node.spec.draining or bool(node.spec.taints)
