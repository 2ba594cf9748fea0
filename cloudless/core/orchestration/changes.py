"""The changes the planners make, each with the preconditions that keep it true when it is committed.

create a task    its key is absent, and the workload is as it was seen
move a task      both that of the new one, and the old one's desired record is as it was seen
stop a task      its desired record is as it was seen (and, after a move, so is its replacement)
delete a task    both its records are as they were seen
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace

from cloudless.core import keys
from cloudless.core.model import Desired, TaskDesired, TaskSpec
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import Task, View, Workload


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides, and when: the leader's term and its wall clock, for the record only."""

    term: int
    now_ms: int


def build_task_id(view: View, workload: Workload, slot: int, newest: int) -> str:
    """Return a new task's id, the same for the same decision.

    It stands for the workload's generation, the slot and the newest task known in it (its create revision, 0: none).
    A decision repeated from a view that does not show the first one's outcome yet gives the same id, so that the store
    refuses the second task.
    """
    record = workload.record
    salt = 0
    while True:
        seed = f"{record.uid}\0{slot}\0{record.generation}\0{newest}\0{salt}".encode()
        digest = base64.b32encode(hashlib.blake2b(seed, digest_size=5).digest()).decode().lower()
        task_id = f"{record.name}-{digest}"
        if task_id not in view.tasks and task_id not in view.stray_observed:
            return task_id
        salt += 1


def newest_by_slot(view: View, workload: Workload) -> dict[int, int]:
    """Return the create revision of the newest known task of each slot.

    Of one that is to run it is when that was last written: with its successor's creation or end. So a successor whose
    record has been forgotten does not get a namesake.
    """
    newest: dict[int, int] = {}
    for task_id in view.tasks_of(workload.record.namespace, workload.record.name):
        task = view.tasks[task_id]
        if task.desired.workload_uid == workload.record.uid:
            slot = task.desired.slot
            written = task.desired_revision if task.wanted else task.desired_create_revision
            newest[slot] = max(newest.get(slot, 0), written)
    return newest


@dataclass(frozen=True, slots=True)
class Template:
    """What a task is made of, and the generation that it is of."""

    generation: int
    spec: TaskSpec


def create_task(
    workload: Workload, template: Template, task_id: str, slot: int, node_id: str, decider: Decider, reason: str
) -> Change:
    """Return the change that starts a task."""
    record = workload.record
    desired = TaskDesired(
        id=task_id,
        namespace=record.namespace,
        workload=record.name,
        workload_uid=record.uid,
        task_generation=template.generation,
        slot=slot,
        node_id=node_id,
        spec=template.spec,
        term=decider.term,
        reason=reason,
        created_at_ms=decider.now_ms,
    )
    key = keys.task_desired(task_id)
    return Change(
        puts=(PutRecord(key, desired),),
        preconditions=(
            Precondition(key, 0),
            Precondition(keys.workload(record.namespace, record.name), workload.mod_revision),
        ),
        reason=f"start {task_id} on {node_id}: {reason}",
    )


def stop_task(task: Task, decider: Decider, reason: str, *, replaced_by: Task | None = None) -> Change:
    """Return the change that tells a task to stop; with `replaced_by`, only while that one is as it was seen."""
    key = keys.task_desired(task.id)
    stopped = replace(
        task.desired, desired=Desired.STOPPED, term=decider.term, reason=reason, stopped_at_ms=decider.now_ms
    )
    preconditions = [Precondition(key, task.desired_revision)]
    if replaced_by is not None:
        preconditions.append(Precondition(keys.task_desired(replaced_by.id), replaced_by.desired_revision))
        preconditions.append(Precondition(keys.task_observed(replaced_by.id), replaced_by.observed_revision))
    return Change(
        puts=(PutRecord(key, stopped),),
        preconditions=tuple(preconditions),
        reason=f"stop {task.id} on {task.desired.node_id}: {reason}",
    )


def move_task(start: Change, task_id: str, old: Task, decider: Decider) -> Change:
    """Return the change that starts `task_id` (`start`) and notes with the old task that this one takes its place."""
    key = keys.task_desired(old.id)
    marked = replace(old.desired, successor_id=task_id, term=decider.term)
    return replace(
        start,
        puts=(*start.puts, PutRecord(key, marked)),
        preconditions=(*start.preconditions, Precondition(key, old.desired_revision)),
    )


def delete_task(task: Task, reason: str) -> Change:
    """Return the change that removes both records of a task."""
    desired, observed = keys.task_desired(task.id), keys.task_observed(task.id)
    return Change(
        deletes=(desired, observed) if task.observed_revision else (desired,),
        preconditions=(Precondition(desired, task.desired_revision), Precondition(observed, task.observed_revision)),
        reason=f"forget {task.id}: {reason}",
    )


def delete_workload(workload: Workload, beside: tuple[str, ...]) -> Change:
    """Return the change that removes a workload none of whose tasks is left, and the keys `beside` it."""
    record = workload.record
    key = keys.workload(record.namespace, record.name)
    return Change(
        deletes=(key, *beside),
        preconditions=(Precondition(key, workload.mod_revision),),
        reason=f"remove workload {record.namespace}/{record.name}: all its tasks are gone",
    )
