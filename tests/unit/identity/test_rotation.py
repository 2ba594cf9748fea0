"""A CA is replaced step by step: at every moment one signs, and no certificate outlives the trust in its CA."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.identity.rotation import (
    find_rotations,
    get_issuing,
    next_generation,
    outworn,
    plan_rotation,
    plan_rotation_start,
    trusted_records,
    wait_ms,
)
from cloudless.core.model import AuthorityPhase, AuthorityPurpose
from cloudless.errors import Conflict, Unavailable
from cloudless.testing.builders import TestCluster
from tests.unit.identity.trust import DAY_MS, NOW_MS, build_authority, put_authority

CLUSTER = AuthorityPurpose.CLUSTER


def cluster_with_ca(lifetime_s: int = 86_400) -> TestCluster:
    cluster = TestCluster()
    put_authority(cluster, build_authority(leaf_lifetime_s=lifetime_s))
    return cluster


def start(cluster: TestCluster, at_ms: int = NOW_MS) -> None:
    generation = next_generation(cluster.machine, CLUSTER)
    fresh = build_authority(generation, phase=AuthorityPhase.DISTRIBUTING, phase_since_ms=at_ms)
    assert not cluster.commit([plan_rotation_start(cluster.machine, [fresh])])


def phases(cluster: TestCluster) -> dict[str, str]:
    return {name: held.record.phase.name for name, held in sorted(cluster.machine.authorities.items())}


def step(cluster: TestCluster, now_ms: int, *, hurry: bool = False) -> None:
    assert not cluster.commit(plan_rotation(cluster.machine, now_ms, hurry=hurry))


def test_the_phases_follow_each_other_when_their_time_is_over() -> None:
    cluster = cluster_with_ca()
    start(cluster)
    wait = wait_ms(build_authority())
    assert phases(cluster) == {"cluster-1": "ISSUING", "cluster-2": "DISTRIBUTING"}
    step(cluster, NOW_MS + wait - 1)
    assert phases(cluster) == {"cluster-1": "ISSUING", "cluster-2": "DISTRIBUTING"}
    step(cluster, NOW_MS + wait)
    assert phases(cluster) == {"cluster-1": "RETIRING", "cluster-2": "ISSUING"}
    assert get_issuing(cluster.machine, CLUSTER).id == "cluster-2"
    assert [r.id for r in trusted_records((h.record for h in cluster.machine.authorities.values()), CLUSTER)] == [
        "cluster-2", "cluster-1",
    ]  # fmt: skip
    step(cluster, NOW_MS + 2 * wait - 1)
    assert phases(cluster) == {"cluster-1": "RETIRING", "cluster-2": "ISSUING"}
    step(cluster, NOW_MS + 2 * wait)
    assert phases(cluster) == {"cluster-2": "ISSUING"}
    assert plan_rotation(cluster.machine, NOW_MS + 3 * wait) == ()


def test_in_a_hurry_it_takes_two_steps() -> None:
    cluster = cluster_with_ca()
    start(cluster)
    step(cluster, NOW_MS, hurry=True)
    step(cluster, NOW_MS, hurry=True)
    assert phases(cluster) == {"cluster-2": "ISSUING"}


def test_two_replacements_do_not_overlap_and_two_starters_get_one() -> None:
    cluster = cluster_with_ca()
    fresh = build_authority(2, phase=AuthorityPhase.DISTRIBUTING)
    plans = [plan_rotation_start(cluster.machine, [fresh]) for _ in range(2)]
    assert cluster.commit(plans) == [plans[1]]
    with pytest.raises(Conflict, match="being replaced"):
        next_generation(cluster.machine, CLUSTER)


def test_purposes_are_replaced_independently() -> None:
    cluster = cluster_with_ca()
    put_authority(cluster, build_authority(id="etcd-peers-1", purpose=AuthorityPurpose.ETCD_PEERS))
    start(cluster)
    assert [rotation.new_id for rotation in find_rotations(cluster.machine)] == ["cluster-2"]
    assert next_generation(cluster.machine, AuthorityPurpose.ETCD_PEERS) == 2


def test_nothing_is_replaced_before_the_first_authorities_are_on_record() -> None:
    """What is distributed in their place would keep them out: then none would ever sign."""
    cluster = TestCluster()
    with pytest.raises(Unavailable):
        next_generation(cluster.machine, CLUSTER)
    fresh = build_authority(1, phase=AuthorityPhase.DISTRIBUTING)
    with pytest.raises(Unavailable):
        plan_rotation_start(cluster.machine, [fresh])


@given(
    lifetime_s=st.integers(60, 10 * 86_400),
    ticks=st.lists(st.integers(0, 3 * 86_400_000), min_size=1, max_size=40),
    off=st.integers(0, 40),
)
def test_exactly_one_signs_and_no_leaf_loses_its_ca_before_it_runs_out(
    lifetime_s: int, ticks: list[int], off: int
) -> None:
    """Whenever the leader happens to look, each certificate signed until then stays trusted as long as it is valid."""
    cluster = cluster_with_ca(lifetime_s)
    now_ms = NOW_MS
    leaves: list[tuple[str, int]] = []
    for number, tick in enumerate(ticks):
        if number == off and not find_rotations(cluster.machine):
            start(cluster, now_ms)
        leaves.append((get_issuing(cluster.machine, CLUSTER).id, now_ms + lifetime_s * 1000))
        now_ms += tick
        step(cluster, now_ms)
        signing = [h for h in cluster.machine.authorities.values() if h.record.phase is AuthorityPhase.ISSUING]
        assert len(signing) == 1
        for authority_id, not_after_ms in leaves:
            assert authority_id in cluster.machine.authorities or not_after_ms <= now_ms


def test_a_ca_with_less_than_a_year_left_is_outworn() -> None:
    cluster = cluster_with_ca()
    assert outworn(cluster.machine, NOW_MS) == []
    assert outworn(cluster.machine, NOW_MS + 3300 * DAY_MS) == [CLUSTER]
    start(cluster)
    assert outworn(cluster.machine, NOW_MS + 3300 * DAY_MS) == []


def test_without_a_ca_nothing_can_be_signed() -> None:
    with pytest.raises(Unavailable):
        get_issuing(TestCluster().machine, CLUSTER)
    assert plan_rotation(TestCluster().machine, NOW_MS) == ()
