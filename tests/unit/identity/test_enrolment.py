"""One use of a token lets in one; a known identity is not taken over by a token for just anybody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudless.core import keys
from cloudless.core.identity.enrolment import (
    PERSON_ABSENCE_MAX_MS,
    Admission,
    Ask,
    judge_absence,
    plan_enrolment,
    plan_renewal,
)
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.tokens import hash_secret
from cloudless.core.model import Role
from cloudless.errors import CloudlessError, Conflict, Denied, Unauthenticated
from cloudless.testing.builders import TestCluster, build_malformed
from tests.unit.identity.trust import NOW_MS, SECRET, build_token, put_identity, put_token

ASK = Ask("tokenaaaaa", hash_secret("tokenaaaaa", SECRET), "a1", "key", Role.AGENT)
A1 = Identity("c", IdentityKind.AGENT, "a1")


def cluster_with_token(**fields: Any) -> TestCluster:
    cluster = TestCluster()
    put_token(cluster, build_token(**fields))
    return cluster


def admit(cluster: TestCluster, ask: Ask = ASK, now_ms: int = NOW_MS) -> Admission:
    """Decide and commit."""
    admission = plan_enrolment(cluster.machine, ask, now_ms)
    if admission.change is not None:
        assert not cluster.commit([admission.change])
    return admission


def test_one_use_lets_one_in_and_is_gone() -> None:
    cluster = cluster_with_token(namespaces=(), names=("a*",))
    admission = admit(cluster)
    held = cluster.machine.identities["agent", "a1"].record
    assert held == admission.record
    assert (held.role, held.key_hashes, held.enrolled_by) == (Role.AGENT, ("key",), "tokenaaaaa")
    assert cluster.machine.tokens["tokenaaaaa"].record.uses_left == 0
    with pytest.raises(Denied, match="used up"):
        admit(cluster, replace(ASK, name="a2", key_hash="key2"))


def test_replayed_on_two_coordinators_at_once_it_lets_one_in() -> None:
    cluster = cluster_with_token()
    first = plan_enrolment(cluster.machine, ASK, NOW_MS)
    second = plan_enrolment(cluster.machine, replace(ASK, name="a2", key_hash="key2"), NOW_MS)
    assert first.change is not None
    assert second.change is not None
    assert cluster.commit([first.change, second.change]) == [second.change]
    assert set(cluster.machine.identities) == {("agent", "a1")}
    with pytest.raises(Denied, match="used up"):
        plan_enrolment(cluster.machine, replace(ASK, name="a2", key_hash="key2"), NOW_MS)


def test_who_never_heard_the_answer_asks_again_and_spends_nothing() -> None:
    cluster = cluster_with_token()
    before = admit(cluster)
    again = admit(cluster)
    assert again.change is None
    assert again.record == before.record
    with pytest.raises(Denied):
        admit(cluster, replace(ASK, key_hash="somebody else's"))


def test_asking_again_helps_nobody_whose_token_or_identity_was_revoked_meanwhile() -> None:
    cluster = cluster_with_token()
    admit(cluster)
    put_identity(cluster, "a1", revoked_at_ms=1, enrolled_by="tokenaaaaa")
    with pytest.raises(Denied):
        admit(cluster)
    put_identity(cluster, "a1", enrolled_by="tokenaaaaa")
    put_token(cluster, build_token(uses_left=0, revoked_at_ms=1))
    with pytest.raises(Denied, match="revoked"):
        admit(cluster)


def test_a_token_made_by_who_was_revoked_lets_nobody_in_nor_back_in() -> None:
    cluster = cluster_with_token(created_by="coordinator/c9", uses_total=2, uses_left=2)
    put_identity(cluster, "c9", Role.COORDINATOR)
    admit(cluster)
    put_identity(cluster, "c9", Role.COORDINATOR, revoked_at_ms=NOW_MS)
    for ask in (ASK, replace(ASK, name="a2", key_hash="key2")):
        with pytest.raises(Denied, match="coordinator/c9, who was revoked"):
            admit(cluster, ask)
    put_identity(cluster, "c9", Role.AGENT, revoked_at_ms=NOW_MS)
    put_identity(cluster, "c9", Role.COORDINATOR)
    admit(cluster, replace(ASK, name="a2", key_hash="key2"))  # another kind of the same name is somebody else


@pytest.mark.parametrize("known", [{"key_hashes": ("other",)}, {"revoked_at_ms": 1}])
def test_a_known_identity_is_taken_over_only_by_a_token_that_names_it(known: dict[str, Any]) -> None:
    for names in ((), ("a*",)):
        cluster = cluster_with_token(names=names)
        put_identity(cluster, "a1", **known)
        with pytest.raises(Conflict, match="a1") as refused:
            admit(cluster)
        assert "--name a1" in refused.value.hint
    cluster = cluster_with_token(names=("a1",))
    put_identity(cluster, "a1", **known)
    assert admit(cluster).change is not None
    held = cluster.machine.identities["agent", "a1"].record
    assert held.key_hashes == ("key",)
    assert not held.revoked_at_ms


@pytest.mark.parametrize(
    ("token", "ask", "error"),
    [
        ({}, {"presented_hash": "x"}, Unauthenticated),
        ({}, {"token_id": "other"}, Unauthenticated),
        ({"revoked_at_ms": 1}, {}, Denied),
        ({"expires_at_ms": NOW_MS}, {}, Denied),
        ({"role": Role.COORDINATOR}, {}, Denied),
        ({"names": ("b",)}, {}, Denied),
    ],
)
def test_refusals_change_nothing(token: dict[str, Any], ask: dict[str, str], error: type[CloudlessError]) -> None:
    cluster = cluster_with_token(**token)
    with pytest.raises(error):
        admit(cluster, replace(ASK, **ask))  # type: ignore[arg-type]
    assert not cluster.machine.identities


def test_a_record_that_cannot_be_read_is_not_overwritten() -> None:
    cluster = cluster_with_token(names=("a1",))
    revision = cluster.machine.revision + 1
    cluster.machine.apply(revision, [build_malformed(keys.identity("agent", "a1"), revision)])
    with pytest.raises(Conflict, match="cannot be read"):
        admit(cluster)


def test_a_person_takes_the_tokens_role_and_namespaces() -> None:
    cluster = cluster_with_token(role=Role.OPERATOR, namespaces=("team-a",))
    record = admit(cluster, replace(ASK, name="ann", role=None)).record
    assert (record.role, record.namespaces) == (Role.OPERATOR, ("team-a",))
    assert ("person", "ann") in cluster.machine.identities


def test_renewal_with_the_same_key_writes_nothing() -> None:
    cluster = TestCluster()
    put_identity(cluster, "a1")
    assert plan_renewal(cluster.machine, A1, "key", "key").change is None


def test_a_changed_key_counts_beside_the_one_before() -> None:
    cluster = TestCluster()
    put_identity(cluster, "a1")
    for presented, fresh in (("key", "key2"), ("key2", "key3")):
        change = plan_renewal(cluster.machine, A1, presented, fresh).change
        assert change is not None
        assert not cluster.commit([change])
    assert cluster.machine.identities["agent", "a1"].record.key_hashes == ("key3", "key2")
    with pytest.raises(Denied):
        plan_renewal(cluster.machine, A1, "key", "key")


@pytest.mark.parametrize("fields", [{"revoked_at_ms": 1}, {"key_hashes": ("new",)}])
def test_who_is_not_itself_any_more_gets_no_certificate(fields: dict[str, Any]) -> None:
    cluster = TestCluster()
    put_identity(cluster, "a1", **fields)
    with pytest.raises(Denied):
        plan_renewal(cluster.machine, A1, "key", "key")
    with pytest.raises(Denied):
        plan_renewal(TestCluster().machine, A1, "key", "key")


def test_machines_may_return_after_any_time_and_people_within_a_month() -> None:
    judge_absence(A1, 0, NOW_MS)
    ann = Identity("c", IdentityKind.PERSON, "ann")
    judge_absence(ann, NOW_MS - PERSON_ABSENCE_MAX_MS, NOW_MS)
    with pytest.raises(Denied):
        judge_absence(ann, NOW_MS - PERSON_ABSENCE_MAX_MS - 1, NOW_MS)
