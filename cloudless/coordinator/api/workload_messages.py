"""Workloads as the API shows them, written once and kept until something they tell of changes.

A list of a thousand workloads would count every task of each of them anew. What is kept here is dropped by
the very changes that could alter it: of the workload, of one of its tasks, and (all of it) of a node or of
an entry that cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import TaskDesired
from cloudless.core.orchestration import summarise_workload
from cloudless.core.state import Applied, Transition, View, Workload
from cloudless.rpc import codec
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1 import workload_pb2 as pb

KEPT_MAX = 10_000

_WITHOUT_EFFECT = frozenset(
    (
        *(Kind.CLUSTER, Kind.COORDINATOR, Kind.ELECTION, Kind.SUSPICION, Kind.EVENT, Kind.REQUEST),
        *(Kind.REVISION, Kind.ROLLOUT),
        *(Kind.AUTOPILOT, Kind.AUTOPILOT_STATUS, Kind.SCHEDULER, Kind.JOIN, Kind.REPLACEMENT),
    )
)


@dataclass(slots=True)
class _Kept:
    """What was written once. `entry`: the message as an entry of a list's bytes, b"" until one was asked for."""

    revision: int
    message: pb.Workload
    entry: bytes = b""


class WorkloadMessages:
    """The messages of one coordinator's workloads. What it returns is shared: copy before changing it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._kept: dict[tuple[str, str], _Kept] = {}
        replica.listen(self._on_applied)

    def of(self, workload: Workload) -> pb.Workload:
        """Return the workload with the counts of its tasks."""
        return self._keep(workload).message

    def entries_of(self, workloads: Iterable[Workload]) -> list[bytes]:
        """Return the same of each, as the bytes it is in a ListWorkloadsResponse."""
        kept, entries = self._kept, []
        for workload in workloads:
            record = workload.record
            held = kept.get((record.namespace, record.name))
            if held is None or held.revision != workload.mod_revision:
                held = self._keep(workload)
            if not held.entry:
                held.entry = pb.ListWorkloadsResponse(workloads=[held.message]).SerializeToString()
            entries.append(held.entry)
        return entries

    def _keep(self, workload: Workload) -> _Kept:
        ref = workload.record.namespace, workload.record.name
        kept = self._kept.get(ref)
        if kept is None or kept.revision != workload.mod_revision:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            message = to_workload(self._replica.machine, workload)
            kept = self._kept[ref] = _Kept(workload.mod_revision, message)
        return kept

    def _on_applied(self, applied: Applied) -> None:
        for transition in applied.transitions:
            if transition.kind not in _WITHOUT_EFFECT:
                self._drop(transition)

    def _drop(self, transition: Transition) -> None:
        match transition.kind:
            case Kind.WORKLOAD:
                parsed = keys.parse(transition.key)
                assert parsed is not None
                self._kept.pop((parsed.parts[0], parsed.parts[1]), None)
            case Kind.TASK_DESIRED:
                for record in (transition.before, transition.after):
                    if isinstance(record, TaskDesired):
                        self._kept.pop((record.namespace, record.workload), None)
            case Kind.TASK_OBSERVED:
                parsed = keys.parse(transition.key)
                assert parsed is not None
                task = self._replica.machine.tasks.get(parsed.parts[0])
                if task is not None:
                    self._kept.pop((task.desired.namespace, task.desired.workload), None)
            case _:
                self._kept.clear()


def to_workload(view: View, workload: Workload) -> pb.Workload:
    """Return a workload with the counts of its tasks."""
    record = workload.record
    summary = summarise_workload(view, record.namespace, record.name)
    return pb.Workload(
        record=codec.to_message(record, objects_pb2.WorkloadRecord),
        revision=workload.mod_revision,
        summary=pb.WorkloadSummary(
            desired=summary.desired,
            active=summary.active,
            running=summary.running,
            ready=summary.ready,
            unknown=summary.unknown,
            pending=summary.pending,
            updated=summary.updated,
            failed=summary.ended_failed,
            state=summary.state.value,
            completed=summary.completed,
        ),
    )
