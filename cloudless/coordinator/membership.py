"""The members of the etcd cluster as this coordinator sees them, and the changes asked of it.

`Members` keeps the list and etcd's status fresh by asking its own member now and then; `admit` and
`remove` carry out joins and removals, each step safe to repeat, one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from cloudless.adapters.etcd.admin import EtcdAdmin, Member, MemberNotFound, MemberStatus, PeerUrlTaken
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.replica import Replica
from cloudless.core.membership.planner import MembershipStep, MemberView, check_removal, plan_membership
from cloudless.errors import CloudlessError, Conflict, FormationRefused, NotFound, Unavailable
from cloudless.ports import Clock
from cloudless.rpc.v1 import cluster_pb2 as pb

REFRESH_PERIOD_S = 1.0
LEARNER_PERIOD_S = 0.3
MOVE_REST_S = 30.0
UNSTARTED_LEARNER_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Joiner:
    """Who asks to join: its coordinator id, its raft address, and whether it brings no data."""

    node_id: str
    raft_address: str
    empty: bool


class Members:
    """The member list, at most `REFRESH_PERIOD_S` old while `run` runs and etcd answers."""

    def __init__(
        self,
        admin: EtcdAdmin,
        replica: Replica,
        clock: Clock,
        linked: Callable[[str], bool],
        etcd_url: Callable[[str], str],
    ) -> None:
        self._admin, self._replica, self._clock, self._linked = admin, replica, clock, linked
        self._etcd_url = etcd_url
        self._changing = asyncio.Lock()
        self._unstarted_s: dict[int, float] = {}
        self.list: tuple[Member, ...] = ()
        self.status: MemberStatus | None = None

    def voters(self) -> frozenset[str]:
        """Return the ids of the coordinators whose members vote."""
        return frozenset(member.name for member in self.list if not member.is_learner and member.name)

    def role_of(self, coordinator_id: str) -> str:
        """Return "voter", "learner" or "" if there is no such member."""
        member = next((member for member in self.list if member.name == coordinator_id), None)
        return "" if member is None else ("learner" if member.is_learner else "voter")

    def views(self) -> tuple[MemberView, ...]:
        return tuple(
            MemberView(
                id=member.id,
                name=member.name,
                peer_urls=member.peer_urls,
                learner=member.is_learner,
                started=bool(member.client_urls),
                linked=self._linked(member.name),
            )
            for member in self.list
        )

    async def run(self) -> None:
        """Keep the list and the status fresh."""
        while True:
            try:
                await self.refresh()
            except CloudlessError as error:
                logger.debug("member list not refreshed: {}", error)
            await self._clock.sleep(REFRESH_PERIOD_S)

    async def refresh(self) -> None:
        """Ask etcd now. Raises Unavailable; the list stays as it was."""
        self.status = await self._admin.status()
        self.list = await self._admin.members()

    # --- joining and leaving ---

    async def admit(self, joiner: Joiner) -> pb.JoinRaftClusterResponse:
        """Add the joiner's member as a learner and tell it how to start; repeating it gives the same answer.

        Raises FormationRefused for an id that a living coordinator uses, Unavailable while etcd does not
        take a change (one learner at a time, too few healthy members): ask again later.
        """
        async with self._changing:
            await self.refresh()
            peer_url = self._etcd_url(joiner.raft_address)
            self._refuse_living(joiner, peer_url)
            member = next((m for m in self.list if m.name == joiner.node_id or peer_url in m.peer_urls), None)
            if member is not None and (member.name or not member.is_learner):
                if not joiner.empty:
                    raise Conflict(f"{joiner.node_id} is a member already and has its data: start it as it is")
                await self._remove(member)
                member = None
            if member is None:
                member = await self._add(peer_url)
                logger.info("{} joins as learner {:x}", joiner.node_id, member.id)
            await self.refresh()
            return self._instructions(joiner, member)

    def _refuse_living(self, joiner: Joiner, peer_url: str) -> None:
        """Two coordinators with one id would take each other's place for ever."""
        coordinators = self._replica.machine.coordinators
        record = coordinators.get(joiner.node_id)
        if record is not None and not self._linked(joiner.node_id):
            raise Unavailable(f"the lease of the {joiner.node_id} before has not ended yet", hint="it is tried again")
        if record is not None:
            raise FormationRefused(
                f"a living coordinator has the id {joiner.node_id} (at {record.api_address})",
                hint="give this one its own CLOUDLESS_NODE_ID, or stop the other",
            )
        owner = next((m.name for m in self.list if peer_url in m.peer_urls and m.name not in ("", joiner.node_id)), "")
        if owner in coordinators:
            raise FormationRefused(
                f"the raft address {joiner.raft_address} belongs to {owner}",
                hint="set CLOUDLESS_RAFT_ADDR to this host's own",
            )

    async def _add(self, peer_url: str) -> Member:
        await self._clear_way()
        try:
            return await self._admin.add_learner([peer_url])
        except PeerUrlTaken as error:  # an earlier try whose answer was lost
            raise Unavailable("the member was just added: ask again") from error

    async def _clear_way(self) -> None:
        """Remove a learner that was added and never started: etcd takes one at a time, so it would block all others."""
        now_s = self._clock.monotonic_s()
        waiting = {member.id for member in self.list if member.is_learner and not member.name}
        self._unstarted_s = {id: self._unstarted_s.get(id, now_s) for id in waiting}
        for member_id, since_s in self._unstarted_s.items():
            if now_s - since_s > UNSTARTED_LEARNER_MAX_S:
                logger.warning("learner {:x} never started: removing it", member_id)
                await self._admin.remove(member_id)

    def _instructions(self, joiner: Joiner, member: Member) -> pb.JoinRaftClusterResponse:
        assert self.status is not None
        return pb.JoinRaftClusterResponse(
            member_id=member.id,
            etcd_cluster_id=self.status.cluster_id,
            initial_cluster=[
                pb.InitialMember(
                    name=joiner.node_id if m.id == member.id else m.name or f"member-{m.id:x}", peer_url=url
                )
                for m in self.list
                for url in m.peer_urls
            ],
            cluster_token="cloudless",
        )

    async def remove(self, coordinator_id: str) -> None:
        """Remove a coordinator's member, or one by its id in hex (it may never have got a name).

        Raises NotFound, Conflict if the rest would have no healthy majority.
        """
        async with self._changing:
            await self.refresh()
            named = (member for member in self.list if coordinator_id in (member.name, f"{member.id:x}"))
            member = next(named, None)
            if member is None:
                raise NotFound(f"no member belongs to {coordinator_id}", hint="see cloudless cluster members")
            await self._remove(member)

    async def move(self, coordinator_id: str, raft_address: str) -> None:
        """Tell the cluster where a coordinator's member will listen; repeating it changes nothing.

        Raises NotFound, FormationRefused if the address is another member's.
        """
        async with self._changing:
            await self.refresh()
            peer_url = self._etcd_url(raft_address)
            member = next((member for member in self.list if member.name == coordinator_id), None)
            if member is None:
                raise NotFound(f"no member belongs to {coordinator_id}", hint="see cloudless cluster members")
            if member.peer_urls == (peer_url,):
                return
            owner = next((m for m in self.list if peer_url in m.peer_urls and m.id != member.id), None)
            if owner is not None:
                raise FormationRefused(
                    f"the raft address {raft_address} belongs to {owner.name or hex(owner.id)}",
                    hint="give each coordinator a raft address of its own",
                )
            await self._admin.update_peer_urls(member.id, [peer_url])
            logger.warning("member {:x} of {} moves to {}", member.id, coordinator_id, raft_address)
            await self.refresh()

    async def _remove(self, member: Member) -> None:
        danger = check_removal(self.views(), member.id)
        if danger:
            raise Conflict(f"removing {member.name or hex(member.id)} would endanger the quorum: {danger}")
        try:
            await self._admin.remove(member.id)
        except MemberNotFound:
            return
        logger.warning("member {:x} of {} removed", member.id, member.name or "nobody")


class MembershipController:
    """The leader's care for the members: promotes learners, keeps etcd's leader off its own host."""

    def __init__(self, members: Members, admin: EtcdAdmin, clock: Clock) -> None:
        self._members, self._admin, self._clock = members, admin, clock
        self._rests_until_s: dict[int, float] = {}

    async def run(self, term: int, committer: Committer) -> None:
        while True:
            pause_s = REFRESH_PERIOD_S
            try:
                await self._members.refresh()
                pause_s = await self._take_step()
            except CloudlessError as error:
                logger.debug("membership step put off: {}", error)
                pause_s = LEARNER_PERIOD_S
            await self._clock.sleep(pause_s)

    async def _take_step(self) -> float:
        """Do the one step that is due; return the seconds until the next look."""
        status, now_s = self._members.status, self._clock.monotonic_s()
        assert status is not None
        decision = plan_membership(
            self._members.views(),
            own_member_id=status.member_id,
            raft_leader_id=status.leader_id,
            resting=frozenset(id for id, until_s in self._rests_until_s.items() if until_s > now_s),
        )
        match decision.step:
            case MembershipStep.PROMOTE:
                await self._admin.promote(decision.member_id)
                logger.info("member {:x} promoted to voter: {}", decision.member_id, decision.reason)
            case MembershipStep.MOVE_LEADER:
                # While a transfer is tried etcd takes no writes: one that fails must not be tried again at once.
                self._rests_until_s[decision.member_id] = self._clock.monotonic_s() + MOVE_REST_S
                await self._admin.move_leader(decision.member_id)
                del self._rests_until_s[decision.member_id]
                logger.info("{}", decision.reason)
            case MembershipStep.WAIT:
                return LEARNER_PERIOD_S if decision.reason else REFRESH_PERIOD_S
        return LEARNER_PERIOD_S
