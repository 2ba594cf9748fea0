"""Keep the store small: compact, defragment one member after the other, clear the space alarm.

`Hygiene` looks at all members and does the one step that `core.hygiene` names; the leader's `HygieneController` does so
by itself, `MakeRoom` on request, a single step at a time under one lock.

None of this is fenced: two coordinators that compact, defragment and disarm at once do needless work, not harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc.aio
from loguru import logger

from cloudless.adapters.etcd.admin import EtcdAdmin, Member
from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.membership import Members
from cloudless.coordinator.replica import Replica
from cloudless.coordinator.space import SpaceWatch
from cloudless.core.hygiene import (
    HygieneDecision,
    HygieneStep,
    MemberSpace,
    Since,
    plan_hygiene,
)
from cloudless.errors import CloudlessError, Unavailable
from cloudless.ports import Clock, Store
from cloudless.rpc.v1 import maintenance_pb2 as pb
from cloudless.rpc.v1.maintenance_pb2_grpc import MaintenanceServiceStub
from etcd.gate import Version, may_defragment

T = TypeVar("T")

_WORDS = {
    HygieneStep.REST: "nothing to do",
    HygieneStep.WAIT: "wait",
    HygieneStep.COMPACT: "compact the history",
    HygieneStep.MOVE_LEADER: "move etcd's leadership",
    HygieneStep.DEFRAGMENT: "defragment",
    HygieneStep.DISARM: "disarm the space alarm",
}

PERIOD_S = 30.0
PRESSED_PERIOD_S = 3.0
INSPECT_TIMEOUT_S = 3.0
DEFRAGMENT_TIMEOUT_S = 120.0
COMPACT_TIMEOUT_S = 10.0
BEHIND_MAX = 5_000
# Watches that broke go on from where they were; only under pressure is that given up for room.
KEEP_REVISIONS = 1_000
KEEP_REVISIONS_PRESSED = 100
KEEP_REVISIONS_ORDERED = 10
# A larger file takes longer than a lease can wait: whoever leads hands its office over before its member pauses.
HAND_OVER_ABOVE_BYTES = 32 << 20
STEP_PAUSE_S = 2.0
REMEMBER_PERIOD_S = 2.0
STEPS_MAX = 24
WAITS_MAX = 3
WAIT_PAUSE_S = 2.0


@dataclass(slots=True)
class _Done:
    """When each member was last defragmented, and when the history was last compacted, by this process."""

    compacted_s: float = float("-inf")
    defragmented_s: dict[int, float] = field(default_factory=dict)


class Hygiene:
    """Looks at all members and does one step. `inspect` returns what this coordinator says of itself, `hand_over` gives
    its office to another if it leads."""

    def __init__(
        self,
        own_id: str,
        store: Store,
        admin: EtcdAdmin,
        members: Members,
        replica: Replica,
        inspect: Callable[[], Awaitable[pb.InspectCoordinatorResponse]],
        clock: Clock,
        hand_over: Callable[[], Awaitable[None]],
        dialler: Dialler,
    ) -> None:
        self._hand_over, self._dialler = hand_over, dialler
        self._own_id, self._store, self._admin, self._members = own_id, store, admin, members
        self._replica, self._inspect, self._clock = replica, inspect, clock
        self._stepping = asyncio.Lock()
        self._making: asyncio.Task[tuple[list[str], str]] | None = None
        self._addresses: dict[str, str] = {}
        self._defragmenting: asyncio.Task[pb.DefragmentMemberResponse] | None = None
        self._done = _Done()
        self.said = ""

    async def run(self) -> None:
        """Remember where the coordinators are, for as long as this one runs.

        A full store grants no lease: a coordinator that lost its own is in no list any more until there is room, but
        to make room it must be asked.
        """
        while True:
            self._remember()
            await self._clock.sleep(REMEMBER_PERIOD_S)

    def _remember(self) -> None:
        records = self._replica.machine.coordinators.values()
        self._addresses |= {record.id: record.api_address for record in records if record.api_address}

    # --- asked ---

    async def make_room(self, dry_run: bool) -> tuple[list[str], str]:
        """Do every step until nothing is left to do; return the steps in words, and what is missing after them.

        Who asks while it is done already waits for the same: however often it is asked for, it is done once at a time.
        """
        if dry_run:
            return await self._take_all_steps(dry_run=True)
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._take_all_steps(dry_run=False), name="make-room")
            self._making.add_done_callback(_log_failure)
        return await asyncio.shield(self._making)

    async def _take_all_steps(self, *, dry_run: bool) -> tuple[list[str], str]:
        steps: list[str] = []
        began_s, waits = self._clock.monotonic_s(), 0
        while len(steps) < STEPS_MAX:
            async with self._stepping:
                decision = await self._decide(ordered_s=began_s)
                if decision.step is HygieneStep.WAIT:
                    waits += 1
                    if waits > WAITS_MAX or dry_run:
                        return steps, decision.reason
                elif decision.step is HygieneStep.REST:
                    return steps, ""
                else:
                    waits = 0
                    steps.append(_in_words(decision))
                    if dry_run:
                        return steps, ""
                    await self._do(decision, KEEP_REVISIONS_ORDERED)
                    continue
            await self._clock.sleep(WAIT_PAUSE_S)
        return steps, f"gave up after {STEPS_MAX} steps"

    async def take_step(self) -> HygieneDecision:
        """Do the step that is due unasked. Raises CloudlessError."""
        async with self._stepping:
            decision = await self._decide()
            if decision.step in (HygieneStep.REST, HygieneStep.WAIT):
                self._say(f"waits: {decision.reason}" if decision.reason else "")
            else:
                await self._do(decision, KEEP_REVISIONS_PRESSED if self._nospace() else KEEP_REVISIONS)
            return decision

    async def defragment_own(self) -> pb.DefragmentMemberResponse:
        """Defragment this coordinator's own member, which pauses it. Raises CloudlessError.

        A leader hands over first, which ends its term and whoever waits for this, but not this. Who asks while it is
        done already waits for the same.
        """
        if self._defragmenting is None or self._defragmenting.done():
            self._defragmenting = asyncio.create_task(self._defragment_own(), name="defragment")
            self._defragmenting.add_done_callback(_log_failure)
        return await asyncio.shield(self._defragmenting)

    async def _defragment_own(self) -> pb.DefragmentMemberResponse:
        before = await self._admin.status()
        if before.db_size_bytes > HAND_OVER_ABOVE_BYTES:
            await self._hand_over()
        began_s = self._clock.monotonic_s()
        await self._admin.defragment()
        after = await self._admin.status()
        return pb.DefragmentMemberResponse(
            size_before_bytes=before.db_size_bytes,
            size_after_bytes=after.db_size_bytes,
            took_s=self._clock.monotonic_s() - began_s,
        )

    # --- looking and deciding ---

    async def _decide(self, ordered_s: float | None = None) -> HygieneDecision:
        """Return what is due; `ordered_s`: since when a person waits for it, what was done before does not count."""
        await self._members.refresh()
        now_s = self._clock.monotonic_s()

        def ago_s(at_s: float) -> float:
            return float("inf") if ordered_s is not None and at_s < ordered_s else now_s - at_s

        spaces = await asyncio.gather(*(self._look(member, ago_s) for member in self._members.list))
        own = self._members.status
        since = Since(ordered=ordered_s is not None, compacted_s=ago_s(self._done.compacted_s))
        return plan_hygiene(
            spaces, since, nospace=self._nospace(), own_member_id=own.member_id if own is not None else 0
        )

    def _nospace(self) -> bool:
        status = self._members.status
        return status is not None and any(alarm.kind == "NOSPACE" for alarm in status.alarms)

    async def _look(self, member: Member, ago_s: Callable[[float], float]) -> MemberSpace:
        status = self._members.status
        space = MemberSpace(
            member_id=member.id,
            name=member.name or f"{member.id:x}",
            size_bytes=0,
            in_use_bytes=0,
            quota_bytes=0,
            learner=member.is_learner,
            raft_leader=status is not None and status.leader_id == member.id,
            rested_s=ago_s(self._done.defragmented_s.get(member.id, float("-inf"))),
        )
        try:
            answer = await self._ask(
                member.name,
                self._inspect,
                lambda stub: stub.InspectCoordinator(pb.InspectCoordinatorRequest(), timeout=INSPECT_TIMEOUT_S),
            )
        except CloudlessError as error:
            return _ailing(space, f"does not answer: {error.message}")
        return _with_report(space, answer, status.raft_index if status else 0)

    async def _ask(
        self, coordinator_id: str, own: Callable[[], Awaitable[T]], remote: Callable[[Any], Awaitable[T]]
    ) -> T:
        """Return what a coordinator answers: `own` if that is this one, else `remote` with a stub of the other's.

        Raises CloudlessError.
        """
        if coordinator_id == self._own_id:
            return await own()
        self._remember()
        address = self._addresses.get(coordinator_id)
        if address is None:
            raise Unavailable("nobody knows where it is")
        channel = self._dialler.open(address)
        try:
            return await remote(MaintenanceServiceStub(channel))  # type: ignore[no-untyped-call]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            await channel.close()

    # --- doing ---

    async def _do(self, decision: HygieneDecision, keep_revisions: int) -> None:
        self._say(_in_words(decision))
        match decision.step:
            case HygieneStep.COMPACT:
                revision = await self._store.current_revision(timeout_s=COMPACT_TIMEOUT_S) - keep_revisions
                if revision > 0:
                    await self._store.compact(revision, timeout_s=COMPACT_TIMEOUT_S)
                self._done.compacted_s = self._clock.monotonic_s()
            case HygieneStep.MOVE_LEADER:
                await self._move_leader(decision.member_id)
            case HygieneStep.DEFRAGMENT:
                await self._defragment(decision.member_id)
            case HygieneStep.DISARM:
                for alarm in await self._admin.alarms():
                    if alarm.kind == "NOSPACE":
                        await self._admin.disarm(alarm)

    async def _defragment(self, member_id: int) -> None:
        # Noted first: a member that fails at it must not be tried again at once.
        self._done.defragmented_s[member_id] = self._clock.monotonic_s()
        name = next((member.name for member in self._members.list if member.id == member_id), "")
        answer = await self._ask(
            name,
            self.defragment_own,
            lambda stub: stub.DefragmentMember(pb.DefragmentMemberRequest(), timeout=DEFRAGMENT_TIMEOUT_S),
        )
        logger.info(
            "hygiene: {} defragmented from {} to {} bytes in {:.2f} s",
            name, answer.size_before_bytes, answer.size_after_bytes, answer.took_s,
        )  # fmt: skip

    async def _move_leader(self, heir_id: int) -> None:
        """Hand etcd's leadership over: only its leader's own member can."""
        leader_id = self._members.status.leader_id if self._members.status else 0
        name = next((member.name for member in self._members.list if member.id == leader_id), "")
        request = pb.MoveRaftLeaderRequest(to_member_id=heir_id)
        await self._ask(
            name,
            lambda: self._admin.move_leader(heir_id),
            lambda stub: stub.MoveRaftLeader(request, timeout=COMPACT_TIMEOUT_S),
        )

    def _say(self, words: str) -> None:
        if words and words != self.said:
            logger.info("hygiene: {}", words)
        self.said = words


def _log_failure(task: asyncio.Task[Any]) -> None:
    """Say what went wrong even if nobody waits any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("{}: {}", task.get_name(), error)


def _ailing(space: MemberSpace, words: str) -> MemberSpace:
    return replace(space, ailing=words)


def _with_report(space: MemberSpace, answer: pb.InspectCoordinatorResponse, newest_index: int) -> MemberSpace:
    """Return `space` with what its coordinator says, and whether it is well by that."""
    report = answer.store
    space = replace(
        space,
        size_bytes=report.size_bytes,
        in_use_bytes=report.in_use_bytes,
        quota_bytes=report.quota_bytes,
        safe=_is_safe(report.version),
    )
    if not answer.HasField("store"):
        return _ailing(space, f"has no answer from its etcd: {answer.store_error}")
    if not report.leader_id:
        return _ailing(space, "knows no leader of etcd")
    if report.learner:
        return _ailing(space, "is a learner that catches up")
    if newest_index - report.applied_index > BEHIND_MAX:
        return _ailing(space, f"is {newest_index - report.applied_index} log entries behind")
    corrupt = [alarm for alarm in report.alarms if not alarm.startswith("NOSPACE")]
    return _ailing(space, f"has the alarm {corrupt[0]}") if corrupt else space


def _is_safe(version: str) -> bool:
    try:
        return may_defragment(Version.parse(version))
    except ValueError:
        return False


def _in_words(decision: HygieneDecision) -> str:
    return f"{_WORDS[decision.step]} ({decision.reason})"


class HygieneController:
    """The leader's care for the store's size; looks more often while room is short."""

    FIRST_PAUSE_S = 5.0

    def __init__(self, hygiene: Hygiene, space: SpaceWatch, clock: Clock) -> None:
        self._hygiene, self._space, self._clock = hygiene, space, clock

    async def run(self, term: int, committer: Committer) -> None:
        pause_s = self.FIRST_PAUSE_S
        while True:
            await self._clock.sleep(pause_s)
            pause_s = PRESSED_PERIOD_S if self._space.pressed else PERIOD_S
            try:
                decision = await self._hygiene.take_step()
            except CloudlessError as error:
                logger.warning("hygiene put off: {}", error)
                continue
            if decision.step not in (HygieneStep.REST, HygieneStep.WAIT):
                pause_s = STEP_PAUSE_S
