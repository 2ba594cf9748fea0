"""Whether a coordinator whose member was removed may put its old data aside and join as a new one.

A removed member's data are of no use to it, yet they may be the last copy of something: they are not put aside without
a reason. Its operator says so (CLOUDLESS_REJOIN), or it is awaited (`cluster replace … ID`), or it was a learner that
only gave way because it made no headway. In every other case it ends and says how to go on.
"""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.member.marker import Marker, MarkerState
from cloudless.coordinator.asking import call_once
from cloudless.coordinator.departure import REMOVED_HINT
from cloudless.coordinator.neighbours import Neighbours
from cloudless.errors import CloudlessError, MemberRemoved
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import common_pb2
from cloudless.settings import CoordinatorSettings

WHY_TIMEOUT_S = 1.5


async def check_rejoin(settings: CoordinatorSettings, marker: Marker, neighbours: Neighbours) -> None:
    """Return if this coordinator may join as a new member. Raises MemberRemoved with the way to allow it."""
    own_id = settings.node_id
    if settings.rejoin:
        logger.warning("{} is no member any more; it joins as a new one, as CLOUDLESS_REJOIN says", own_id)
        return
    answers = (await neighbours.ask()).answers.values()
    if any(own_id in answer.awaited for answer in answers):
        logger.warning("{} is no member any more and is awaited: it joins as a new one", own_id)
        return
    member_id = int(marker.member_id or "0", 16)
    if any(member_id in answer.dropped_member_ids for answer in answers):
        logger.warning("{} gave way as a learner that made no headway; it asks to join again", own_id)
        return
    left = marker.state is MarkerState.LEFT
    said = f"{own_id} has left the cluster" if left else f"the cluster has removed the member of {own_id}"
    raise MemberRemoved(said, hint=REMOVED_HINT)


async def find_wait(dialler: Dialler, others: Sequence[str], own_id: str) -> str:
    """Return why this learner does not vote yet, in the autopilot's words; "" if nobody tells."""
    read = common_pb2.ReadOptions(consistency=common_pb2.CONSISTENCY_STALE)
    for address in others:
        try:
            answer = await call_once(
                dialler,
                address,
                lambda stub: stub.GetAutopilot(pb.GetAutopilotRequest(read=read), timeout=WHY_TIMEOUT_S),
            )
        except CloudlessError:
            continue
        return "; ".join(wait.reason for wait in answer.status.waits if wait.subject == own_id)
    return ""
