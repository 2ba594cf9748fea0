"""How far a node can be relied on, from what was seen of it: a number from 0 to 1 that the scheduler weighs.

::

    seen of a node              costs   of what it has
    ──────────────────────────  ─────
    silent for the timeout      30 %
    its machine restarted       15 %
    its agent restarted          5 %
    a start failed on it         5 %    once for each workload: a bad image fails everywhere

What is lost comes back by half in `HALF_LIFE_S`. The leader counts by its own monotonic clock; the next one begins with
what is stored, and written is only what differs by `WRITE_STEP`, once in `WRITE_PERIOD_S` for a node. A fault that no
leader saw costs nothing: the number is a hint, no promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from cloudless.core import keys
from cloudless.core.model import NodeInfo, NodeStatus, Reachability, Record, TaskObserved, TaskState
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import View

HALF_LIFE_S = 6 * 3600.0
WRITE_PERIOD_S = 300.0
WRITE_STEP = 0.02
FULL_FROM = 0.99
"""From here on it counts as 1, so that a node that behaves is written no more."""


class Fault(Enum):
    """What speaks against a node."""

    SILENCE = "silence"
    REBOOT = "reboot"
    RESTART = "restart"
    FAILED_START = "failed start"


COSTS: Mapping[Fault, float] = {
    Fault.SILENCE: 0.30,
    Fault.REBOOT: 0.15,
    Fault.RESTART: 0.05,
    Fault.FAILED_START: 0.05,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """A node's number as of `at_s`. `written_at_s`: when this leader last wrote it, None for never."""

    value: float
    at_s: float
    written_at_s: float | None = None


class Blame(NamedTuple):
    """`about` tells faults of one kind apart that count once only; "": each counts."""

    node_id: str
    fault: Fault
    about: str = ""


class ReliabilityPlan(NamedTuple):
    """What to write, and the standings once that is done."""

    changes: tuple[Change, ...]
    standings: Mapping[str, Standing]


def find_blame(view: View, key: str, before: Record | None, after: Record | None) -> Blame | None:
    """Return what a change of the record under `key` says against a node, None if nothing."""
    match before, after:
        case NodeStatus(), NodeStatus() if before.reachability is Reachability.REACHABLE:
            parsed, gone = keys.parse(key), after.reachability is Reachability.UNREACHABLE
            return Blame(parsed.parts[0], Fault.SILENCE) if gone and parsed is not None else None
        case NodeInfo(), NodeInfo() if before.boot_id and after.boot_id != before.boot_id:
            return Blame(after.id, Fault.REBOOT)
        case NodeInfo(), NodeInfo() if 0 < before.incarnation < after.incarnation:
            return Blame(after.id, Fault.RESTART)
        case _, TaskObserved() if _failed_to_start(before, after):
            task = view.tasks.get(after.task_id)
            workload = f"{task.desired.namespace}/{task.desired.workload}" if task else after.task_id
            return Blame(after.node_id, Fault.FAILED_START, workload)
        case _:
            return None


def plan_reliability(
    view: View, standings: Mapping[str, Standing], blames: Iterable[Blame], now_s: float, term: int
) -> ReliabilityPlan:
    """Plan what the leader of `term` has to write of all nodes that have a status, after `blames` happened."""
    faults: dict[str, list[Fault]] = {}
    for blame in blames:
        faults.setdefault(blame.node_id, []).append(blame.fault)
    after: dict[str, Standing] = {}
    changes: list[Change] = []
    for node_id in sorted(view.nodes):
        status = view.nodes[node_id].status
        if status is None:
            continue
        standing = judge(standings.get(node_id) or Standing(status.reliability, now_s), faults.get(node_id, ()), now_s)
        if _is_due(standing, status.reliability, now_s):
            written = replace(status, reliability=round(standing.value, 3), term=term)
            changes.append(_change(view, node_id, written))
            standing = replace(standing, written_at_s=now_s)
        after[node_id] = standing
    return ReliabilityPlan(tuple(changes), after)


def judge(standing: Standing, faults: Iterable[Fault], now_s: float) -> Standing:
    """Return the standing of now: part of what was lost has come back, `faults` have cost some."""
    elapsed_s = max(0.0, now_s - standing.at_s)
    value = 1.0 - (1.0 - standing.value) * 2.0 ** (-elapsed_s / HALF_LIFE_S)
    if value >= FULL_FROM:
        value = 1.0
    for fault in faults:
        value *= 1.0 - COSTS[fault]
    return replace(standing, value=value, at_s=now_s)


def _is_due(standing: Standing, stored: float, now_s: float) -> bool:
    if standing.written_at_s is not None and now_s - standing.written_at_s < WRITE_PERIOD_S:
        return False
    return abs(standing.value - stored) >= WRITE_STEP or (standing.value == 1.0 and stored != 1.0)


def _failed_to_start(before: Record | None, after: TaskObserved) -> bool:
    """Return whether the report newly says that an attempt never ran."""
    ended = after.state in (TaskState.FAILED, TaskState.BACKOFF) and after.started_at_ms == 0 and after.attempt > 0
    return ended and not (isinstance(before, TaskObserved) and before.state is after.state)


def _change(view: View, node_id: str, status: NodeStatus) -> Change:
    key, node = keys.node_status(node_id), view.nodes[node_id]
    return Change(
        puts=(PutRecord(key, status),),
        preconditions=(
            Precondition(key, node.status_revision),
            Precondition(keys.node_info(node_id), node.info_revision),
        ),
        reason=f"node {node_id} has a reliability of {status.reliability:g}",
    )
