"""What applying manifests would do, as messages: fields that change, tasks that start, stop or find no node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudless.core.manifest import WorkloadManifest, diff_values
from cloudless.core.model import TaskDesired, WorkloadRecord
from cloudless.core.orchestration import SpecChange, preview_workloads
from cloudless.core.scheduling import Diagnosis
from cloudless.core.state import View, Workload
from cloudless.rpc.v1 import workload_pb2 as pb


@dataclass(frozen=True, slots=True)
class Wanted:
    """One manifest, what is held under its name, what it would write, and the word for what it would do."""

    manifest: WorkloadManifest
    held: Workload | None
    change: SpecChange
    action: str


def plan_manifests(view: View, wanted: Sequence[Wanted], now_ms: int) -> list[pb.PlannedWorkload]:
    """Return what would be done first for each, as the leader would decide it from this view."""
    previews = preview_workloads(view, [each.change for each in wanted], now_ms)
    return [
        pb.PlannedWorkload(
            namespace=each.manifest.namespace,
            name=each.manifest.name,
            action=each.action,
            fields=[
                pb.PlannedField(path=path, before=before, after=after)
                for path, before, after in diff_values(each.held.record.spec if each.held else None, each.manifest.spec)
            ],
            starts=[_to_planned(task, each.change.record) for task in preview.starts],
            stops=[_to_planned(task, each.change.record) for task in preview.stops],
            unplaced=[to_diagnosis(slot, diagnosis) for slot, diagnosis in preview.plan.unplaced],
            waiting=preview.plan.waiting,
        )
        for each, preview in zip(wanted, previews, strict=True)
    ]


def to_diagnosis(slot: int, diagnosis: Diagnosis) -> pb.SlotDiagnosis:
    """Return why a slot has no node."""
    return pb.SlotDiagnosis(
        slot=slot,
        text=diagnosis.text,
        nodes_total=diagnosis.nodes_total,
        reasons=[pb.ReasonCount(reason=reason, count=count) for reason, count in diagnosis.reasons],
        nearest=[pb.NearMiss(node_id=node_id, obstacles=obstacles) for node_id, obstacles in diagnosis.nearest],
    )


def _to_planned(task: TaskDesired, record: WorkloadRecord) -> pb.PlannedTask:
    foreign = (task.namespace, task.workload) != (record.namespace, record.name)
    return pb.PlannedTask(
        task_id=task.id,
        slot=task.slot,
        node_id=task.node_id,
        reason=task.reason,
        workload=f"{task.namespace}/{task.workload}" if foreign else "",
    )
