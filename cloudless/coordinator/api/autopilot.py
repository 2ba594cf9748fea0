"""ClusterService, the part about the autopilot: its settings, and what it does or waits for."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from cloudless.coordinator.api.access import Access, Decided, check_revision
from cloudless.coordinator.api.members import MemberCalls
from cloudless.coordinator.membership import Members
from cloudless.core import keys
from cloudless.core.membership.autopilot import check_autopilot
from cloudless.core.membership.records import autopilot_of, autopilot_status_of, replacements_of, revision_of
from cloudless.core.model import AutopilotRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import View
from cloudless.errors import InvalidSpec
from cloudless.rpc import codec
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

SETTABLE = tuple(
    field.name for field in fields(AutopilotRecord) if field.name not in ("updated_at_ms", "unknown_fields")
)


class AutopilotCalls:
    """What ClusterService answers about the autopilot. Any coordinator does; the leader wrote what it says."""

    def __init__(self, access: Access, members: Members, described: MemberCalls) -> None:
        self._access, self._members, self._described = access, members, described

    async def GetAutopilot(self, request: pb.GetAutopilotRequest, context: Any) -> pb.GetAutopilotResponse:
        view = await self._access.settle(request.read, context)
        await self._members.refresh()
        members = await self._described.describe_members()
        return pb.GetAutopilotResponse(
            header=self._access.header(),
            settings=_to_message(autopilot_of(view)),
            revision=revision_of(view, keys.AUTOPILOT),
            status=codec.to_message(autopilot_status_of(view), objects_pb2.AutopilotStatus),
            members=members,
            joiners=self._described.describe_joiners(),
            replacements=[
                self._described.describe_replacement(given_up.record) for given_up in replacements_of(view).values()
            ],
        )

    async def SetAutopilot(self, request: pb.SetAutopilotRequest, context: Any) -> pb.SetAutopilotResponse:
        given = {name: getattr(request, name) for name in SETTABLE if request.HasField(name)}  # type: ignore[arg-type]

        def decide(view: View) -> Decided:
            revision, held = revision_of(view, keys.AUTOPILOT), autopilot_of(view)
            check_revision(revision, request.options, "the autopilot's settings")
            wanted = replace(AutopilotRecord() if request.defaults else held, **given, updated_at_ms=held.updated_at_ms)
            problems = check_autopilot(wanted)
            if problems:
                raise InvalidSpec(problems)
            if wanted == held:
                return Decided(None, {})
            wanted = replace(wanted, updated_at_ms=self._access.clock.wall_ms())
            changed = ", ".join(f"{n}={getattr(wanted, n)}" for n in SETTABLE if getattr(wanted, n) != getattr(held, n))
            event = self._access.event("AutopilotSet", "cluster", changed)
            change = Change(
                puts=(PutRecord(keys.AUTOPILOT, wanted), event),
                preconditions=(Precondition(keys.AUTOPILOT, revision),),
                reason=f"autopilot: {changed}",
            )
            return Decided(change, {})

        bare = pb.SetAutopilotRequest()
        bare.CopyFrom(request)
        bare.options.request_id = ""
        content = bare.SerializeToString(deterministic=True)
        written = await self._access.write(request.options, content, decide, context)
        view = self._access.view
        return pb.SetAutopilotResponse(
            header=self._access.header(written.revision),
            settings=_to_message(autopilot_of(view)),
            revision=revision_of(view, keys.AUTOPILOT),
        )


def _to_message(record: AutopilotRecord) -> objects_pb2.AutopilotRecord:
    message: objects_pb2.AutopilotRecord = codec.to_message(record, objects_pb2.AutopilotRecord)
    return message
