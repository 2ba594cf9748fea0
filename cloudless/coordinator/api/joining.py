"""How a coordinator that asks to join gets into the queue, and learns how to start once it is a learner.

Whoever is asked writes the wish into the state (`joins/<id>`); the leader's autopilot works the queue. The asker is
held for a moment, so that a join that need not wait takes one call; after that it is told what it waits for and asks
again. Asking again changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from cloudless.adapters.etcd.admin import Member
from cloudless.coordinator.api.access import Access, Decided, deadline_s
from cloudless.coordinator.asking import ask_formation
from cloudless.coordinator.feature_level import check_fit
from cloudless.coordinator.membership import Members
from cloudless.core import keys
from cloudless.core.membership.records import autopilot_status_of, joins_of
from cloudless.core.model import JoinRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import View
from cloudless.errors import Conflict, FormationRefused, Unavailable
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import common_pb2

HOLD_S = 4.0
LOOK_PERIOD_S = 0.1
QUEUE_LENGTH_MAX = 16
"""There are at most seven voters; whoever asks for more places than this means no good."""


@dataclass(frozen=True, slots=True)
class Joiner:
    """Who asks to join: its id, its addresses, and whether it brings no data."""

    node_id: str
    raft_address: str
    api_address: str
    empty: bool
    etcd_version: str = ""
    version: str = ""


class Admission:
    """Answers JoinRaftCluster, over gRPC and HTTP alike."""

    def __init__(self, access: Access, members: Members) -> None:
        self._access, self._members = access, members

    async def admit(self, joiner: Joiner, context: Any) -> pb.JoinRaftClusterResponse:
        """Queue the joiner and tell it how to start, once its member is a learner.

        Raises VersionRefused for a version that may not run here, FormationRefused for an id or address that a living
        coordinator uses, Conflict for a member that has its data, Unavailable with the reason while it has to wait.
        """
        cluster = self._access.view.cluster
        check_fit(joiner.version, cluster.feature_level if cluster else "")
        await self._members.refresh()
        await self._refuse_living(joiner)
        await self._make_way(joiner)
        clock = self._access.clock
        ends_s = clock.monotonic_s() + min(HOLD_S, deadline_s(context) / 2)
        member = self._find_place(joiner)
        if member is None:
            await self._queue(joiner, context)
        while member is None:
            if clock.monotonic_s() > ends_s:
                raise Unavailable(self._why_not_yet(joiner), hint="it is tried again")
            await clock.sleep(LOOK_PERIOD_S)
            await self._members.refresh()
            member = self._find_place(joiner)
        return self._instructions(joiner, member)

    def _peer_url(self, joiner: Joiner) -> str:
        return self._members.own.etcd_url(joiner.raft_address)

    def _find_place(self, joiner: Joiner) -> Member | None:
        """Return the learner that was added for the joiner and has not started yet."""
        waiting = (
            m for m in self._members.list if m.is_learner and not m.name and self._peer_url(joiner) in m.peer_urls
        )
        return next(waiting, None)

    async def _refuse_living(self, joiner: Joiner) -> None:
        """Two coordinators with one id would take each other's place for ever."""
        coordinators = self._access.view.coordinators
        record = coordinators.get(joiner.node_id)
        if record is not None and not self._is_linked(joiner.node_id):
            raise Unavailable(f"the lease of the {joiner.node_id} before has not ended yet", hint="it is tried again")
        if record is not None:
            raise _id_taken(joiner, record.api_address)
        holders = (m.name for m in self._members.list if self._peer_url(joiner) in m.peer_urls)
        owner = next((name for name in holders if name not in ("", joiner.node_id)), "")
        if owner in coordinators:
            raise FormationRefused(
                f"the raft address {joiner.raft_address} belongs to {owner}",
                hint="set CLOUDLESS_RAFT_ADDR to this host's own",
            )
        asking = joins_of(self._access.view).get(joiner.node_id)
        addresses = joiner.raft_address, joiner.api_address
        if (
            asking is not None
            and asking.record.raft_address != addresses[0]
            and asking.record.api_address != addresses[1]
        ):
            elsewhere = asking.record.api_address
            said = (await ask_formation(self._members.own.dialler, [elsewhere])).get(elsewhere)
            if said is not None and said.node_id == joiner.node_id:
                raise _id_taken(joiner, elsewhere)

    def _is_linked(self, coordinator_id: str) -> bool:
        return any(view.linked for view in self._members.views() if view.name == coordinator_id)

    async def _make_way(self, joiner: Joiner) -> None:
        """A learner that comes back empty never voted: its old member goes at once. A voter's is the leader's."""
        member = next((m for m in self._members.list if m.name == joiner.node_id), None)
        if member is None:
            return
        if not joiner.empty:
            raise Conflict(f"{joiner.node_id} is a member already and has its data: start it as it is")
        if member.is_learner:
            await self._members.remove(f"{member.id:x}")
            await self._members.refresh()

    async def _queue(self, joiner: Joiner, context: Any) -> None:
        key = keys.join(joiner.node_id)

        def decide(view: View) -> Decided:
            asking = joins_of(view).get(joiner.node_id)
            if asking is None and len(joins_of(view)) >= QUEUE_LENGTH_MAX:
                raise Conflict(
                    f"{QUEUE_LENGTH_MAX} coordinators wait to join already", hint="let some of them go first"
                )
            held = asking.record if asking else None
            record = replace(
                held or JoinRecord(id=joiner.node_id),
                raft_address=joiner.raft_address,
                api_address=joiner.api_address,
                etcd_version=joiner.etcd_version,
                asked_at_ms=held.asked_at_ms if held else self._access.clock.wall_ms(),
            )
            if record == held:
                return Decided(None, {})
            before = Precondition(key, asking.mod_revision if asking else 0)
            put = PutRecord(key, record)
            return Decided(Change(puts=(put,), preconditions=(before,), reason=f"{joiner.node_id} asks to join"), {})

        content = repr(joiner).encode()
        await self._access.write(common_pb2.WriteOptions(), content, decide, context)
        logger.info("{} asks to join from {}", joiner.node_id, joiner.api_address)

    def _why_not_yet(self, joiner: Joiner) -> str:
        said = [w.reason for w in autopilot_status_of(self._access.view).waits if w.subject == joiner.node_id]
        if said:
            return f"{joiner.node_id} {'; '.join(said)}"
        return f"{joiner.node_id} is in the queue of those who join; the leader has not come to it yet"

    def _instructions(self, joiner: Joiner, member: Member) -> pb.JoinRaftClusterResponse:
        status = self._members.status
        assert status is not None
        return pb.JoinRaftClusterResponse(
            member_id=member.id,
            etcd_cluster_id=status.cluster_id,
            initial_cluster=[
                pb.InitialMember(
                    name=joiner.node_id if m.id == member.id else m.name or f"member-{m.id:x}", peer_url=url
                )
                for m in self._members.list
                for url in m.peer_urls
            ],
            cluster_token="cloudless",
        )


def _id_taken(joiner: Joiner, at: str) -> FormationRefused:
    return FormationRefused(
        f"a living coordinator has the id {joiner.node_id} (at {at})",
        hint="give this one its own CLOUDLESS_NODE_ID, or stop the other",
    )
