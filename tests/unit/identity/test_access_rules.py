"""Who may call what: the table lists every RPC there is, and roles, own names and namespaces mean what they say."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import cloudless.rpc.v1
from cloudless.core.identity.access import (
    FOUNDING_MS,
    Allowed,
    Caller,
    Forbidden,
    RequestFacts,
    admit,
    authorise,
    judge_early,
    judge_identity,
    may_be_new,
    needs_facts,
)
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.plans import REVOKED_KEPT_MS, plan_identity_reap
from cloudless.core.identity.rules import RULES, Reach
from cloudless.core.model import IdentityRecord, Role
from cloudless.testing.builders import TestCluster
from tests.unit.identity.trust import NOW_MS, put_identity


def served_methods() -> set[str]:
    """Return the full name of every RPC in the protos, and of those that every gRPC server of ours adds."""
    names = [m.name for m in pkgutil.iter_modules(cloudless.rpc.v1.__path__) if m.name.endswith("_pb2")]
    modules = [importlib.import_module(f"cloudless.rpc.v1.{name}") for name in names]
    services = [
        service
        for module in (*modules, health_pb2, reflection_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    return {f"{service.full_name}/{method.name}" for service in services for method in service.methods}


METHODS = sorted(RULES)
AGENT, COORDINATOR = Caller("a1", Role.AGENT), Caller("c1", Role.COORDINATOR)
VIEWER, OPERATOR, ADMIN = (Caller("ann", role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN))
BOUND = Caller("bob", Role.OPERATOR, ("team-a", "team-b"))
WITHOUT_CREDENTIALS = {
    "grpc.health.v1.Health/Check", "grpc.health.v1.Health/List", "grpc.health.v1.Health/Watch",
    "cloudless.rpc.v1.IdentityService/GetCa", "cloudless.rpc.v1.IdentityService/Enrol",
    "cloudless.rpc.v1.IdentityService/Reenrol",
}  # fmt: skip
FOR_AGENTS = {
    "cloudless.rpc.v1.AgentService/Session", "cloudless.rpc.v1.IdentityService/Renew",
    "cloudless.rpc.v1.IdentityService/WhoAmI", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}  # fmt: skip


def method(name: str) -> str:
    return f"cloudless.rpc.v1.{name}"


def test_every_rpc_is_listed_and_every_line_is_an_rpc() -> None:
    assert set(RULES) == served_methods()


@pytest.mark.parametrize("name", METHODS)
def test_without_credentials_nothing_answers_but_liveness_and_joining(name: str) -> None:
    assert isinstance(admit(None, name), Allowed) == (name in WITHOUT_CREDENTIALS)
    assert isinstance(authorise(None, name), Allowed) == (name in WITHOUT_CREDENTIALS)


@pytest.mark.parametrize("name", METHODS)
def test_an_agent_may_open_its_session_and_renew_and_nothing_else(name: str) -> None:
    own = RequestFacts(speaks_for=("a1",))
    assert isinstance(authorise(AGENT, name, own), Allowed) == (name in FOR_AGENTS | WITHOUT_CREDENTIALS)


@pytest.mark.parametrize("name", METHODS)
def test_each_role_of_people_may_all_that_the_one_below_may(name: str) -> None:
    may = [isinstance(authorise(caller, name), Allowed) for caller in (VIEWER, OPERATOR, ADMIN)]
    assert may == sorted(may)


@pytest.mark.parametrize("name", METHODS)
def test_a_person_bound_to_namespaces_may_never_more_than_one_who_is_not(name: str) -> None:
    for facts in (RequestFacts(), RequestFacts(namespaces=("team-a",)), RequestFacts(namespaces=None)):
        if isinstance(authorise(BOUND, name, facts), Allowed):
            assert isinstance(authorise(OPERATOR, name, facts), Allowed)
            assert RULES[name].reach is not Reach.CLUSTER or RULES[name].anyone


@pytest.mark.parametrize("name", METHODS)
def test_every_refusal_says_why(name: str) -> None:
    for caller in (None, AGENT, COORDINATOR, VIEWER, OPERATOR, BOUND):
        verdict = authorise(caller, name, RequestFacts(("else",), None))
        assert isinstance(verdict, Allowed) or verdict.reason


def test_a_call_that_nobody_listed_is_nobodys() -> None:
    for caller in (None, ADMIN, COORDINATOR):
        assert isinstance(authorise(caller, "cloudless.rpc.v1.NodeService/Explode"), Forbidden)
        assert not needs_facts(caller, "cloudless.rpc.v1.NodeService/Explode")


@pytest.mark.parametrize(
    ("name", "caller", "speaks_for", "allowed"),
    [
        ("AgentService/Session", AGENT, ("a1",), True),
        ("AgentService/Session", AGENT, (), True),
        ("AgentService/Session", AGENT, ("a2",), False),
        ("AgentService/Session", AGENT, ("",), False),
        ("AgentService/Session", AGENT, ("a1", "a2"), False),
        ("AgentService/Session", COORDINATOR, ("c1",), False),
        ("AgentService/Session", ADMIN, ("a1",), False),
        ("PeerService/Link", COORDINATOR, ("c1",), True),
        ("PeerService/Link", COORDINATOR, ("c2",), False),
        ("PeerService/Link", ADMIN, ("c2",), False),
        ("ClusterService/JoinRaftCluster", COORDINATOR, ("c1",), True),
        ("ClusterService/JoinRaftCluster", COORDINATOR, ("c2",), False),
        ("ClusterService/UpdateMember", COORDINATOR, ("c2",), False),
        ("ClusterService/RemoveMember", ADMIN, ("c2",), True),
        ("ClusterService/RemoveMember", OPERATOR, ("c2",), False),
        ("AgentLogService/ReadTaskLogs", COORDINATOR, (), True),
        ("AgentLogService/ReadTaskLogs", AGENT, (), False),
        ("AgentExecService/ExecTask", COORDINATOR, (), True),
        ("AgentExecService/ExecTask", AGENT, (), False),
        ("AgentExecService/ExecTask", ADMIN, (), False),
        ("TaskService/ExecTask", OPERATOR, (), True),
        ("TaskService/ExecTask", COORDINATOR, (), False),
        ("IdentityService/CreateToken", OPERATOR, (), False),
        ("IdentityService/CreateToken", AGENT, (), False),
        ("IdentityService/CreateToken", COORDINATOR, (), True),
        ("IdentityService/RevokeIdentity", COORDINATOR, (), False),
    ],
)
def test_machines_speak_for_themselves_only(
    name: str, caller: Caller, speaks_for: tuple[str, ...], allowed: bool
) -> None:
    verdict = authorise(caller, method(name), RequestFacts(speaks_for=speaks_for))
    assert isinstance(verdict, Allowed) == allowed, verdict


@pytest.mark.parametrize(
    ("name", "namespaces", "allowed"),
    [
        ("WorkloadService/ScaleWorkload", ("team-a",), True),
        ("WorkloadService/ScaleWorkload", ("team-a", "team-b"), True),
        ("WorkloadService/ScaleWorkload", ("team-a", "other"), False),
        ("WorkloadService/ListWorkloads", None, False),
        ("WorkloadService/ListWorkloads", ("team-b",), True),
        ("TaskService/GetTask", (), True),
        ("TaskService/ExecTask", ("team-b",), True),
        ("TaskService/ExecTask", ("other",), False),
        ("NodeService/ListNodes", (), True),
        ("NodeService/UpdateNode", (), False),
        ("EventService/Watch", (), False),
        ("ClusterService/GetStatus", (), True),
    ],
)
def test_people_bound_to_namespaces_stay_in_them(name: str, namespaces: tuple[str, ...] | None, allowed: bool) -> None:
    verdict = authorise(BOUND, method(name), RequestFacts(namespaces=namespaces))
    assert isinstance(verdict, Allowed) == allowed, verdict


def test_facts_are_asked_for_only_where_they_count() -> None:
    assert needs_facts(AGENT, method("AgentService/Session"))
    assert needs_facts(BOUND, method("WorkloadService/ListWorkloads"))
    assert not needs_facts(ADMIN, method("WorkloadService/ListWorkloads"))
    assert not needs_facts(None, method("WorkloadService/ListWorkloads"))


ANN = Identity("c", IdentityKind.PERSON, "ann")
C1 = Identity("c", IdentityKind.COORDINATOR, "c1")
A1 = Identity("c", IdentityKind.AGENT, "a1")


@pytest.mark.parametrize(
    ("identity", "record", "key_hash", "expected"),
    [
        (ANN, IdentityRecord(name="ann", role=Role.VIEWER, namespaces=("x",), key_hashes=("k",)), "k",
         Caller("ann", Role.VIEWER, ("x",))),
        (ANN, IdentityRecord(name="ann", role=Role.VIEWER, key_hashes=("k",)), "old", None),
        (ANN, IdentityRecord(name="ann", role=Role.VIEWER, key_hashes=("k", "old")), "old", Caller("ann", Role.VIEWER)),
        (ANN, IdentityRecord(name="ann", role=Role.VIEWER, key_hashes=("k",), revoked_at_ms=1), "k", None),
        (ANN, None, "k", None),
        (C1, None, "k", None),
        (C1, IdentityRecord(name="c1", role=Role.COORDINATOR, key_hashes=("k",)), "k", Caller("c1", Role.COORDINATOR)),
        (C1, IdentityRecord(name="c1", role=Role.COORDINATOR, revoked_at_ms=1, key_hashes=("k",)), "k", None),
        (C1, IdentityRecord(name="c1", role=Role.COORDINATOR, key_hashes=("other",)), "k", None),
        (Identity("d", IdentityKind.COORDINATOR, "c1"), None, "k", None),
    ],
)  # fmt: skip
def test_a_certificate_counts_as_far_as_the_records_agree(
    identity: Identity, record: IdentityRecord | None, key_hash: str, expected: Caller | None
) -> None:
    found = judge_identity(identity, "c", record, key_hash)
    assert found == expected if expected is not None else isinstance(found, Forbidden)


JOIN, FORMATION, REMOVE = (
    RULES[method(f"ClusterService/{name}")] for name in ("JoinRaftCluster", "GetFormation", "RemoveMember")
)


def test_who_is_not_on_record_may_become_a_member_only_while_the_cluster_is_founded() -> None:
    cluster = TestCluster()
    assert may_be_new(cluster.machine, REMOVE, NOW_MS), "a founder among founders"
    put_identity(cluster, "a1", enrolled_at_ms=NOW_MS - 10 * FOUNDING_MS)
    put_identity(cluster, "c2", Role.COORDINATOR, enrolled_at_ms=NOW_MS)
    assert not may_be_new(cluster.machine, REMOVE, NOW_MS)
    assert not may_be_new(cluster.machine, None, NOW_MS)
    for rule in (JOIN, FORMATION):
        assert may_be_new(cluster.machine, rule, NOW_MS + FOUNDING_MS - 1)
        assert not may_be_new(cluster.machine, rule, NOW_MS + FOUNDING_MS)
    put_identity(cluster, "c3", Role.COORDINATOR, enrolled_at_ms=NOW_MS + FOUNDING_MS)
    assert not may_be_new(cluster.machine, JOIN, NOW_MS + FOUNDING_MS), "a coordinator let in later founds nothing"


def test_a_revoked_coordinator_that_was_forgotten_is_no_newcomer() -> None:
    """Its own CA key still signs for it: only the record it once had kept it out."""
    cluster = TestCluster()
    put_identity(cluster, "c1", Role.COORDINATOR, enrolled_at_ms=NOW_MS)
    put_identity(cluster, "c9", Role.COORDINATOR, enrolled_at_ms=NOW_MS, revoked_at_ms=NOW_MS + 1)
    later_ms = NOW_MS + 2 + REVOKED_KEPT_MS
    assert not cluster.commit(plan_identity_reap(cluster.machine, later_ms))
    assert ("coordinator", "c9") not in cluster.machine.identities
    assert not may_be_new(cluster.machine, JOIN, later_ms)


def test_before_there_is_state_coordinators_only_ask() -> None:
    early = {name for name, rule in RULES.items() if may_be_new(None, rule, NOW_MS)}
    assert early == {method("ClusterService/GetFormation"), method("MaintenanceService/InspectCoordinator")}


def test_before_there_is_state_people_may_look_and_agents_nothing() -> None:
    inspect = RULES[method("MaintenanceService/InspectCoordinator")]
    assert judge_early(C1, inspect) == Caller("c1", Role.COORDINATOR)
    assert judge_early(ANN, inspect) == Caller("ann", Role.VIEWER)
    assert judge_early(A1, inspect) is None
    assert not [one for one in (C1, ANN, A1) for rule in (REMOVE, JOIN, None) if judge_early(one, rule)]


def test_newcomers_are_coordinators_of_this_cluster_that_were_not_revoked() -> None:
    assert judge_identity(C1, "c", None, "k", newcomer=True) == Caller("c1", Role.COORDINATOR)
    assert isinstance(judge_identity(ANN, "c", None, "k", newcomer=True), Forbidden)
    assert isinstance(judge_identity(C1, "d", None, "k", newcomer=True), Forbidden)
    revoked = IdentityRecord(name="c1", role=Role.COORDINATOR, revoked_at_ms=1, key_hashes=("k",))
    assert isinstance(judge_identity(C1, "c", revoked, "k", newcomer=True), Forbidden)
