"""Decide which records of tasks nobody needs any more.

A task is over when it has ended, or when its node was removed. Over and not needed is a task that was
told to stop, or is outdated (and its rollout over), or whose slot has a newer task. Of those the newest
few per workload are kept, for people who ask what happened. A task that failed is kept longer if the
back-off of its slot still counts it. So is the newest of each slot that may be filled again: the next one's
id is made from it, and must not be that of one long forgotten. Tasks over that belong to no workload, or to
an earlier one of the name, are forgotten at once. Tasks of a workload that is being deleted are left to
`replicas`. Reports without a task are deleted.

`plan_reap` needs to run now and then only; a cluster that never reaps works, but grows.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloudless.core import keys
from cloudless.core.model import RolloutPhase, WorkloadMode, WorkloadRecord
from cloudless.core.orchestration.absence import GONE_S, absence_s
from cloudless.core.orchestration.census import tasks_of
from cloudless.core.orchestration.changes import delete_task
from cloudless.core.orchestration.ending import ENDS_REMEMBERED
from cloudless.core.orchestration.revisions import find_rollout
from cloudless.core.plan import Change, Precondition
from cloudless.core.state.view import Task, View

Ref = tuple[str, str]
EVENTS_A_CHANGE = 200
RECENT_MS = 600_000
"""How long an end may still count for a back-off; ten times the longest one."""


def plan_reap(
    view: View, now_ms: int, keep_per_workload: int = 5, refs: Iterable[Ref] | None = None
) -> tuple[Change, ...]:
    """Plan the deletion of records that are over and not needed, and of reports without a task.

    `refs`: the workloads (namespace, name) to look at, whether there are such or only tasks of theirs; None: all.
    """
    changes: list[Change] = []
    for namespace, name in sorted(find_refs(view) if refs is None else refs):
        if keys.workload(namespace, name) not in view.quarantined:
            changes.extend(_reap_workload(view, namespace, name, now_ms, keep_per_workload))
    for task_id in sorted(view.stray_observed):
        if keys.task_desired(task_id) not in view.quarantined:
            changes.append(_delete_stray(task_id, view.stray_observed[task_id]))
    return tuple(changes)


def find_refs(view: View) -> set[Ref]:
    """Return every workload (namespace, name) that has tasks, also those that are gone themselves."""
    return {(task.desired.namespace, task.desired.workload) for task in view.tasks.values()}


def plan_event_reap(view: View, keep: int = 5_000) -> tuple[Change, ...]:
    """Plan to forget the oldest events beyond `keep`, before their lease ends: a busy cluster tells much."""
    surplus = sorted(view.events)[: max(0, len(view.events) - keep)]
    batches = (tuple(surplus[start : start + EVENTS_A_CHANGE]) for start in range(0, len(surplus), EVENTS_A_CHANGE))
    return tuple(Change(deletes=tuple(map(keys.event, batch)), reason="forget old events") for batch in batches)


def _reap_workload(view: View, namespace: str, name: str, now_ms: int, keep: int) -> list[Change]:
    workload = view.workloads.get((namespace, name))
    tasks = tasks_of(view, namespace, name)
    if workload is None:
        return [delete_task(task, "its workload was removed") for task in tasks if _is_over(view, task)]
    record = workload.record
    if record.deleted_at_ms > 0:
        return []
    foreign = [task for task in tasks if task.desired.workload_uid != record.uid and _is_over(view, task)]
    own = sorted(
        (task for task in tasks if task.desired.workload_uid == record.uid),
        key=lambda task: (task.desired_create_revision, task.id),
        reverse=True,
    )
    unneeded = [task for task in _find_unneeded(own, _needed_generations(view, record)) if _is_over(view, task)]
    kept = {task.id for task in [task for task in unneeded if not _is_gone(view, task)][:keep]}
    kept |= _find_remembered(own, _needed_generations(view, record), now_ms)
    if record.spec.mode is WorkloadMode.REPLICATED:
        newest = {task.desired.slot: task.id for task in reversed(own) if not _is_gone(view, task)}
        kept |= {task_id for slot, task_id in newest.items() if slot < record.spec.replicas}
    return [
        *(delete_task(task, "it belongs to an earlier workload of this name") for task in foreign),
        *(delete_task(task, "it is over") for task in unneeded if task.id not in kept),
    ]


def _needed_generations(view: View, record: WorkloadRecord) -> frozenset[int]:
    """Return the workload's generation and, while a rollout to it is under way, the one it may go back to."""
    noted = find_rollout(view, record)
    if noted is None:
        under_way = record.rollout_generation > 0
        return frozenset((record.task_generation, *(record.history[-1:] if under_way else ())))
    if noted.record.rollout == record.rollout_generation and noted.record.phase is RolloutPhase.COMPLETED:
        return frozenset((record.task_generation,))
    return frozenset((record.task_generation, noted.record.stable_generation))


def _find_unneeded(newest_first: list[Task], needed: frozenset[int]) -> list[Task]:
    """Return the tasks that are told to stop, of a generation not needed any more, or superseded in their slot."""
    newer_in: set[int] = set()
    unneeded: list[Task] = []
    for task in newest_first:
        slot = task.desired.slot
        outdated = task.desired.task_generation not in needed
        if not task.wanted or slot in newer_in or outdated:
            unneeded.append(task)
        if task.wanted:
            newer_in.add(slot)
    return unneeded


def _find_remembered(newest_first: list[Task], needed: frozenset[int], now_ms: int) -> set[str]:
    """Return the ids of tasks that ended by themselves and count for their slot's back-off or retries."""
    by_slot: dict[int, list[str]] = {}
    for task in newest_first:
        current = task.wanted and task.ended and task.desired.task_generation in needed
        finished_ms = task.observed.finished_at_ms if task.observed else 0
        if current and now_ms - max(finished_ms, task.desired.created_at_ms) < RECENT_MS:
            by_slot.setdefault(task.desired.slot, []).append(task.id)
    return {task_id for ids in by_slot.values() for task_id in ids[:ENDS_REMEMBERED]}


def _is_over(view: View, task: Task) -> bool:
    return task.ended or (not task.wanted and _is_gone(view, task))


def _is_gone(view: View, task: Task) -> bool:
    return absence_s(view, task.desired.node_id, {}) == GONE_S


def _delete_stray(task_id: str, observed_revision: int) -> Change:
    key = keys.task_observed(task_id)
    return Change(
        deletes=(key,),
        preconditions=(Precondition(key, observed_revision), Precondition(keys.task_desired(task_id), 0)),
        reason=f"forget the report of {task_id}: there is no such task",
    )
