"""ClusterService, the part about the scheduler: comparing nodes, displacing tasks, rebalancing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudless.coordinator.api.access import Access, Decided, check_revision
from cloudless.core import keys
from cloudless.core.membership.records import revision_of
from cloudless.core.model import SchedulerRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.scheduling import check_scheduler, scheduler_of
from cloudless.core.scheduling.settings import WEIGHTS
from cloudless.core.state import View
from cloudless.errors import InvalidSpec
from cloudless.rpc import codec
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

SETTABLE = (*WEIGHTS, "preemption", "rebalance_after_s")


class SchedulerCalls:
    """What ClusterService answers about the scheduler's settings. Any coordinator does."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def GetScheduler(self, request: pb.GetSchedulerRequest, context: Any) -> pb.GetSchedulerResponse:
        view = await self._access.settle(request.read, context)
        return pb.GetSchedulerResponse(
            header=self._access.header(),
            settings=_to_message(scheduler_of(view)),
            revision=revision_of(view, keys.SCHEDULER),
        )

    async def SetScheduler(self, request: pb.SetSchedulerRequest, context: Any) -> pb.SetSchedulerResponse:
        given = {name: getattr(request, name) for name in SETTABLE if request.HasField(name)}  # type: ignore[arg-type]

        def decide(view: View) -> Decided:
            revision, held = revision_of(view, keys.SCHEDULER), scheduler_of(view)
            check_revision(revision, request.options, "the scheduler's settings")
            wanted = replace(SchedulerRecord() if request.defaults else held, **given, updated_at_ms=held.updated_at_ms)
            problems = check_scheduler(wanted)
            if problems:
                raise InvalidSpec(problems)
            if wanted == held:
                return Decided(None, {})
            wanted = replace(wanted, updated_at_ms=self._access.clock.wall_ms())
            changed = ", ".join(f"{n}={getattr(wanted, n)}" for n in SETTABLE if getattr(wanted, n) != getattr(held, n))
            change = Change(
                puts=(PutRecord(keys.SCHEDULER, wanted), self._access.event("SchedulerSet", "cluster", changed)),
                preconditions=(Precondition(keys.SCHEDULER, revision),),
                reason=f"scheduler: {changed}",
            )
            return Decided(change, {})

        bare = pb.SetSchedulerRequest()
        bare.CopyFrom(request)
        bare.options.request_id = ""
        content = bare.SerializeToString(deterministic=True)
        written = await self._access.write(request.options, content, decide, context)
        view = self._access.view
        return pb.SetSchedulerResponse(
            header=self._access.header(written.revision),
            settings=_to_message(scheduler_of(view)),
            revision=revision_of(view, keys.SCHEDULER),
        )


def _to_message(record: SchedulerRecord) -> objects_pb2.SchedulerRecord:
    message: objects_pb2.SchedulerRecord = codec.to_message(record, objects_pb2.SchedulerRecord)
    return message
