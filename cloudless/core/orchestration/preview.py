"""What would be done if workloads were otherwise: the planner asked about a view that does not exist.

A supposed view is the present one with some workloads' records replaced or added. The planners see it as if it had been
committed at the present revision; nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from cloudless.core.model import Desired, TaskDesired, WorkloadRecord
from cloudless.core.orchestration.replicas import OrchestrationPlan, WorkloadPlan, plan_workloads
from cloudless.core.orchestration.summary import stored_absence
from cloudless.core.plan import Change
from cloudless.core.scheduling import Scratch
from cloudless.core.state.view import View, Workload

Ref = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Preview:
    """What the leader would do first for one workload: tasks that would start and stop, and the rest of its plan."""

    starts: tuple[TaskDesired, ...]
    stops: tuple[TaskDesired, ...]
    plan: WorkloadPlan


def preview_workloads(view: View, records: Iterable[WorkloadRecord], now_ms: int) -> tuple[Preview, ...]:
    """Return what would be done if the records were these, one preview for each in their order.

    Higher priorities are planned first, as the leader does; all together share the room there is.
    """
    supposed = _Supposed(view, records)
    refs = [(record.namespace, record.name) for record in supposed.supposed]
    away_s = stored_absence(view, now_ms)
    scratch = Scratch(cast("View", supposed), away_s, explains=True)
    plan: OrchestrationPlan = plan_workloads(cast("View", supposed), refs, now_ms, 0, away_s, scratch)
    plans = {(planned.namespace, planned.name): planned for planned in plan.workloads}
    return tuple(_preview(plans.get(ref) or WorkloadPlan(*ref)) for ref in refs)


class _Supposed:
    """A `View` whose workloads are partly others; all else is the view's."""

    def __init__(self, view: View, records: Iterable[WorkloadRecord]) -> None:
        self._view = view
        self.supposed = tuple(records)
        self.workloads: Mapping[Ref, Workload] = dict(view.workloads) | {
            (record.namespace, record.name): self._as_workload(record) for record in self.supposed
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

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
