"""WorkloadService, the part about changes: how a rollout is doing, orders to it, the templates there were before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cloudless.adapters.yaml_documents import dump_yaml
from cloudless.coordinator.api.access import Access, Decided, check_revision, content_of, with_puts
from cloudless.coordinator.api.workload_messages import to_workload
from cloudless.coordinator.api.workloads import find_workload
from cloudless.core import keys
from cloudless.core.manifest import to_manifest
from cloudless.core.model import WorkloadRecord
from cloudless.core.orchestration import SpecChange, explain_workload, find_revision, find_rollout
from cloudless.core.orchestration.orders import pause, promote, resume, undo
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import View
from cloudless.errors import Conflict, InvalidSpec, Problem
from cloudless.rpc import codec
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1 import workload_pb2 as pb

GENERATION_MAX = 2**62
_DONE = {
    pb.ROLLOUT_ACTION_PAUSE: "paused",
    pb.ROLLOUT_ACTION_RESUME: "resumed",
    pb.ROLLOUT_ACTION_PROMOTE: "promoted",
    pb.ROLLOUT_ACTION_UNDO: "undone",
}


class Rollouts:
    """GetRollout, UpdateRollout and ListRevisions."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def GetRollout(self, request: pb.GetRolloutRequest, context: Any) -> pb.GetRolloutResponse:
        view = await self._access.settle(request.read, context)
        workload = find_workload(view, request.namespace, request.name)
        record = workload.record
        noted = find_rollout(view, record)
        explained = explain_workload(view, record.namespace, record.name, self._access.clock.wall_ms())
        answer = pb.GetRolloutResponse(
            header=self._access.header(), workload=to_workload(view, workload), waiting=list(explained.lines[1:])
        )
        if noted is not None and noted.record.rollout == record.rollout_generation:
            answer.rollout.CopyFrom(codec.to_message(noted.record, objects_pb2.RolloutRecord))
        return answer

    async def UpdateRollout(self, request: pb.UpdateRolloutRequest, context: Any) -> pb.UpdateRolloutResponse:
        _check_order(request)

        def decide(view: View) -> Decided:
            held = find_workload(view, request.namespace, request.name)
            check_revision(held.mod_revision, request.options, f"workload {request.name}")
            if held.record.deleted_at_ms:
                raise Conflict(f"workload {request.name} is being deleted")
            changed = self._order_of(request)(view, held.record)
            if changed is None:
                return Decided(None, {})
            record = replace(changed.record, updated_at_ms=self._access.clock.wall_ms())
            key = keys.workload(record.namespace, record.name)
            what = f"rollout {_DONE[request.action]}"
            change = Change(
                puts=(PutRecord(key, record), *changed.puts),
                deletes=changed.deletes,
                preconditions=(Precondition(key, held.mod_revision),),
                reason=what,
            )
            subject = f"workload/{record.namespace}/{record.name}"
            return Decided(with_puts(change, self._access.event("RolloutUpdated", subject, what)), {})

        written = await self._access.write(
            request.options, content_of(request), decide, context, makes_room=request.action != pb.ROLLOUT_ACTION_UNDO
        )
        workload = find_workload(self._access.view, request.namespace, request.name)
        return pb.UpdateRolloutResponse(
            header=self._access.header(written.revision), workload=to_workload(self._access.view, workload)
        )

    def _order_of(self, request: pb.UpdateRolloutRequest) -> Callable[[View, WorkloadRecord], SpecChange | None]:
        match request.action:
            case pb.ROLLOUT_ACTION_PAUSE:
                return pause
            case pb.ROLLOUT_ACTION_RESUME:
                return resume
            case pb.ROLLOUT_ACTION_PROMOTE:
                return promote
        now_ms = self._access.clock.wall_ms()
        return lambda view, record: undo(view, record, request.to_generation, now_ms)

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Any) -> pb.ListRevisionsResponse:
        view = await self._access.settle(request.read, context)
        record = find_workload(view, request.namespace, request.name).record
        found = [pb.Revision(generation=record.task_generation, current=True, manifest=dump_yaml(to_manifest(record)))]
        for generation in reversed(record.history):
            kept = find_revision(view, record, generation)
            if kept is not None:
                found.append(
                    pb.Revision(
                        generation=generation,
                        manifest=dump_yaml(to_manifest(replace(record, spec=kept.spec))),
                        replaced_at_ms=kept.replaced_at_ms,
                        reason=kept.reason,
                    )
                )
        return pb.ListRevisionsResponse(header=self._access.header(), revisions=found)


def _check_order(request: pb.UpdateRolloutRequest) -> None:
    if request.action not in _DONE:
        words = ", ".join(name.removeprefix("ROLLOUT_ACTION_") for name in pb.RolloutAction.keys()[1:])
        raise InvalidSpec([Problem("action", f"must be one of {words}")])
    if not 0 <= request.to_generation <= GENERATION_MAX:
        raise InvalidSpec([Problem("to_generation", "must be a generation, or 0 for the one before")])
    if request.to_generation and request.action != pb.ROLLOUT_ACTION_UNDO:
        raise InvalidSpec([Problem("to_generation", "goes with the action UNDO only")])
