"""The members of the etcd cluster as this coordinator sees them, and the changes that are asked of it.

`Members` keeps the list and etcd's status fresh by asking its own member now and then. What the leader does with the
members by itself is `autopilot`'s; how a coordinator gets into the queue of those who join is `api.joining`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from loguru import logger

from cloudless.adapters.etcd.admin import (
    CONNECTED_LEAST_S,
    ConnectedTooShortly,
    EtcdAdmin,
    Member,
    MemberNotFound,
    MemberStatus,
)
from cloudless.coordinator.credentials import OwnCredentials
from cloudless.coordinator.replica import Replica
from cloudless.core.membership.observed import MemberView
from cloudless.core.membership.quorum import check_removal
from cloudless.core.membership.returning import Reached
from cloudless.errors import CloudlessError, Conflict, FormationRefused, NotFound
from cloudless.ports import Clock

REFRESH_PERIOD_S = 1.0
SETTLING_S = CONNECTED_LEAST_S + 2.0
"""How long a removal waits for members that have just connected. Who asks for one has to wait longer than that."""
SETTLING_PERIOD_S = 0.25


class Members:
    """The member list, at most `REFRESH_PERIOD_S` old while `run` runs and etcd answers.

    `linked`, `ailments` and `heard` tell what the other coordinators say: whether one answers, what ails which, and
    how far its member has got.
    """

    def __init__(
        self,
        admin: EtcdAdmin,
        replica: Replica,
        clock: Clock,
        linked: Callable[[str], bool],
        *,
        ailments: Callable[[], Mapping[str, str]] = dict,
        heard: Callable[[str], Reached | None] = lambda _: None,
        own: OwnCredentials | None = None,
    ) -> None:
        self._admin, self._replica, self._clock = admin, replica, clock
        self._linked, self._ailments, self._heard = linked, ailments, heard
        self.own = own or OwnCredentials()
        self._changing = asyncio.Lock()
        self.list: tuple[Member, ...] = ()
        self.status: MemberStatus | None = None

    def voters(self) -> frozenset[str]:
        """Return the ids of the coordinators whose members vote."""
        return frozenset(member.name for member in self.list if not member.is_learner and member.name)

    def names(self) -> frozenset[str]:
        """Return the ids of all coordinators that have a member, learners too."""
        return frozenset(member.name for member in self.list if member.name)

    def role_of(self, coordinator_id: str) -> str:
        """Return "voter", "learner" or "" if there is no such member."""
        member = next((member for member in self.list if member.name == coordinator_id), None)
        return "" if member is None else ("learner" if member.is_learner else "voter")

    def views(self) -> tuple[MemberView, ...]:
        ailments, registered = self._ailments(), self._replica.machine.coordinators
        return tuple(
            MemberView(
                id=member.id,
                name=member.name,
                peer_urls=member.peer_urls,
                learner=member.is_learner,
                started=bool(member.client_urls),
                linked=self._linked(member.name),
                registered=member.name in registered,
                ailment=ailments.get(member.name, ""),
                raft_index=self._raft_index(member),
            )
            for member in self.list
        )

    def _raft_index(self, member: Member) -> int:
        if self.status is not None and member.id == self.status.member_id:
            return self.status.raft_applied_index
        heard = self._heard(member.name)
        return heard.raft_index if heard is not None and heard.member_id == f"{member.id:x}" else 0

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

    def find(self, coordinator_id: str) -> Member:
        """Return a coordinator's member, or one by its id in hex (it may never have got a name). Raises NotFound."""
        named = (member for member in self.list if coordinator_id in (member.name, f"{member.id:x}"))
        member = next(named, None)
        if member is None:
            raise NotFound(f"no member belongs to {coordinator_id}", hint="see cloudless cluster members")
        return member

    async def hand_raft_leadership_over(self) -> None:
        """Give etcd's leadership to a healthy voter, if our own member has it."""
        await self.refresh()
        status = self.status
        if status is None or status.leader_id != status.member_id:
            return
        others = [view.id for view in self.views() if view.linked and view.started and not view.learner]
        others = [member_id for member_id in others if member_id != status.member_id]
        if others:
            await self._admin.move_leader(min(others))

    # --- changes on request ---

    async def remove(self, coordinator_id: str, *, force: bool = False) -> None:
        """Remove a coordinator's member, or one by its id in hex.

        Waits up to `SETTLING_S` for members that have just connected. Raises NotFound, Conflict if the rest would have
        no healthy majority as far as the coordinators' links tell.
        `force` leaves that judgement to etcd, which refuses to give a quorum away that it has (ReconfigurationUnsafe).
        """
        async with self._changing:
            await self.refresh()
            member = self.find(coordinator_id)
            self.check_removal(member, force=force)
            try:
                await self._remove_once_settled(member.id)
            except MemberNotFound:
                return
            logger.warning("member {:x} of {member} removed", member.id, member=member.name or "nobody")

    async def _remove_once_settled(self, member_id: int) -> None:
        ends_s = self._clock.monotonic_s() + SETTLING_S
        while True:
            try:
                return await self._admin.remove(member_id)
            except ConnectedTooShortly:
                if self._clock.monotonic_s() > ends_s:
                    raise
            await self._clock.sleep(SETTLING_PERIOD_S)

    def check_removal(self, member: Member, *, force: bool = False) -> None:
        """Raise Conflict if the quorum would be endangered without `member`."""
        danger = check_removal(self.views(), member.id)
        if danger and not force:
            raise Conflict(
                f"removing {member.name or f'{member.id:x}'} would endanger the quorum: {danger}",
                hint="bring the others back first; if they are gone for good and there is no quorum any more, the way "
                "is `cloudless cluster recover`. --force leaves the judgement to etcd, which still refuses what "
                "would lose the quorum at once",
            )

    async def promote(self, coordinator_id: str) -> int:
        """Make a learner a voter; return the number of voters.

        Repeating it changes nothing. Raises NotFound, LearnerNotReady.
        """
        async with self._changing:
            await self.refresh()
            member = self.find(coordinator_id)
            if member.is_learner:
                await self._admin.promote(member.id)
                logger.warning("learner {:x} of {member} promoted by hand", member.id, member=coordinator_id)
                await self.refresh()
            return sum(not member.is_learner for member in self.list)

    async def move(self, coordinator_id: str, raft_address: str) -> None:
        """Tell the cluster where a coordinator's member will listen; repeating it changes nothing.

        Raises NotFound, FormationRefused if the address is another member's.
        """
        async with self._changing:
            await self.refresh()
            peer_url = self.own.etcd_url(raft_address)
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
            logger.warning("member {:x} of {member} moves to {}", member.id, raft_address, member=coordinator_id)
            await self.refresh()
