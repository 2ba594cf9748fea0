"""How things stand, in numbers and one word, for people. Nothing is decided here.

`explain_workload` asks the planner itself what it would do and why not more, so that an explanation
cannot differ from what happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cloudless.core.model import NodePhase, Resources, TaskState
from cloudless.core.orchestration.absence import absence_s
from cloudless.core.orchestration.census import Census, Occupant, Slot, take_census
from cloudless.core.orchestration.per_node import count_wanted
from cloudless.core.orchestration.replicas import WorkloadPlan, plan_workload
from cloudless.core.orchestration.revisions import find_rollout
from cloudless.core.scheduling import Diagnosis, Scratch
from cloudless.core.state.view import Task, View, Workload
from cloudless.errors import NotFound

UNKNOWN = "UNKNOWN"
PENDING = "PENDING"


class WorkloadState(Enum):
    """One word for a workload.

    DELETING        its tasks are being stopped, then it goes
    SCALED_TO_ZERO  nothing is wanted, nothing is active
    COMPLETED       every slot's task ended well and is not to run again
    FAILED          nothing runs, and at least one slot failed for good
    UPDATING        tasks of an older template are still there
    RUNNING         as many tasks run, and are ready, as are wanted
    STARTING        some run, the others are on their way, or not ready yet
    PENDING         none runs yet
    DEGRADED        fewer run than are wanted, because some have failed, are unknown or have no node, or some that run
                    are no longer ready
    """

    DELETING = "DELETING"
    SCALED_TO_ZERO = "SCALED_TO_ZERO"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    UPDATING = "UPDATING"
    RUNNING = "RUNNING"
    STARTING = "STARTING"
    PENDING = "PENDING"
    DEGRADED = "DEGRADED"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSummary:
    """Counts of tasks. `active` are wanted and not ended; `updated` the active ones of the present template.

    Of the active, `running` run on a node that is reachable (and `ready` of them are ready), `unknown` are on one that
    is not, `pending` are the rest. `ended_failed` and `completed` count slots whose last task ended by itself.
    """

    namespace: str
    name: str
    state: WorkloadState
    desired: int
    active: int
    running: int
    ready: int
    unknown: int
    pending: int
    updated: int
    stopping: int
    ended_failed: int
    completed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSummary:
    """`live_tasks` hold `reserved`; `free` is the capacity without it, never negative."""

    node_id: str
    phase: NodePhase
    live_tasks: int
    reserved: Resources
    free: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a workload is as it is: what it waits for and, for what cannot be placed, the counted reasons.

    `lines` says it all for a person; `unplaced` has each distinct diagnosis with its slots.
    """

    summary: WorkloadSummary
    lines: tuple[str, ...]
    unplaced: tuple[tuple[Diagnosis, tuple[int, ...]], ...]
    waiting: tuple[str, ...]
    planned: tuple[str, ...]


def task_state_word(view: View, task: Task) -> str:
    """Return the task's state for a person: PENDING before the first report, UNKNOWN while its node is away."""
    if task.ended and task.state is not None:
        return task.state.value
    if absence_s(view, task.desired.node_id, {}) is not None:
        return UNKNOWN
    return task.state.value if task.state is not None else PENDING


def summarise_workload(view: View, namespace: str, name: str) -> WorkloadSummary:
    """Count a workload's tasks. Raises NotFound."""
    workload = _get_workload(view, namespace, name)
    census = take_census(view, workload, now_ms=0, unreachable_s={})
    occupants = [occupant for slot in census.slots.values() for occupant in slot.occupants]
    running = sum(1 for o in occupants if o.running)
    unknown = sum(1 for o in occupants if o.absent_s is not None)
    endings = [slot.ending.last.state for slot in census.slots.values() if slot.ending.last and not slot.occupants]
    counts = {
        "desired": count_wanted(view, workload.record),
        "active": len(occupants),
        "running": running,
        "ready": sum(1 for o in occupants if o.available_in_s is not None),
        "unknown": unknown,
        "pending": len(occupants) - running - unknown,
        "updated": sum(1 for o in occupants if not o.outdated),
        "stopping": len(census.stopping),
        "ended_failed": sum(1 for state in endings if state is not TaskState.COMPLETED),
        "completed": sum(1 for state in endings if state is TaskState.COMPLETED),
    }
    return WorkloadSummary(namespace=namespace, name=name, state=_state_of(workload, census, counts), **counts)


def summarise_node(view: View, node_id: str) -> NodeSummary:
    """Return what a node holds and what is free on it. Raises NotFound."""
    node = view.nodes.get(node_id)
    if node is None:
        raise NotFound(f"there is no node {node_id}")
    live = [task for task_id in sorted(view.tasks_on(node_id)) if not (task := view.tasks[task_id]).ended]
    reserved = sum((task.desired.spec.requests for task in live), Resources())
    capacity = node.info.capacity if node.info else Resources()
    return NodeSummary(
        node_id=node_id,
        phase=node.phase(len(live)),
        live_tasks=len(live),
        reserved=reserved,
        free=_at_least_zero(capacity - reserved),
    )


def find_phase(view: View, node_id: str) -> NodePhase:
    """Return a node's phase as `summarise_node` does, without adding up what its tasks reserve. Raises KeyError."""
    node = view.nodes[node_id]
    live = node.spec.draining and any(not view.tasks[task_id].ended for task_id in sorted(view.tasks_on(node_id)))
    return node.phase(int(live))


def explain_workload(
    view: View, namespace: str, name: str, now_ms: int, unreachable_s: Mapping[str, float] | None = None
) -> Explanation:
    """Say why a workload is not as wanted. Raises NotFound.

    Without `unreachable_s` (a coordinator that does not lead) the stored status tells how long nodes have
    been away.
    """
    summary = summarise_workload(view, namespace, name)
    away_s = stored_absence(view, now_ms) if unreachable_s is None else unreachable_s
    term, scratch = _noting_term(view, namespace, name), Scratch(view, away_s, explains=True)
    plan = plan_workload(view, namespace, name, now_ms, term, away_s, scratch)
    slots_by: dict[Diagnosis, list[int]] = {}
    for slot, diagnosis in plan.unplaced:
        slots_by.setdefault(diagnosis, []).append(slot)
    unplaced = tuple((diagnosis, tuple(slots)) for diagnosis, slots in slots_by.items())
    return Explanation(
        summary=summary,
        lines=_explain_lines(summary, plan, unplaced),
        unplaced=unplaced,
        waiting=plan.waiting,
        planned=tuple(change.reason for change in plan.changes),
    )


def _noting_term(view: View, namespace: str, name: str) -> int:
    """Return the term whose leader noted how the rollout does: who explains decides as that one would."""
    noted = find_rollout(view, _get_workload(view, namespace, name).record)
    return noted.record.term if noted is not None else 0


def _get_workload(view: View, namespace: str, name: str) -> Workload:
    workload = view.workloads.get((namespace, name))
    if workload is None:
        raise NotFound(f"there is no workload {namespace}/{name}")
    return workload


def _state_of(workload: Workload, census: Census, counts: Mapping[str, int]) -> WorkloadState:
    desired, running, ready = counts["desired"], counts["running"], counts["ready"]
    done = [slot for slot in census.slots.values() if slot.ending.done is not None]
    if workload.record.deleted_at_ms > 0:
        return WorkloadState.DELETING
    if desired == 0:
        return WorkloadState.SCALED_TO_ZERO if counts["active"] == 0 else WorkloadState.UPDATING
    if counts["active"] > counts["updated"]:
        return WorkloadState.UPDATING
    if len(done) >= desired and not running:
        return WorkloadState.COMPLETED if all(_completed(slot) for slot in done) else WorkloadState.FAILED
    if ready + sum(1 for slot in done if _completed(slot)) >= desired:
        return WorkloadState.RUNNING
    if counts["unknown"] or counts["ended_failed"] or any(_lost_readiness(slot) for slot in census.slots.values()):
        return WorkloadState.DEGRADED
    if not running:
        return WorkloadState.PENDING
    return WorkloadState.STARTING if counts["active"] + len(done) >= desired else WorkloadState.DEGRADED


def _lost_readiness(slot: Slot) -> bool:
    seen = [o.task.observed for o in slot.occupants if o.running and not _is_ready(o)]
    return any(report is not None and report.ready_since_ms > 0 for report in seen)


def _is_ready(occupant: Occupant) -> bool:
    return occupant.task.observed is not None and occupant.task.observed.ready


def _completed(slot: Slot) -> bool:
    return slot.ending.done is not None and slot.ending.done.state is TaskState.COMPLETED


def _explain_lines(
    summary: WorkloadSummary, plan: WorkloadPlan, unplaced: tuple[tuple[Diagnosis, tuple[int, ...]], ...]
) -> tuple[str, ...]:
    head = f"{summary.state.value}: {summary.running} of {summary.desired} running"
    if summary.ready < summary.running:
        head += f", {summary.ready} ready"
    lines = [head]
    for diagnosis, slots in unplaced:
        tasks = "1 task has" if len(slots) == 1 else f"{len(slots)} tasks have"
        lines.append(f"{tasks} no node: {diagnosis.text}")
        if "host-port" in diagnosis.codes and summary.active > summary.updated:
            lines.append("a fixed port is held by an old task: allow maxUnavailable 1 or use the RECREATE strategy")
        if "workload-anti-affinity" in diagnosis.codes and summary.active > summary.updated:
            lines.append("old tasks keep new ones away: allow maxUnavailable 1 or use the RECREATE strategy")
    lines.extend(plan.waiting)
    return tuple(lines)


def stored_absence(view: View, now_ms: int) -> dict[str, float]:
    """Return the seconds each unreachable node has been so, by its stored status."""
    return {
        node_id: max(0.0, (now_ms - node.status.since_ms) / 1000)
        for node_id, node in sorted(view.nodes.items())
        if node.status is not None and not node.reachable
    }


def _at_least_zero(amount: Resources) -> Resources:
    return Resources(
        max(0, amount.cpu_millicores),
        max(0, amount.memory_mb),
        max(0, amount.storage_mb),
        max(0, amount.bandwidth_mbps),
        max(0, amount.gpus),
    )
