"""Hygiene: what is due next, in which order, and what is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.core.hygiene import (
    HygieneStep,
    MemberSpace,
    Sample,
    Since,
    find_shortage,
    forecast_hours,
    plan_hygiene,
)

MIB = 1 << 20
QUOTA = 2048 * MIB
NOW = Since()
ORDERED = Since(ordered=True)


def member(number: int, size_mb: int, in_use_mb: int, **changes: object) -> MemberSpace:
    space = MemberSpace(
        member_id=number,
        name=f"c{number}",
        size_bytes=size_mb * MIB,
        in_use_bytes=in_use_mb * MIB,
        quota_bytes=QUOTA,
        raft_leader=number == 2,
    )
    return replace(space, **changes)  # type: ignore[arg-type]


def three(size_mb: int, in_use_mb: int, **changes: object) -> list[MemberSpace]:
    return [member(number, size_mb, in_use_mb, **changes) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("size_mb", "in_use_mb", "step"),
    [
        (10, 1, HygieneStep.REST),  # too small to matter
        (200, 150, HygieneStep.REST),  # most of it in use
        (200, 90, HygieneStep.DEFRAGMENT),
        (1500, 1300, HygieneStep.COMPACT),  # much in use: history first
        (1500, 1100, HygieneStep.DEFRAGMENT),  # near the quota a smaller gain is worth it
        (1200, 1150, HygieneStep.REST),
        (1900, 1200, HygieneStep.DEFRAGMENT),
        (1900, 1880, HygieneStep.COMPACT),
    ],
)
def test_what_is_due_follows_from_what_it_would_gain(size_mb: int, in_use_mb: int, step: HygieneStep) -> None:
    assert plan_hygiene(three(size_mb, in_use_mb), NOW).step is step


def test_followers_come_first_then_etcds_leader_when_another_leads_and_the_one_that_decides_is_last() -> None:
    members = three(400, 100)
    seen = []
    for _ in range(8):
        decision = plan_hygiene(members, NOW, own_member_id=1)
        seen.append((decision.step.value, decision.member_id))
        if decision.step is HygieneStep.DEFRAGMENT:
            members = [
                replace(m, size_bytes=m.in_use_bytes, rested_s=1.0) if m.member_id == decision.member_id else m
                for m in members
            ]
        elif decision.step is HygieneStep.MOVE_LEADER:
            members = [replace(m, raft_leader=m.member_id == decision.member_id) for m in members]
        else:
            break
    assert seen == [("defragment", 3), ("move-leader", 3), ("defragment", 2), ("defragment", 1), ("rest", 0)]


def test_nothing_pauses_a_member_while_another_is_not_well() -> None:
    members = [*three(400, 100)[:2], member(3, 400, 100, ailing="does not answer")]
    for since in (NOW, ORDERED):
        decision = plan_hygiene(members, since, nospace=True)
        assert (decision.step, decision.reason) == (HygieneStep.WAIT, "c3 does not answer")


def test_a_member_of_an_unsafe_version_is_defragmented_only_when_ordered() -> None:
    members = three(400, 100, safe=False)
    assert plan_hygiene(members, NOW).step is HygieneStep.REST
    assert plan_hygiene(members, replace(ORDERED, compacted_s=1.0)).step is HygieneStep.DEFRAGMENT


def test_an_order_compacts_once_and_then_defragments_what_has_anything_to_give_back() -> None:
    members = three(3, 1)
    assert plan_hygiene(members, ORDERED).step is HygieneStep.COMPACT
    assert plan_hygiene(members, replace(ORDERED, compacted_s=1.0)).step is HygieneStep.DEFRAGMENT
    small = [replace(m, size_bytes=MIB) for m in members]
    assert plan_hygiene(small, replace(ORDERED, compacted_s=1.0)).step is HygieneStep.REST


def test_a_member_rests_between_two_defragmentations() -> None:
    assert plan_hygiene(three(400, 100, rested_s=3000.0), NOW).step is HygieneStep.REST
    assert plan_hygiene(three(400, 100, rested_s=4000.0), NOW).step is HygieneStep.DEFRAGMENT


def test_a_file_near_the_quota_is_seen_to_again_after_a_minute() -> None:
    assert plan_hygiene(three(1900, 1100, rested_s=50.0), NOW).step is HygieneStep.REST
    assert plan_hygiene(three(1900, 1100, rested_s=70.0), NOW).step is HygieneStep.DEFRAGMENT
    assert plan_hygiene(three(1700, 1100, rested_s=70.0), NOW).step is HygieneStep.REST


def test_a_single_member_is_defragmented_although_it_leads() -> None:
    decision = plan_hygiene([member(2, 400, 100)], NOW)
    assert (decision.step, decision.member_id) == (HygieneStep.DEFRAGMENT, 2)


def test_the_alarm_is_disarmed_only_when_the_files_are_small_again() -> None:
    after = replace(NOW, compacted_s=5.0)
    cured = plan_hygiene(three(1000, 1000), after, nospace=True)
    assert cured.step is HygieneStep.DISARM
    full = plan_hygiene(three(2040, 2040), after, nospace=True)
    assert full.step is HygieneStep.WAIT
    assert "delete workloads, or raise CLOUDLESS_ETCD_QUOTA_MB" in full.reason
    assert plan_hygiene(three(2040, 100), after, nospace=True).step is HygieneStep.DEFRAGMENT
    assert plan_hygiene(three(1000, 1000), NOW, nospace=True).step is HygieneStep.COMPACT


def test_leadership_goes_to_the_leaders_own_member_only_if_there_is_no_other() -> None:
    members = [member(1, 100, 90), member(2, 400, 100)]
    decision = plan_hygiene(members, NOW, own_member_id=1)
    assert (decision.step, decision.member_id) == (HygieneStep.MOVE_LEADER, 1)
    decision = plan_hygiene([*members, member(3, 100, 90)], NOW, own_member_id=1)
    assert (decision.step, decision.member_id) == (HygieneStep.MOVE_LEADER, 3)


# --- room and forecast ---


def test_users_may_fill_nine_tenths() -> None:
    assert find_shortage(899, 1000, False) == ""
    assert find_shortage(900, 1000, False)
    assert find_shortage(10, 1000, True)
    assert find_shortage(10**12, 0, False) == "", "an unknown quota refuses nobody"


def samples(*in_use_mb: float, every_s: float = 300.0) -> list[Sample]:
    return [Sample(number * every_s, int(mb * MIB)) for number, mb in enumerate(in_use_mb)]


def test_steady_growth_gives_the_hours_left() -> None:
    hours = forecast_hours(samples(*range(100, 130)), 1000 * MIB)  # 12 MiB an hour
    assert hours == pytest.approx((1000 - 129) / 12, rel=0.01)


@pytest.mark.parametrize(
    "seen",
    [
        [100.0] * 30,  # flat
        [100.0 + number % 3 * 20 for number in range(30)],  # the saw-tooth of compaction
        [100.0] * 15 + [400.0] * 15,  # one large object, once
        list(range(200, 170, -1)),  # shrinking
        list(range(100, 105)),  # too short to tell
    ],
)
def test_nothing_is_foretold_without_a_trend(seen: list[float]) -> None:
    assert forecast_hours(samples(*seen), 1000 * MIB) is None


def test_a_store_that_is_full_has_no_hours_left() -> None:
    assert forecast_hours(samples(1000.0), 1000 * MIB) == 0.0
