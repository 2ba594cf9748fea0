"""A coordinator's care for the members of etcd, put together as `coordinator.body` does, and its way into the cluster.

Production's are the member list, the autopilot, admission, departure, replacement, the directory, and all calls
between coordinators. The way in (`form`) is `coordinator.formation`'s told again without files and etcd's process: ask
who belongs, ask to join, start as a learner, wait for the vote; a removed member that may come back puts its data aside
and asks anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from cloudless.adapters.etcd.admin import EtcdAdmin, MemberStatus
from cloudless.adapters.member.learned import Learned
from cloudless.coordinator.ailment import STALE_S
from cloudless.coordinator.api.autopilot import AutopilotCalls
from cloudless.coordinator.api.members import MemberCalls
from cloudless.coordinator.asking import ask_formation, call_once
from cloudless.coordinator.autopilot import Autopilot
from cloudless.coordinator.departure import Departure
from cloudless.coordinator.directory import Directory
from cloudless.coordinator.membership import Members
from cloudless.core.membership.founding import Standing
from cloudless.core.membership.records import autopilot_status_of, replacements_of
from cloudless.errors import CloudlessError, MemberRemoved
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.testing.sim.calls import CallUnary, SimOwn
from cloudless.testing.sim.etcd_admin import SimAdmin
from cloudless.testing.sim.etcd_cluster import CLUSTER_ID, EtcdCluster

if TYPE_CHECKING:
    from cloudless.testing.sim.coordinator import CoordinatorLife

PAUSE_S = 0.25
PAUSE_MAX_S = 2.0
VOTER_PAUSE_S = 0.3
ETCD_START_S = (0.1, 1.0)
JOIN_TIMEOUT_S = 10.0


@dataclass(slots=True)
class MemberDisk:
    """What a host keeps of its member besides etcd's own data. `voted`: the marker says that it has.

    `rejoins`: its operator lets it join anew after it was removed.
    """

    member_id: int = 0
    voted: bool = False
    rejoins: bool = True
    learned: Learned = field(default_factory=Learned)


class MemoryDirectory(Directory):
    """A directory whose file is the host's `MemberDisk`."""

    def __init__(self, disk: MemberDisk, *args: Any) -> None:
        super().__init__(Path("/nowhere"), *args)
        self._disk = disk
        self._written, self._known = disk.learned, disk.learned.coordinators

    async def _note(self, learned: Learned) -> None:
        await asyncio.sleep(0)
        self._disk.learned = self._written = learned


class MemberCare:
    """See the module. `done`: its member votes, and the coordinator serves."""

    def __init__(
        self, life: CoordinatorLife, cluster: EtcdCluster, disk: MemberDisk, find_seeds: Callable[[], Sequence[str]],
        call: CallUnary, random: Random,
    ) -> None:  # fmt: skip
        self._life, self._cluster, self._disk, self._random = life, cluster, disk, random
        self._find_seeds = find_seeds
        self.own = SimOwn(call)
        admin = cast(EtcdAdmin, SimAdmin(life.id, life.store, cluster))
        self._admin = admin
        self.members = Members(
            admin, life.replica, life.clock, life.peers.linked, ailments=life.peers.ailments, own=self.own
        )
        self.departure = Departure(life.id, life.replica, life.leadership, self.members, life.clock)
        self.autopilot = Autopilot(
            self.members, admin, life.replica, life.clock, ask=partial(ask_formation, self.own.dialler)
        )
        self.directory = MemoryDirectory(disk, life.replica, self.members, life.clock)
        calls = MemberCalls(life.access, self.members, self.departure)
        self.services = (calls, AutopilotCalls(life.access, self.members, calls), self)
        self.done = self._gives_up_data = False
        self._status: MemberStatus | None = None
        self._removed = asyncio.Event()

    def ailment(self) -> str:
        """Return what goes with each beat, as `coordinator.ailment` says it."""
        if not self._cluster.up(self._life.id):
            return "has no etcd"
        return "is cut off from the store" if self._life.replica.staleness_s > STALE_S else ""

    # --- what others may ask ---

    async def GetFormation(self, request: pb.GetFormationRequest, context: Any) -> pb.GetFormationResponse:
        answer = self.standing()
        if self.done:
            machine = self._life.replica.machine
            answer.awaited.extend(sorted({one.record.new_id for one in replacements_of(machine).values()} - {""}))
            answer.dropped_member_ids.extend(autopilot_status_of(machine).dropped_member_ids)
        return answer

    def standing(self) -> pb.GetFormationResponse:
        """Return what this node brings to a cluster (see `Formation.standing`)."""
        status = None if self.done else self._status
        return pb.GetFormationResponse(
            node_id=self._life.id,
            raft_address=f"{self._life.id}:2",
            phase=self._phase().value,
            etcd_cluster_id=f"{CLUSTER_ID:x}" if self._disk.voted else "",
            member_id=0 if self._gives_up_data else self._disk.member_id,
            raft_index=status.raft_applied_index if status else 0,
            serves=self.done,
        )

    def _phase(self) -> Standing:
        if self.done:
            return Standing.MEMBER
        if self._gives_up_data or (self._disk.voted and not self._disk.member_id):
            return Standing.LOST if self._disk.voted or self._disk.member_id else Standing.FRESH
        if self._disk.voted:
            return Standing.MEMBER
        return Standing.FORMING if self._disk.member_id else Standing.FRESH

    # --- the way in ---

    async def form(self) -> None:
        """Return when our member votes; wait as long as it takes. Raises MemberRemoved if it may not come back."""
        while True:
            if not self._disk.member_id:
                await self._join()
            await asyncio.sleep(0 if self._cluster.up(self._life.id) else self._random.uniform(*ETCD_START_S))
            self._cluster.start(self._life.id)
            try:
                await self._await_vote()
                break
            except MemberRemoved:
                if not self._disk.rejoins:
                    raise
                self._cluster.forget(self._life.id)
                self._disk.member_id, self._status, self._gives_up_data = 0, None, True
        self._disk.voted = self.done = True

    async def _await_vote(self) -> None:
        while True:
            if self._is_removed():
                raise MemberRemoved(f"the cluster has removed the member of {self._life.id}")
            try:
                status = self._status = await self._admin.status()
                if not status.is_learner and status.leader_id:
                    return
            except CloudlessError:
                self._status = None
            await asyncio.sleep(VOTER_PAUSE_S)

    async def _join(self) -> None:
        request = pb.JoinRaftClusterRequest(
            node_id=self._life.id,
            raft_address=f"{self._life.id}:2",
            empty=True,
            etcd_version="3.5.33",
            api_address=f"{self._life.id}:1",
        )
        pause_s, self._gives_up_data = PAUSE_S, True
        while True:
            answers = await ask_formation(self.own.dialler, self._addresses())
            members = [address for address, answer in answers.items() if answer.phase == Standing.MEMBER.value]
            for address in self._random.sample(members, len(members)):
                try:
                    answer = await call_once(
                        self.own.dialler, address, lambda stub: stub.JoinRaftCluster(request, timeout=JOIN_TIMEOUT_S)
                    )
                    self._cluster.take_place(self._life.id, answer.member_id)
                except CloudlessError:
                    continue
                self._disk.member_id, self._disk.voted, self._gives_up_data = answer.member_id, False, False
                return
            await asyncio.sleep(self._random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 1.3, PAUSE_MAX_S)

    def _addresses(self) -> list[str]:
        learned = [one.address for one in self._disk.learned.coordinators if one.id != self._life.id]
        return [a for a in dict.fromkeys((*self._find_seeds(), *learned)) if a != f"{self._life.id}:1"]

    # --- while it serves ---

    async def supervise(self) -> None:
        """Raises MemberRemoved once etcd has learned that it was removed."""
        while not self._is_removed():
            await self._removed.wait()
            self._removed.clear()
        raise MemberRemoved(f"the cluster has removed the member of {self._life.id}")

    def hear_of_removal(self) -> None:
        self._removed.set()

    def _is_removed(self) -> bool:
        seat = self._cluster.seats.get(self._life.id)
        return seat is None or seat.told

    async def leave(self) -> None:
        """Hand etcd's leadership over and stop the member, as the last of an orderly stop."""
        try:
            async with asyncio.timeout(1.5):
                await self.members.hand_raft_leadership_over()
        except (CloudlessError, TimeoutError):
            pass
        self._cluster.stop(self._life.id)
