"""When a replacement of the cluster key goes on, whom it waits for, and that nothing is sealed with a key few have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.core import keys
from cloudless.core.identity.key_rotation import (
    KEPT_MS,
    MAKE_ANEW_AFTER_S,
    PATIENCE_MS,
    KeyStep,
    check_members_trusted,
    decide_key_step,
    find_key_rotation,
    find_lacking,
    outworn_keys,
    plan_announcement,
    plan_key_rotation_start,
    plan_resealing,
    wanted_keys,
)
from cloudless.core.identity.rotation import plan_rotation, plan_rotation_start
from cloudless.core.model import AuthorityPhase, CoordinatorRecord, KeyPhase, Role
from cloudless.errors import Conflict, Unavailable
from cloudless.testing.builders import TestCluster, build_malformed
from tests.unit.identity.trust import NOW_MS, build_authority, put_authority, put_identity

OLD, NEW = "old-key", "new-key"
ALL = ("c1", "c2", "c3")


def holding(cluster: TestCluster, *names: str, cluster_keys: tuple[str, ...] = (OLD, NEW)) -> None:
    for name in names:
        put_identity(cluster, name, Role.COORDINATOR, cluster_keys=cluster_keys)


def running(cluster: TestCluster, *names: str) -> None:
    for name in names:
        cluster.put(keys.coordinator(name), CoordinatorRecord(id=name, api_address=f"{name}:1"))


def cluster_of_three() -> TestCluster:
    """Return three coordinators that run and hold the key that the authority is sealed with."""
    cluster = TestCluster()
    put_authority(cluster, build_authority(sealed_with=OLD))
    holding(cluster, *ALL, cluster_keys=(OLD,))
    running(cluster, *ALL)
    return cluster


def begin(cluster: TestCluster) -> None:
    assert not cluster.commit([plan_key_rotation_start(cluster.machine, NOW_MS)])


def announce(cluster: TestCluster, name: str = NEW) -> None:
    assert not cluster.commit([plan_announcement(cluster.machine, name, NOW_MS)])


def reseal(cluster: TestCluster, name: str = NEW) -> None:
    records = [replace(held.record, sealed_with=name) for held in cluster.machine.authorities.values()]
    assert not cluster.commit([plan_resealing(cluster.machine, records, name, NOW_MS)])


def step(cluster: TestCluster, own: tuple[str, ...] = (OLD, NEW), waited_ms: int = 0, missing_s: float = 0) -> KeyStep:
    return decide_key_step(cluster.machine, "c1", own, ALL, NOW_MS + waited_ms, missing_s)


def test_the_steps_follow_each_other() -> None:
    cluster = cluster_of_three()
    assert step(cluster) is KeyStep.NOTHING
    begin(cluster)
    assert step(cluster, (OLD,)) is KeyStep.MAKE
    announce(cluster)
    assert wanted_keys(cluster.machine) == {OLD, NEW}
    assert find_lacking(cluster.machine, ALL) == [*ALL]
    assert step(cluster) is KeyStep.NOTHING
    holding(cluster, *ALL)
    assert step(cluster) is KeyStep.RESEAL
    reseal(cluster)
    found = find_key_rotation(cluster.machine)
    assert found is not None
    assert (found.phase, found.key) == (KeyPhase.DONE, NEW)
    assert step(cluster) is KeyStep.NOTHING
    assert wanted_keys(cluster.machine) == {NEW}
    begin(cluster)  # again, whenever somebody likes
    assert step(cluster) is KeyStep.MAKE


@pytest.mark.parametrize(
    ("holders", "alive", "waited_ms", "expected"),
    [
        (("c1", "c2", "c3"), ALL, 0, KeyStep.RESEAL),
        (("c1", "c2"), ALL, PATIENCE_MS - 1, KeyStep.NOTHING),
        (("c1", "c2"), ALL, PATIENCE_MS, KeyStep.RESEAL),
        (("c1", "c2"), ("c1", "c2"), 0, KeyStep.RESEAL),
        (("c1",), ("c1",), 100 * PATIENCE_MS, KeyStep.NOTHING),
        (("c1",), ALL, 100 * PATIENCE_MS, KeyStep.NOTHING),
    ],
)
def test_everything_is_sealed_anew_once_a_majority_and_all_that_are_up_have_the_key(
    holders: tuple[str, ...], alive: tuple[str, ...], waited_ms: int, expected: KeyStep
) -> None:
    cluster = TestCluster()
    put_authority(cluster, build_authority(sealed_with=OLD))
    holding(cluster, *ALL, cluster_keys=(OLD,))
    running(cluster, *alive)
    begin(cluster)
    announce(cluster)
    holding(cluster, *holders)
    assert step(cluster, waited_ms=waited_ms) is expected


def test_a_revoked_coordinator_is_not_waited_for_and_counts_for_nothing() -> None:
    cluster = cluster_of_three()
    put_identity(cluster, "c3", Role.COORDINATOR, revoked_at_ms=NOW_MS, cluster_keys=(OLD, NEW))
    begin(cluster)
    announce(cluster)
    holding(cluster, "c1")
    assert step(cluster, waited_ms=PATIENCE_MS) is KeyStep.NOTHING
    holding(cluster, "c2")
    assert find_lacking(cluster.machine, ALL) == []
    assert step(cluster) is KeyStep.RESEAL
    assert decide_key_step(cluster.machine, "c3", (OLD, NEW), ALL, NOW_MS, 0) is KeyStep.NOTHING


def test_voters_that_are_not_on_record_yet_count_for_the_majority() -> None:
    cluster = TestCluster()
    put_authority(cluster, build_authority(sealed_with=OLD))
    running(cluster, *ALL)
    begin(cluster)
    announce(cluster)
    holding(cluster, "c1")
    assert step(cluster, waited_ms=100 * PATIENCE_MS) is KeyStep.NOTHING
    holding(cluster, "c2")
    assert step(cluster, waited_ms=PATIENCE_MS) is KeyStep.RESEAL


def test_a_key_that_nobody_has_any_more_is_made_anew_while_nothing_is_sealed_with_it() -> None:
    cluster = cluster_of_three()
    begin(cluster)
    announce(cluster)
    assert step(cluster, (OLD,), missing_s=MAKE_ANEW_AFTER_S - 1) is KeyStep.NOTHING
    assert step(cluster, (OLD,), missing_s=MAKE_ANEW_AFTER_S) is KeyStep.MAKE
    announce(cluster, "third-key")
    assert wanted_keys(cluster.machine) == {OLD, "third-key"}


def test_two_do_not_replace_it_at_once() -> None:
    cluster = cluster_of_three()
    one, two = plan_key_rotation_start(cluster.machine, NOW_MS), plan_key_rotation_start(cluster.machine, NOW_MS)
    assert not cluster.commit([one])
    assert cluster.commit([two])
    with pytest.raises(Conflict, match="already"):
        plan_key_rotation_start(cluster.machine, NOW_MS)
    announced = plan_announcement(cluster.machine, NEW, NOW_MS), plan_announcement(cluster.machine, "other", NOW_MS)
    assert not cluster.commit([announced[0]])
    assert cluster.commit([announced[1]])


def test_without_authorities_there_is_no_key() -> None:
    with pytest.raises(Unavailable, match="no key"):
        plan_key_rotation_start(TestCluster().machine, NOW_MS)


def test_no_ca_is_made_while_the_key_is_replaced_nor_by_a_plan_from_before_its_end() -> None:
    cluster = cluster_of_three()
    fresh = build_authority(2, phase=AuthorityPhase.DISTRIBUTING, sealed_with=OLD)
    from_before = plan_rotation_start(cluster.machine, [fresh])
    begin(cluster)
    assert cluster.commit([from_before]), "its key would lie sealed with the old one"
    with pytest.raises(Conflict, match="key is being replaced"):
        plan_rotation_start(cluster.machine, [fresh])
    announce(cluster)
    holding(cluster, *ALL)
    reseal(cluster)
    assert not cluster.commit([plan_rotation_start(cluster.machine, [replace(fresh, sealed_with=NEW)])])


def test_a_ca_that_moves_on_meanwhile_is_sealed_as_it_is_then() -> None:
    cluster = cluster_of_three()
    put_authority(cluster, build_authority(2, phase=AuthorityPhase.DISTRIBUTING, sealed_with=OLD))
    begin(cluster)
    announce(cluster)
    records = [replace(held.record, sealed_with=NEW) for held in cluster.machine.authorities.values()]
    from_before = plan_resealing(cluster.machine, records, NEW, NOW_MS)
    assert not cluster.commit(plan_rotation(cluster.machine, NOW_MS, hurry=True))
    assert cluster.commit([from_before])
    reseal(cluster)
    assert {name: held.record.phase.name for name, held in cluster.machine.authorities.items()} == {
        "cluster-1": "RETIRING", "cluster-2": "ISSUING",
    }  # fmt: skip


def test_an_old_key_is_dropped_some_time_after_nothing_is_sealed_with_it() -> None:
    cluster = cluster_of_three()
    held = (OLD, NEW, "unused")
    assert outworn_keys(cluster.machine, held, NOW_MS) == frozenset()
    begin(cluster)
    announce(cluster)
    assert outworn_keys(cluster.machine, held, NOW_MS + 10 * KEPT_MS) == frozenset()
    reseal(cluster)
    assert outworn_keys(cluster.machine, held, NOW_MS + KEPT_MS - 1) == frozenset()
    assert outworn_keys(cluster.machine, held, NOW_MS + KEPT_MS) == {OLD, "unused"}
    revision = cluster.machine.revision + 1
    cluster.machine.apply(revision, [build_malformed(keys.authority("cluster-9"), revision)])
    assert outworn_keys(cluster.machine, held, NOW_MS + KEPT_MS) == frozenset()


def test_a_revoked_coordinator_must_have_no_member_first() -> None:
    cluster = cluster_of_three()
    check_members_trusted(cluster.machine, (*ALL, "unknown"))
    put_identity(cluster, "c2", Role.COORDINATOR, revoked_at_ms=NOW_MS)
    with pytest.raises(Conflict, match="c2 was revoked") as refused:
        check_members_trusted(cluster.machine, ALL)
    assert "cloudless cluster remove c2" in refused.value.hint
    check_members_trusted(cluster.machine, ("c1", "c3"))
