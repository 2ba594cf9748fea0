"""Hygiene as it is done: by members that a test imagines, one step after the other, and the gate for users' writes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cloudless.adapters.etcd.admin import Alarm, Member, MemberStatus
from cloudless.adapters.grpc.channel import INSECURE
from cloudless.coordinator.hygiene import Hygiene, HygieneController
from cloudless.coordinator.inspection import to_store_report
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.space import SpaceWatch
from cloudless.core.hygiene import HygieneStep
from cloudless.errors import NoSpace
from cloudless.rpc.v1 import common_pb2
from cloudless.rpc.v1 import maintenance_pb2 as pb
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import running, virtually
from tests.unit.leading import CLOCK, leading
from tests.unit.test_access import build_access

MIB = 1 << 20
QUOTA = 100 * MIB
STATUS = MemberStatus(
    member_id=1, cluster_id=9, version="3.5.33", db_size_bytes=10 * MIB, db_in_use_bytes=9 * MIB, leader_id=1,
    raft_term=2, raft_index=100, raft_applied_index=100, revision=5000, is_learner=False, errors=(),
)  # fmt: skip


class Admin:
    """One member: what it holds shrinks by compaction, its file by defragmentation."""

    def __init__(self, size_mb: int, in_use_mb: int, live_mb: int) -> None:
        self.status_now = replace(STATUS, db_size_bytes=size_mb * MIB, db_in_use_bytes=in_use_mb * MIB)
        self.live_bytes = live_mb * MIB
        self.calls: list[str] = []

    async def status(self) -> MemberStatus:
        return self.status_now

    async def defragment(self) -> None:
        self.calls.append("defragment")
        self.status_now = replace(self.status_now, db_size_bytes=self.status_now.db_in_use_bytes)

    async def alarms(self) -> tuple[Alarm, ...]:
        return self.status_now.alarms

    async def disarm(self, alarm: Alarm) -> None:
        self.calls.append(f"disarm {alarm.kind}")
        self.status_now = replace(self.status_now, errors=())

    def full(self) -> None:
        self.status_now = replace(self.status_now, errors=("memberID:1 alarm:NOSPACE ",))


class Store(MemoryStore):
    def __init__(self, admin: Admin) -> None:
        super().__init__(CLOCK.monotonic_s)
        self.admin = admin

    async def current_revision(self, *, timeout_s: float) -> int:
        return 5000

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        self.admin.calls.append(f"compact {revision}")
        self.admin.status_now = replace(self.admin.status_now, db_in_use_bytes=self.admin.live_bytes)


class Alone:
    """A cluster of one member, as its coordinator sees it."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        members: Any = SimpleNamespace(
            list=(Member(1, "c1", ("http://c1:3000",), ("http://c1:2379",), False),), status=admin.status_now
        )
        self.members = members
        self.members.refresh = self._refresh
        self.space = SpaceWatch(self.members, CLOCK, QUOTA)
        replica: Any = SimpleNamespace(machine=SimpleNamespace(coordinators={}))
        self.hygiene = Hygiene(
            "c1", Store(admin), admin, self.members, replica, self._inspect, CLOCK,  # type: ignore[arg-type]
            self._hand_over, INSECURE,
        )  # fmt: skip
        self.reachable = True

    async def _hand_over(self) -> None:
        self.admin.calls.append("hand over")

    async def _refresh(self) -> None:
        self.members.status = await self.admin.status()

    async def _inspect(self) -> pb.InspectCoordinatorResponse:
        answer = pb.InspectCoordinatorResponse(coordinator_id="c1")
        if self.reachable:
            answer.store.CopyFrom(to_store_report(self.admin.status_now, QUOTA))
        else:
            answer.store_error = "etcd gave no answer"
        return answer


@virtually
async def test_an_alarm_is_cured_by_compaction_and_defragmentation_and_only_then_disarmed() -> None:
    alone = Alone(admin := Admin(size_mb=100, in_use_mb=95, live_mb=20))
    admin.full()
    steps, short_of = await alone.hygiene.make_room(dry_run=False)
    assert short_of == ""
    assert admin.calls == ["compact 4990", "hand over", "defragment", "disarm NOSPACE"]
    assert [step.partition(" (")[0] for step in steps] == [
        "compact the history",
        "defragment",
        "disarm the space alarm",
    ]


@virtually
async def test_an_alarm_is_never_disarmed_while_too_much_is_in_use() -> None:
    alone = Alone(admin := Admin(size_mb=100, in_use_mb=99, live_mb=97))
    admin.full()
    _, short_of = await alone.hygiene.make_room(dry_run=False)
    assert "delete workloads, or raise CLOUDLESS_ETCD_QUOTA_MB" in short_of
    assert not [call for call in admin.calls if call.startswith("disarm")]


@virtually
async def test_a_dry_run_does_nothing() -> None:
    alone = Alone(admin := Admin(size_mb=100, in_use_mb=95, live_mb=20))
    steps, _ = await alone.hygiene.make_room(dry_run=True)
    assert steps == ["compact the history (ordered)"]
    assert admin.calls == []


@virtually
async def test_nothing_is_done_while_a_member_is_not_well_and_it_is_said_why() -> None:
    alone = Alone(admin := Admin(size_mb=100, in_use_mb=95, live_mb=20))
    alone.reachable = False
    _, short_of = await alone.hygiene.make_room(dry_run=False)
    assert short_of == "c1 has no answer from its etcd: etcd gave no answer"
    admin.full()
    assert (await alone.hygiene.take_step()).step is HygieneStep.WAIT
    assert alone.hygiene.said.startswith("waits: c1 has no answer")
    assert admin.calls == []


@virtually
async def test_the_leader_gives_history_up_before_its_time_when_much_is_in_use() -> None:
    alone = Alone(admin := Admin(size_mb=80, in_use_mb=75, live_mb=30))
    async with running(HygieneController(alone.hygiene, alone.space, CLOCK).run(1, None)):  # type: ignore[arg-type]
        await asyncio.sleep(30)
    assert admin.calls == ["compact 4000", "hand over", "defragment"]
    assert admin.status_now.db_size_bytes == 30 * MIB


@virtually
async def test_a_store_that_stays_full_is_not_compacted_again_and_again() -> None:
    alone = Alone(admin := Admin(size_mb=80, in_use_mb=75, live_mb=75))
    async with running(HygieneController(alone.hygiene, alone.space, CLOCK).run(1, None)):  # type: ignore[arg-type]
        await asyncio.sleep(300)
    assert len(admin.calls) <= 6, admin.calls


# --- room for writes ---


def test_users_are_refused_from_nine_tenths_on_and_told_where_the_cure_is() -> None:
    alone = Alone(Admin(size_mb=95, in_use_mb=89, live_mb=80))
    alone.space.require_room()
    alone.members.status = replace(STATUS, db_in_use_bytes=90 * MIB)
    with pytest.raises(NoSpace, match=r"90\.0 MiB of the store's 100\.0 MiB") as refused:
        alone.space.require_room()
    assert "cloudless cluster doctor" in refused.value.hint


def test_an_alarm_refuses_users_whatever_is_in_use() -> None:
    alone = Alone(Admin(size_mb=10, in_use_mb=9, live_mb=8))
    alone.members.status = replace(STATUS, errors=("memberID:1 alarm:NOSPACE ",))
    assert alone.space.nospace
    with pytest.raises(NoSpace):
        alone.space.require_room()


@virtually
async def test_a_sample_is_taken_every_minute_and_the_growth_foretold() -> None:
    alone = Alone(Admin(size_mb=10, in_use_mb=9, live_mb=8))
    async with running(alone.space.run()):
        for minute in range(60):
            alone.members.status = replace(STATUS, db_in_use_bytes=10 * MIB + minute * MIB)
            await asyncio.sleep(60)
    assert alone.space.hours_left == pytest.approx((90 - 69) / 60, abs=0.1)


@virtually
async def test_only_what_makes_room_is_written_where_there_is_none() -> None:
    from cloudless.coordinator.api.access import Decided
    from cloudless.core import keys
    from cloudless.core.plan import Change, PutRecord
    from cloudless.testing.builders import build_workload

    def refuse() -> None:
        raise NoSpace("full")

    async with leading() as cluster:
        access = build_access(cluster)
        access._require_room = refuse
        record = build_workload()
        change = Change(puts=(PutRecord(keys.workload("default", record.name), record),), preconditions=(), reason="x")
        options = common_pb2.WriteOptions(request_id="r1")
        with pytest.raises(NoSpace):
            await access.write(options, b"", lambda view: Decided(change, {}), None)
        assert (await access.write(options, b"", lambda view: Decided(change, {}), None, makes_room=True)).revision


class FullStore(MemoryStore):
    """Grants no lease while it is full, but renews those it has granted."""

    full = False

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Any:
        if self.full:
            raise NoSpace("full")
        return await super().grant(ttl_s, timeout_s=timeout_s)


@virtually
async def test_a_lease_outlives_the_time_when_no_other_is_granted() -> None:
    store = FullStore(CLOCK.monotonic_s)
    lease = RollingLease(store, CLOCK, kept_s=600)
    first = await lease.current()
    store.full = True
    for _ in range(10):
        await asyncio.sleep(601)
        assert await lease.current() == first
    fresh = RollingLease(store, CLOCK, kept_s=600)
    with pytest.raises(NoSpace):
        await fresh.current()
    store.full = False
    await asyncio.sleep(601)
    assert await lease.current() != first


@virtually
async def test_a_member_whose_coordinator_nobody_has_heard_of_is_not_well() -> None:
    alone = Alone(Admin(size_mb=100, in_use_mb=95, live_mb=20))
    alone.admin.full()
    stranger = Member(2, "c2", ("http://c2:3000",), ("http://c2:2379",), False)
    alone.members.list = (*alone.members.list, stranger)
    decision = await alone.hygiene.take_step()
    assert (decision.step, decision.member_id) == (HygieneStep.WAIT, 2)
    assert decision.reason == "c2 does not answer: nobody knows where it is"


@virtually
async def test_room_is_made_once_however_many_ask_at_the_same_time() -> None:
    alone = Alone(admin := Admin(size_mb=100, in_use_mb=95, live_mb=20))
    answers = await asyncio.gather(*(alone.hygiene.make_room(dry_run=False) for _ in range(20)))
    assert admin.calls == ["compact 4990", "hand over", "defragment"]
    assert all(answer == answers[0] for answer in answers)


@virtually
async def test_a_small_file_is_no_reason_to_leave_office() -> None:
    alone = Alone(admin := Admin(size_mb=30, in_use_mb=10, live_mb=5))
    await alone.hygiene.make_room(dry_run=False)
    assert admin.calls == ["compact 4990", "defragment"]
