"""Founding, tokens and revocation, as changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudless.core import keys
from cloudless.core.identity.plans import (
    REVOKED_KEPT_MS,
    TOKEN_KEPT_MS,
    TOKENS_MAX,
    check_token,
    plan_bootstrap,
    plan_identity_reap,
    plan_identity_revocation,
    plan_own_identity,
    plan_token,
    plan_token_reap,
    plan_token_revocation,
)
from cloudless.core.identity.tokens import TTL_MAX_S
from cloudless.core.model import ClusterRecord, Role
from cloudless.errors import Conflict, Denied, NotFound
from cloudless.testing.builders import TestCluster, build_malformed
from tests.unit.identity.trust import NOW_MS, build_authority, build_token, put_identity, put_token

FOUNDERS = [build_authority(), build_authority(id="etcd-peers-1")]


def test_founding_happens_once() -> None:
    cluster = TestCluster()
    plans = [plan_bootstrap(cluster.machine, ClusterRecord(id=name), FOUNDERS) for name in ("x", "y")]
    assert all(plans)
    assert cluster.commit([plan for plan in plans if plan]) == [plans[1]]
    assert cluster.machine.cluster == ClusterRecord(id="x")
    assert set(cluster.machine.authorities) == {"cluster-1", "etcd-peers-1"}
    assert plan_bootstrap(cluster.machine, ClusterRecord(id="z"), FOUNDERS) is None


def test_founding_leaves_a_name_and_unreadable_authorities_alone() -> None:
    cluster = TestCluster()
    cluster.put(keys.CLUSTER, ClusterRecord(id="named"))
    plan = plan_bootstrap(cluster.machine, ClusterRecord(id="x"), FOUNDERS)
    assert plan is not None
    assert all(put.key != keys.CLUSTER for put in plan.puts)
    cluster.machine.apply(5, [build_malformed(keys.authority("cluster-1"), 5)])
    assert plan_bootstrap(cluster.machine, ClusterRecord(id="x"), FOUNDERS) is None


def test_a_coordinator_records_its_key_unless_it_was_revoked() -> None:
    cluster = TestCluster()
    for key_hash in ("k1", "k2"):
        change = plan_own_identity(cluster.machine, "c1", key_hash, ["one"], NOW_MS)
        assert change is not None
        assert not cluster.commit([change])
        assert plan_own_identity(cluster.machine, "c1", key_hash, ["one"], NOW_MS) is None
    assert cluster.machine.identities["coordinator", "c1"].record.key_hashes == ("k2",)
    put_identity(cluster, "c1", Role.COORDINATOR, revoked_at_ms=1)
    assert plan_own_identity(cluster.machine, "c1", "k3", ["one"], NOW_MS) is None


def test_a_coordinator_says_which_cluster_keys_it_holds_and_keeps_the_rest_of_its_record() -> None:
    cluster = TestCluster()
    put_identity(cluster, "c1", Role.COORDINATOR, key_hashes=("k1",), enrolled_at_ms=5, enrolled_by="token")
    for held in (["one"], ["two", "one"], ["two"]):
        change = plan_own_identity(cluster.machine, "c1", "k1", held, NOW_MS)
        assert change is not None
        assert not cluster.commit([change])
        record = cluster.machine.identities["coordinator", "c1"].record
        assert record.cluster_keys == tuple(sorted(held))
        assert (record.enrolled_at_ms, record.enrolled_by) == (5, "token")
        assert plan_own_identity(cluster.machine, "c1", "k1", reversed(held), NOW_MS) is None


def test_lists_that_are_too_long_are_refused_by_their_count_alone() -> None:
    found = check_token(build_token(names=tuple(str(n) for n in range(200_000)), namespaces=("x",) * 101))
    assert [problem.field for problem in found if "entries" in problem.message] == ["names", "namespaces"]
    assert len(found) < 5


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"expires_at_ms": NOW_MS}, "ttl_s"),
        ({"expires_at_ms": NOW_MS + TTL_MAX_S * 1000 + 1000}, "ttl_s"),
        ({"uses_total": 0}, "uses"),
        ({"uses_total": 10_001}, "uses"),
        ({"names": ("A",)}, "names"),
        ({"names": ("*",)}, "names"),
        ({"names": ("a*b",)}, "names"),
        ({"names": tuple(f"n{n}" for n in range(101))}, "names"),
        ({"namespaces": ("x",)}, "namespaces"),
        ({"role": Role.ADMIN, "namespaces": ("x",)}, "namespaces"),
        ({"role": Role.VIEWER, "namespaces": ("X y",)}, "namespaces"),
        ({"description": "x" * 201}, "description"),
    ],
)
def test_a_faulty_token_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in check_token(build_token(**fields))] == [field]


@pytest.mark.parametrize("fields", [{}, {"names": ("a1", "rack-*")}, {"role": Role.VIEWER, "namespaces": ("x",)}])
def test_a_good_token_has_no_problem(fields: dict[str, Any]) -> None:
    assert check_token(build_token(**fields)) == []


def test_tokens_are_made_revoked_and_forgotten() -> None:
    cluster = TestCluster()
    assert not cluster.commit([plan_token(cluster.machine, build_token())])
    _, change = plan_token_revocation(cluster.machine, "tokenaaaaa", NOW_MS)
    assert change is not None
    assert not cluster.commit([change])
    assert plan_token_revocation(cluster.machine, "tokenaaaaa", NOW_MS)[1] is None
    assert plan_token_reap(cluster.machine, NOW_MS + TOKEN_KEPT_MS) == ()
    assert not cluster.commit(plan_token_reap(cluster.machine, NOW_MS + TOKEN_KEPT_MS + 1))
    assert not cluster.machine.tokens
    with pytest.raises(NotFound):
        plan_token_revocation(cluster.machine, "tokenaaaaa", NOW_MS)


def test_a_token_that_is_still_good_is_kept() -> None:
    cluster = TestCluster()
    put_token(cluster, build_token(expires_at_ms=NOW_MS + 10 * TOKEN_KEPT_MS))
    assert plan_token_reap(cluster.machine, NOW_MS + 5 * TOKEN_KEPT_MS) == ()


def test_identities_revoked_long_ago_are_forgotten_and_no_others() -> None:
    cluster = TestCluster()
    put_identity(cluster, "old", revoked_at_ms=NOW_MS)
    put_identity(cluster, "recent", revoked_at_ms=NOW_MS + 1)
    put_identity(cluster, "living")
    assert not cluster.commit(plan_identity_reap(cluster.machine, NOW_MS + REVOKED_KEPT_MS + 1))
    assert set(cluster.machine.identities) == {("agent", "recent"), ("agent", "living")}


def test_there_is_an_end_to_tokens() -> None:
    cluster = TestCluster()
    for number in range(TOKENS_MAX):
        put_token(cluster, replace(build_token(), id=f"t{number}"))
    with pytest.raises(Conflict, match="tokens"):
        plan_token(cluster.machine, build_token("onemore"))


def test_the_last_admin_cannot_be_revoked() -> None:
    cluster = TestCluster()
    put_identity(cluster, "ann", Role.ADMIN)
    put_identity(cluster, "old", Role.ADMIN, revoked_at_ms=1)
    with pytest.raises(Denied, match="only admin"):
        plan_identity_revocation(cluster.machine, "person", "ann", "", NOW_MS)
    put_identity(cluster, "bob", Role.ADMIN)
    _, change = plan_identity_revocation(cluster.machine, "person", "ann", "left", NOW_MS)
    assert change is not None
    assert not cluster.commit([change])
    assert cluster.machine.identities["person", "ann"].record.revoked_reason == "left"
    with pytest.raises(NotFound):
        plan_identity_revocation(cluster.machine, "agent", "ann", "", NOW_MS)
