"""A coordinator leaves for good: it hands its offices over, has its member removed, and ends.

The order is what makes it safe: while it still votes, leadership and etcd's leadership move to others; then another
coordinator removes the member, so that its word does not depend on an etcd that is ending. From then on everything
follows from etcd's saying that the member is removed: the process puts its data aside and ends (`runtime`). Until the
removal is done nothing is lost: asked again, it begins anew.
"""

from __future__ import annotations

from cloudless.coordinator.asking import call_once
from cloudless.coordinator.leadership import Leadership
from cloudless.coordinator.membership import SETTLING_S, Members
from cloudless.coordinator.replica import Replica
from cloudless.errors import CloudlessError, Conflict, NotFound, Unavailable
from cloudless.ports import Clock
from cloudless.rpc.v1 import cluster_pb2 as pb

REMOVED_HINT = (
    "to join again as a new member, start it with CLOUDLESS_REJOIN=true and CLOUDLESS_RAFT_JOIN_ADDR, which puts its "
    "old data aside, or start with an empty CLOUDLESS_DATA_DIR and CLOUDLESS_RAFT_JOIN_ADDR"
)
HAND_OVER_S = 3.0
LOOK_PERIOD_S = 0.02
REMOVE_TIMEOUT_S = SETTLING_S + 5.0


class Departure:
    """The leaving of one coordinator. `under_way`: that its member is removed is what was wanted."""

    def __init__(self, own_id: str, replica: Replica, leadership: Leadership, members: Members, clock: Clock) -> None:
        self._own_id, self._replica, self._leadership = own_id, replica, leadership
        self._members, self._clock = members, clock
        self.under_way = False

    async def leave(self, *, force: bool = False) -> None:
        """Return once this coordinator's member is removed. Raises Conflict if that would endanger the quorum."""
        await self._members.refresh()
        own = self._members.find(self._own_id)
        self._members.check_removal(own, force=force)
        others = self._others()
        if not others:
            raise Conflict(
                "no other coordinator answers that could let this one go", hint="the last one is simply stopped"
            )
        self.under_way = True
        try:
            await self._hand_over(sorted(others))
            await self._be_removed(f"{own.id:x}", others, force)
        except CloudlessError:
            self.under_way = False
            raise

    def _others(self) -> dict[str, str]:
        """Return the API addresses of the voters that answer, by id."""
        healthy = {view.name for view in self._members.views() if view.healthy and not view.learner}
        records = self._replica.machine.coordinators
        return {id: records[id].api_address for id in sorted(healthy & records.keys()) if id != self._own_id}

    async def _hand_over(self, others: list[str]) -> None:
        """Let another lead; a few tenths of a second without a leader are better than a lease that has to end."""
        ends_s = self._clock.monotonic_s() + HAND_OVER_S
        while (leader := self._leadership.leader()) is not None and leader.record.coordinator_id == self._own_id:
            standing = [c.record.coordinator_id for c in self._replica.machine.candidates()]
            target = next((id for id in standing if id in others), "")
            if target:
                await self._leadership.transfer(target, timeout_s=HAND_OVER_S)
            if self._clock.monotonic_s() > ends_s:
                raise Unavailable("no other coordinator took the leadership", hint="try again in a moment")
            await self._clock.sleep(LOOK_PERIOD_S)
        await self._members.hand_raft_leadership_over()

    async def _be_removed(self, member_id: str, others: dict[str, str], force: bool) -> None:
        request = pb.RemoveMemberRequest(coordinator_id=member_id, force=force)
        refusals = []
        for address in others.values():
            try:
                await call_once(
                    self._members.own.dialler,
                    address,
                    lambda stub: stub.RemoveMember(request, timeout=REMOVE_TIMEOUT_S),
                )
                return
            except NotFound:
                return
            except CloudlessError as error:
                refusals.append(error)
        raise refusals[-1]
