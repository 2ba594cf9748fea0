"""Decide which tasks of workloads to start and which to stop, from one view.

What is decided for a living workload is in `draft`; here are the workload that is being deleted, the
one that is gone, and the one that cannot be read (left alone: nothing is guessed from a record that
a newer version may have written). A deleted workload's tasks are told to stop, forgotten when they
have ended or their node was removed, and then the record goes.

Every change carries preconditions, so a plan that comes late does nothing. One thing is the caller's
duty: plan again only from a view that holds the caller's own earlier commits (its revision is at least
theirs), because a new task's id is made from the view's revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudless.core import keys
from cloudless.core.model import WorkloadMode
from cloudless.core.orchestration.absence import GONE_S, absence_s
from cloudless.core.orchestration.census import take_census, tasks_of
from cloudless.core.orchestration.changes import Decider, delete_task, delete_workload, stop_task
from cloudless.core.orchestration.course import hold_back
from cloudless.core.orchestration.draft import Draft
from cloudless.core.orchestration.per_node import NodeDraft, take_seats
from cloudless.core.orchestration.revisions import keys_of
from cloudless.core.orchestration.rollout import plan_rollout
from cloudless.core.orchestration.slots import choose_slots, vacant_slots
from cloudless.core.plan import Change, Plan
from cloudless.core.scheduling import Diagnosis, Scratch
from cloudless.core.state.view import View, Workload

WAITING_LINES_MAX = 20


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """What to do for one workload.

    `unplaced` are slots for which no node fits; `waiting` says in words what is waited for;
    `next_deadline_s` is when to plan again at the latest even if nothing changes. `claims` counts the tasks that room
    is being made for: it is reserved for them in this plan, and the workload must be in every plan until it has it.
    """

    namespace: str
    name: str
    changes: tuple[Change, ...] = ()
    unplaced: tuple[tuple[int, Diagnosis], ...] = ()
    waiting: tuple[str, ...] = ()
    next_deadline_s: float | None = None
    claims: int = 0


@dataclass(frozen=True, slots=True)
class OrchestrationPlan:
    """The plans of several workloads, made with one scratch view so that none takes another's room."""

    plan: Plan
    workloads: tuple[WorkloadPlan, ...] = ()
    next_deadline_s: float | None = None


def plan_workloads(
    view: View,
    refs: Iterable[tuple[str, str]],
    now_ms: int,
    term: int,
    unreachable_s: Mapping[str, float],
    scratch: Scratch | None = None,
) -> OrchestrationPlan:
    """Plan the workloads `refs` (namespace, name), each once: higher priorities first, else in that order.

    One whose task makes way for a higher priority is left out: what it does next follows from that stop.
    """
    scratch = scratch or Scratch(view, unreachable_s)
    results: list[WorkloadPlan] = []
    for namespace, name in in_order_of_priority(view, refs):
        if scratch.leaving.isdisjoint(view.tasks_of(namespace, name)):
            results.append(plan_workload(view, namespace, name, now_ms, term, unreachable_s, scratch))
    return OrchestrationPlan(
        Plan(revision=view.revision, changes=tuple(change for result in results for change in result.changes)),
        tuple(results),
        min((result.next_deadline_s for result in results if result.next_deadline_s is not None), default=None),
    )


def in_order_of_priority(view: View, refs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return workloads with the highest priority first, each once; a name without a workload counts as 0."""

    def urgency(ref: tuple[str, str]) -> int:
        workload = view.workloads.get(ref)
        return -workload.record.spec.priority if workload is not None else 0

    return sorted(dict.fromkeys(refs), key=urgency)


def plan_workload(
    view: View,
    namespace: str,
    name: str,
    now_ms: int,
    term: int,
    unreachable_s: Mapping[str, float],
    scratch: Scratch | None = None,
) -> WorkloadPlan:
    """Plan one workload; `unreachable_s` is how long each unreachable node has been so, by the leader's clock.

    A node that is missing there has just become unreachable. A name without a workload has its left-over
    tasks stopped.
    """
    unreadable = _unreadable_tasks(view, name)
    if unreadable:
        waiting = f"the record of task {', '.join(unreadable)} cannot be read: nothing is changed until it is mended"
        return WorkloadPlan(namespace, name, waiting=(waiting,))
    workload = view.workloads.get((namespace, name))
    decider = Decider(term, now_ms)
    scratch = scratch or Scratch(view, unreachable_s)
    if workload is None:
        return _plan_leftovers(view, namespace, name, decider, scratch)
    if workload.record.deleted_at_ms > 0:
        return _plan_deletion(view, workload, decider, unreachable_s, scratch)
    if keys.rollout(namespace, name) in view.quarantined:
        return WorkloadPlan(namespace, name, waiting=("the notes on its rollout cannot be read; it is left as it is",))
    return _plan_living(view, workload, decider, unreachable_s, scratch)


def _plan_living(
    view: View, workload: Workload, decider: Decider, unreachable_s: Mapping[str, float], scratch: Scratch
) -> WorkloadPlan:
    record = workload.record
    census = take_census(view, workload, decider.now_ms, unreachable_s)
    seats = None
    if record.spec.mode is WorkloadMode.PER_NODE:
        seats = take_seats(view, record, census, decider.now_ms)
        census, kept, replicas = seats.census, seats.wanted_slots(), len(seats.wanted)
    else:
        replicas = record.spec.replicas
        kept = choose_slots(census, replicas)[0]
    step = plan_rollout(view, workload, census, kept, replicas, decider)
    if step.change is not None:
        return WorkloadPlan(record.namespace, record.name, (step.change,))
    if seats is None:
        hold_back(view, record, census, step.course, (*kept, *vacant_slots(census, kept, replicas)), decider.now_ms)
        draft = Draft(view, workload, census, decider, scratch, step.course)
    else:
        hold_back(view, record, census, step.course, kept, decider.now_ms)
        draft = NodeDraft(view, workload, census, decider, scratch, step.course, seats=seats)
    draft.fill()
    deadlines = [*draft.deadlines, *([] if step.deadline_s is None else [step.deadline_s])]
    return WorkloadPlan(
        record.namespace,
        record.name,
        tuple(draft.changes),
        tuple(draft.unplaced),
        _shorten([*step.waiting, *draft.waiting]),
        min(deadlines, default=None),
        draft.claims,
    )


def _unreadable_tasks(view: View, name: str) -> tuple[str, ...]:
    """Return quarantined tasks whose id says they are of a workload of this name: they may well run."""
    found = []
    for key in sorted(view.quarantined):
        parsed = keys.parse(key)
        if parsed is not None and parsed.kind is keys.Kind.TASK_DESIRED and parsed.parts[0].rpartition("-")[0] == name:
            found.append(parsed.parts[0])
    return tuple(found)


def _plan_leftovers(view: View, namespace: str, name: str, decider: Decider, scratch: Scratch) -> WorkloadPlan:
    if keys.workload(namespace, name) in view.quarantined:
        return WorkloadPlan(namespace, name, waiting=("its record cannot be read; its tasks are left as they are",))
    active = [task for task in tasks_of(view, namespace, name) if task.active]
    for task in active:
        scratch.leave(task)
    return WorkloadPlan(namespace, name, tuple(stop_task(task, decider, "its workload was removed") for task in active))


def _plan_deletion(
    view: View, workload: Workload, decider: Decider, unreachable_s: Mapping[str, float], scratch: Scratch
) -> WorkloadPlan:
    record = workload.record
    changes: list[Change] = []
    waiting: list[str] = []
    tasks = tasks_of(view, record.namespace, record.name)
    for task in tasks:
        node_id = task.desired.node_id
        absent_s = absence_s(view, node_id, unreachable_s)
        if task.ended or absent_s == GONE_S:
            changes.append(delete_task(task, "its workload is deleted"))
            continue
        if task.wanted:
            scratch.leave(task)
            changes.append(stop_task(task, decider, "its workload is deleted"))
        away = "" if absent_s is None else f", unreachable for {absent_s:.0f} s; removing the node ends the wait"
        waiting.append(f"task {task.id} has to end on node {node_id}{away}")
    if not tasks:
        changes.append(delete_workload(workload, keys_of(view, record)))
    return WorkloadPlan(record.namespace, record.name, tuple(changes), (), _shorten(waiting))


def _shorten(lines: Sequence[str]) -> tuple[str, ...]:
    if len(lines) <= WAITING_LINES_MAX:
        return tuple(lines)
    return (*lines[: WAITING_LINES_MAX - 1], f"and {len(lines) - WAITING_LINES_MAX + 1} more")
