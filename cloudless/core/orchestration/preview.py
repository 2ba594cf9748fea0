"""What would be done if workloads were otherwise: the planner asked about a view that does not exist.

A supposed view is the present one with some workloads' records replaced or added. The planners see it as if it had been
committed at the present revision; nothing of it is written. Of a rollout the leader first notes how it goes, and acts
on that in the next round: such notes are supposed, too, until there is nothing more to note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import Desired, RolloutRecord, TaskDesired, WorkloadRecord
from cloudless.core.orchestration.replicas import OrchestrationPlan, WorkloadPlan, plan_workloads
from cloudless.core.orchestration.revisions import SpecChange
from cloudless.core.orchestration.summary import stored_absence
from cloudless.core.plan import Change, PutRecord
from cloudless.core.scheduling import Scratch
from cloudless.core.state.events import Stored
from cloudless.core.state.view import View, Workload

Ref = tuple[str, str]

NOTES_MAX = 4
"""So many rounds of notes are supposed at most: a rollout that begins takes one, one under way a second."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What the leader would do first for one workload: tasks that would start and stop, and the rest of its plan."""

    starts: tuple[TaskDesired, ...]
    stops: tuple[TaskDesired, ...]
    plan: WorkloadPlan


def preview_workloads(view: View, changes: Iterable[SpecChange], now_ms: int) -> tuple[Preview, ...]:
    """Return what would be done after these changes, one preview for each in their order.

    Higher priorities are planned first, as the leader does; all together share the room there is.
    """
    supposed = _Supposed(view, changes)
    refs = [(record.namespace, record.name) for record in supposed.supposed]
    away_s = stored_absence(view, now_ms)
    plan = _plan(supposed, refs, now_ms, away_s)
    for _ in range(NOTES_MAX):
        if not supposed.note(plan):
            break
        plan = _plan(supposed, refs, now_ms, away_s)
    plans = {(planned.namespace, planned.name): planned for planned in plan.workloads}
    return tuple(_preview(plans.get(ref) or WorkloadPlan(*ref)) for ref in refs)


def _plan(supposed: _Supposed, refs: Iterable[Ref], now_ms: int, away_s: Mapping[str, float]) -> OrchestrationPlan:
    view = cast("View", supposed)
    return plan_workloads(view, refs, now_ms, 0, away_s, Scratch(view, away_s, explains=True))


class _Supposed:
    """A `View` whose workloads, their history and the notes on their rollouts are partly others."""

    def __init__(self, view: View, changes: Iterable[SpecChange]) -> None:
        self._view = view
        changed = tuple(changes)
        self.supposed = tuple(change.record for change in changed)
        self.workloads: Mapping[Ref, Workload] = dict(view.workloads) | {
            (record.namespace, record.name): self._as_workload(record) for record in self.supposed
        }
        self._held: dict[Kind, dict[tuple[str, ...], Stored]] = {Kind.REVISION: {}, Kind.ROLLOUT: {}}
        for change in changed:
            self._hold(change.puts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def held(self, kind: Kind) -> Mapping[tuple[str, ...], Stored]:
        more = self._held.get(kind)
        return {**self._view.held(kind), **more} if more else self._view.held(kind)

    def note(self, plan: OrchestrationPlan) -> bool:
        """Suppose that what the plan would note of rollouts is noted; return whether there was something."""
        puts = [put for change in plan.plan.changes for put in change.puts if isinstance(put.record, RolloutRecord)]
        self._hold(puts)
        return bool(puts)

    def _hold(self, puts: Iterable[PutRecord]) -> None:
        for put in puts:
            parsed = keys.parse(put.key)
            assert parsed is not None, f"not a key of ours: {put.key}"
            revision = self._view.revision
            self._held[parsed.kind][parsed.parts] = Stored(put.key, parsed, put.record, revision, revision, 0)

    def _as_workload(self, record: WorkloadRecord) -> Workload:
        held = self._view.workloads.get((record.namespace, record.name))
        return Workload(record, held.create_revision if held else 0, held.mod_revision if held else 0)


def _preview(plan: WorkloadPlan) -> Preview:
    written = [record for change in plan.changes for record in _tasks_in(change)]
    return Preview(
        tuple(task for task in written if task.desired is Desired.RUNNING),
        tuple(task for task in written if task.desired is Desired.STOPPED),
        plan,
    )


def _tasks_in(change: Change) -> Iterable[TaskDesired]:
    return (put.record for put in change.puts if isinstance(put.record, TaskDesired))
