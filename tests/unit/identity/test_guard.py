"""The guard over real TLS: gRPC hands it the certificate that was verified, it makes a caller of it or refuses, and the
refusal is told. Names, versions and chains are looked at with plain gRPC and plain TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cloudless.adapters.grpc.server import GrpcServer
from cloudless.adapters.pki.certificate import hash_key
from cloudless.adapters.pki.credentials import Credentials, build_credentials
from cloudless.adapters.pki.pinning import fetch_pinned_root
from cloudless.adapters.pki.request import key_to_pem, new_key
from cloudless.adapters.pki.vault import Holdings, found
from cloudless.coordinator.api.caller import current_actor
from cloudless.coordinator.api.request_facts import _FACTS, find_facts
from cloudless.coordinator.guard import Guard, place_of
from cloudless.core import keys
from cloudless.core.identity.access import FOUNDING_MS, RequestFacts
from cloudless.core.identity.names import ANY_COORDINATOR, Identity, IdentityKind, kind_of
from cloudless.core.identity.rules import PACKAGE, RULES, Reach
from cloudless.core.model import AuthorityPurpose, IdentityRecord, Role, TaskDesired
from cloudless.errors import CloudlessError, Denied, Unauthenticated, Unavailable
from cloudless.rpc.v1 import agent_pb2, cluster_pb2, exec_pb2, objects_pb2, peer_pb2, workload_pb2
from cloudless.testing.builders import TestCluster, build_task_template

CLUSTER = AuthorityPurpose.CLUSTER
NOW_MS = int(time.time() * 1000)
DAY_MS = 86_400_000
OURS, THEIRS = found("ours", NOW_MS - 7 * DAY_MS), found("theirs", NOW_MS)
GET_STATUS = f"{PACKAGE}ClusterService/GetStatus"
GET_FORMATION = f"{PACKAGE}ClusterService/GetFormation"
SCALE = f"{PACKAGE}WorkloadService/ScaleWorkload"


def build(kind: IdentityKind, name: str, holdings: Holdings = OURS, now_ms: int = NOW_MS) -> Credentials:
    key, authority = new_key(), holdings.open_issuing(CLUSTER)
    identity = Identity(holdings.cluster_id, kind, name)
    chain = authority.chain_pem(authority.sign_identity(identity, key.public_key(), now_ms))
    return build_credentials(chain, key_to_pem(key), holdings.roots_pem(CLUSTER))


def enrol(cluster: TestCluster, credentials: Credentials, role: Role, **fields: Any) -> None:
    record = IdentityRecord(name=credentials.identity.name, role=role, key_hashes=(credentials.key_hash,), **fields)
    cluster.put(keys.identity(kind_of(role).value, record.name), record)


@dataclass
class Door:
    """A gRPC server that answers any method with the caller's name, if its guard lets it."""

    credentials: Credentials
    cluster: TestCluster = field(default_factory=TestCluster)
    told: list[tuple[str, ...]] = field(default_factory=list)
    address: str = ""
    handshakes: int = 0
    loaded: bool = True

    def __post_init__(self) -> None:
        self.guard = Guard(
            lambda: self.cluster.machine if self.loaded else None,
            lambda: "ours",
            tell=lambda *told: self.told.append(told),
        )

    def configuration(self) -> Any:
        self.handshakes += 1
        held = self.credentials
        return grpc.ssl_server_certificate_configuration([(held.key_pem, held.chain_pem)], held.roots_pem)

    async def answer(self, method: str, request: bytes, context: Any) -> bytes:
        try:
            self.guard.enter(method, context)
            self.guard.check(method, workload_pb2.ScaleWorkloadRequest.FromString(request), context)
        except CloudlessError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{type(error).__name__}: {error.message}")
        return current_actor().encode()

    async def call(self, caller: Credentials, method: str = GET_STATUS, request: bytes = b"", name: str = "") -> str:
        """Return who the server takes the caller for. Raises grpc's errors."""
        credentials = grpc.ssl_channel_credentials(caller.roots_pem, caller.key_pem, caller.chain_pem)
        options = [("grpc.ssl_target_name_override", name or ANY_COORDINATOR), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(self.address, credentials, options=options) as channel:
            answer: bytes = await channel.unary_unary(f"/{method}")(request, timeout=10)
            return answer.decode()


class Everything(grpc.GenericRpcHandler):
    def __init__(self, door: Door) -> None:
        self._door = door

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def serve(request: bytes, context: Any) -> bytes:
            return await self._door.answer(details.method.lstrip("/"), request, context)

        return grpc.unary_unary_rpc_method_handler(serve)


@asynccontextmanager
async def open_door() -> AsyncIterator[Door]:
    door = Door(build(IdentityKind.COORDINATOR, "c1"))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Everything(door),))
    credentials = grpc.dynamic_ssl_server_credentials(
        door.configuration(), door.configuration, require_client_authentication=True
    )
    door.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    await server.start()
    try:
        yield door
    finally:
        await server.stop(0)


def refusal_of(error: grpc.aio.AioRpcError) -> str:
    return error.details() or ""


async def test_callers_are_who_their_certificates_say_if_the_records_agree() -> None:
    ann, agent, c2 = (build(kind, name) for kind, name in zip(reversed(IdentityKind), ("ann", "a1", "c2"), strict=True))
    async with open_door() as door:
        enrol(door.cluster, ann, Role.OPERATOR)
        enrol(door.cluster, agent, Role.AGENT)
        assert await door.call(ann) == "person/ann"
        assert await door.call(c2) == "coordinator/c2"
        assert await door.call(c2, name="c1.coordinator.cloudless") == "coordinator/c2"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await door.call(agent)
        assert "not for agents" in refusal_of(refused.value)
        ((subject, actor, method, reason),) = door.told
        assert (subject, actor, method) == ("agent/a1", "agent/a1", "ClusterService/GetStatus")
        assert "not for agents" in reason


async def test_once_coordinators_are_on_record_a_ca_signature_alone_makes_no_other() -> None:
    c2, forged = build(IdentityKind.COORDINATOR, "c2"), build(IdentityKind.COORDINATOR, "c9")
    async with open_door() as door:
        assert await door.call(forged) == "coordinator/c9"
        enrol(door.cluster, c2, Role.COORDINATOR, enrolled_at_ms=int(time.time() * 1000))
        assert await door.call(c2) == "coordinator/c2"
        with pytest.raises(grpc.aio.AioRpcError, match="coordinator/c9 is not enrolled"):
            await door.call(forged)
        assert await door.call(forged, GET_FORMATION) == "coordinator/c9"
        enrol(door.cluster, c2, Role.COORDINATOR, enrolled_at_ms=int(time.time() * 1000) - FOUNDING_MS)
        for method in (GET_FORMATION, f"{PACKAGE}ClusterService/JoinRaftCluster"):
            with pytest.raises(grpc.aio.AioRpcError, match="coordinator/c9 is not enrolled"):
                await door.call(forged, method)


async def test_before_there_is_state_a_certificate_is_enough_to_ask_and_not_to_change_anything() -> None:
    c2 = build(IdentityKind.COORDINATOR, "c2")
    async with open_door() as door:
        door.loaded = False
        assert await door.call(c2, GET_FORMATION) == "coordinator/c2"
        for method in ("ClusterService/RemoveMember", "IdentityService/FetchClusterKey", "PeerService/Link"):
            with pytest.raises(grpc.aio.AioRpcError, match=r"Unavailable: .*no state yet"):
                await door.call(c2, f"{PACKAGE}{method}")


async def test_who_is_not_enrolled_or_revoked_or_of_an_older_key_is_nobody() -> None:
    async with open_door() as door:
        ann = build(IdentityKind.PERSON, "ann")
        with pytest.raises(grpc.aio.AioRpcError, match="Unauthenticated: person/ann is not enrolled"):
            await door.call(ann)
        enrol(door.cluster, ann, Role.VIEWER)
        assert await door.call(ann) == "person/ann"
        enrol(door.cluster, build(IdentityKind.PERSON, "ann"), Role.VIEWER)
        with pytest.raises(grpc.aio.AioRpcError, match="another key"):
            await door.call(ann)
        enrol(door.cluster, ann, Role.VIEWER, revoked_at_ms=1)
        with pytest.raises(grpc.aio.AioRpcError, match="revoked"):
            await door.call(ann)


async def test_transport_lets_in_no_stranger_and_no_expired_certificate() -> None:
    async with open_door() as door:
        stranger = build(IdentityKind.COORDINATOR, "c2", THEIRS)
        trusting = replace(stranger, roots_pem=door.credentials.roots_pem)
        expired = build(IdentityKind.COORDINATOR, "c2", now_ms=NOW_MS - 2 * DAY_MS)
        for caller in (stranger, trusting, expired):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await door.call(caller)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_insists_on_the_name_it_expects() -> None:
    async with open_door() as door:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await door.call(build(IdentityKind.COORDINATOR, "c2"), name="c2.coordinator.cloudless")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_joiner_finds_the_pinned_ca_at_a_grpc_port_that_wants_certificates() -> None:
    async with open_door() as door:
        pin = OURS.get_issuing(CLUSTER).pin
        assert await fetch_pinned_root(door.address, pin) == OURS.roots_pem(CLUSTER)


async def test_new_credentials_count_for_the_next_connection_and_old_connections_go_on() -> None:
    async with open_door() as door:
        caller = build(IdentityKind.COORDINATOR, "c2")
        credentials = grpc.ssl_channel_credentials(caller.roots_pem, caller.key_pem, caller.chain_pem)
        options = [("grpc.ssl_target_name_override", ANY_COORDINATOR), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(door.address, credentials, options=options) as old:
            call = old.unary_unary(f"/{GET_STATUS}")
            assert await call(b"", timeout=10) == b"coordinator/c2"
            before, door.credentials = door.credentials, build(IdentityKind.COORDINATOR, "c1")
            shown = await shown_to_strangers(door.address)
            assert shown == door.credentials.key_hash != before.key_hash
            assert await call(b"", timeout=10) == b"coordinator/c2"


async def shown_to_strangers(address: str) -> str:
    from cloudless.adapters.pki.pinning import fetch_chain

    return hash_key((await fetch_chain(address))[0].public_key())


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
@pytest.mark.parametrize(("version", "spoken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
async def test_tls_older_than_1_2_is_not_spoken(tmp_path: Path, version: str, spoken: bool) -> None:
    caller = build(IdentityKind.COORDINATOR, "c2")
    (tmp_path / "caller.pem").write_bytes(caller.key_pem + caller.chain_pem)
    async with open_door() as door:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(tmp_path / "caller.pem")
        context.set_alpn_protocols(["h2"])
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        host, _, port = door.address.rpartition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.close()
            done = True
        except OSError:
            done = False
        assert done == spoken


async def test_people_bound_to_a_namespace_are_held_to_it() -> None:
    async with open_door() as door:
        bob = build(IdentityKind.PERSON, "bob")
        enrol(door.cluster, bob, Role.OPERATOR, namespaces=("team-a",))
        own, other = (workload_pb2.ScaleWorkloadRequest(namespace=name, name="web") for name in ("team-a", "team-b"))
        assert await door.call(bob, SCALE, own.SerializeToString()) == "person/bob"
        with pytest.raises(grpc.aio.AioRpcError, match="Denied: person/bob is bound to team-a"):
            await door.call(bob, SCALE, other.SerializeToString())


async def test_what_is_served_is_told_to_nobody_that_is_not_known() -> None:
    own, ann = build(IdentityKind.COORDINATOR, "c1"), build(IdentityKind.PERSON, "ann")
    cluster = TestCluster()
    server = GrpcServer(
        "127.0.0.1:0", "c1", credentials=lambda: own, door=Guard(lambda: cluster.machine, lambda: "ours")
    )
    port = await server.start()
    credentials = grpc.ssl_channel_credentials(ann.roots_pem, ann.key_pem, ann.chain_pem)
    options = [("grpc.ssl_target_name_override", ANY_COORDINATOR)]

    async def ask() -> list[str]:
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await call.read()
            return [service.name for service in answer.list_services_response.service]

    try:
        with pytest.raises(grpc.aio.AioRpcError, match="person/ann is not enrolled"):
            await ask()
        enrol(cluster, ann, Role.VIEWER)
        assert "grpc.health.v1.Health" in await ask()
    finally:
        await server.stop(0)


# --- without a network --------------------------------------------------------------------------


class Context:
    def __init__(self, pem: bytes | None = None, peer: str = "ipv4:10.0.0.1:4711") -> None:
        self._pem, self._peer = pem, peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return {} if self._pem is None else {"x509_pem_cert": [self._pem]}

    def peer(self) -> str:
        return self._peer


@pytest.mark.parametrize("name", sorted(RULES))
def test_without_a_certificate_only_what_anyone_may_is_let_in_and_the_rest_is_told(name: str) -> None:
    told: list[tuple[str, ...]] = []
    guard = Guard(lambda: None, lambda: "ours", tell=lambda *one: told.append(one))
    if RULES[name].anyone:
        guard.enter(name, Context())
        assert not told
    else:
        with pytest.raises(Unauthenticated):
            guard.enter(name, Context())
        assert told[0][0] == "address/10.0.0.1"


def test_before_there_is_state_coordinators_know_each_other_and_nobody_else() -> None:
    guard, c2 = Guard(lambda: None, lambda: "ours"), build(IdentityKind.COORDINATOR, "c2")
    link = f"{PACKAGE}PeerService/Link"
    guard.enter(GET_FORMATION, Context(c2.chain_pem))
    assert current_actor() == "coordinator/c2"
    with pytest.raises(Unavailable, match="ask another"):
        guard.enter(link, Context(c2.chain_pem))
    founding = Guard(lambda: TestCluster().machine, lambda: "ours")
    founding.enter(link, Context(c2.chain_pem))
    founding.check(link, peer_pb2.PeerBeat(coordinator_id="c2"), Context())
    with pytest.raises(Denied, match="may not speak for c3"):
        founding.check(link, peer_pb2.PeerBeat(coordinator_id="c3"), Context())
    with pytest.raises(Unavailable, match="ask another"):
        guard.enter(f"{PACKAGE}AgentService/Session", Context(build(IdentityKind.AGENT, "a1").chain_pem))


def test_before_there_is_state_people_are_told_what_is_waited_for_and_nothing_else() -> None:
    guard = Guard(lambda: None, lambda: "ours")
    ann, stranger = build(IdentityKind.PERSON, "ann"), build(IdentityKind.AGENT, "a1")
    inspect = f"{PACKAGE}MaintenanceService/InspectCoordinator"
    guard.enter(inspect, Context(ann.chain_pem))
    assert current_actor() == "person/ann"
    for method, who in ((f"{PACKAGE}ClusterService/GetStatus", ann), (inspect, stranger)):
        with pytest.raises(Unavailable, match="doctor"):
            guard.enter(method, Context(who.chain_pem))


def test_a_bad_certificate_does_not_keep_anybody_from_what_anyone_may() -> None:
    guard = Guard(lambda: None, lambda: "ours")
    for pem in (b"nonsense", build(IdentityKind.AGENT, "a1", THEIRS).chain_pem):
        guard.enter("grpc.health.v1.Health/Check", Context(pem))
        assert current_actor() == ""
        with pytest.raises(Unauthenticated):
            guard.enter(GET_STATUS, Context(pem))


def test_who_is_revoked_in_the_middle_of_a_stream_is_refused_there() -> None:
    cluster, told = TestCluster(), []
    guard = Guard(lambda: cluster.machine, lambda: "ours", tell=lambda *one: told.append(one))
    agent, ann = build(IdentityKind.AGENT, "a1"), build(IdentityKind.PERSON, "ann")
    session, watch = f"{PACKAGE}AgentService/Session", f"{PACKAGE}EventService/Watch"
    heartbeat = agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat())
    for credentials, role, method, message in (
        (agent, Role.AGENT, session, heartbeat), (agent, Role.AGENT, session, None), (ann, Role.VIEWER, watch, None),
    ):  # fmt: skip
        enrol(cluster, credentials, role)
        guard.enter(method, Context(credentials.chain_pem))
        guard.check(method, message, Context())
        enrol(cluster, credentials, role, revoked_at_ms=1)
        with pytest.raises(Unauthenticated, match="revoked"):
            guard.check(method, message, Context())
    assert len(told) == 3
    enrol(cluster, ann, Role.VIEWER)
    guard.enter(watch, Context(ann.chain_pem))
    enrol(cluster, ann, Role.VIEWER, namespaces=("team-a",))
    with pytest.raises(Denied, match="bound to team-a"):
        guard.check(watch, None, Context())


def test_an_open_door_lets_everybody_do_everything() -> None:
    guard = Guard(lambda: None, lambda: "ours", open_door=True)
    for name in RULES:
        guard.enter(name, Context())
        guard.check(name, None, Context())


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"), ("ipv6:[::1]:80", "::1"), ("ipv6:%5B2001:db8::1%5D:80", "2001:db8::1"),
        ("unix:/tmp/x", "unix"), ("", "unknown"),
    ],
)  # fmt: skip
def test_places_are_addresses_without_ports(peer: str, place: str) -> None:
    assert place_of(Context(peer=peer)) == place


# --- facts --------------------------------------------------------------------------------------


def test_every_rule_that_asks_for_facts_can_have_them() -> None:
    asking = {name for name, rule in RULES.items() if rule.own or rule.reach is Reach.NAMESPACE}
    assert {PACKAGE + name for name in _FACTS} == asking


def facts(name: str, message: Any, cluster: TestCluster | None = None) -> RequestFacts:
    return find_facts(PACKAGE + name, message, cluster.machine if cluster else None)


def test_a_session_speaks_for_the_nodes_it_names() -> None:
    hello = agent_pb2.AgentMessage(hello=agent_pb2.AgentHello(info=objects_pb2.NodeInfo(id="a1")))
    reports = [objects_pb2.TaskObserved(node_id=node) for node in ("a1", "a2")]
    assert facts("AgentService/Session", hello).speaks_for == ("a1",)
    told = agent_pb2.AgentMessage(reports=agent_pb2.TaskReports(reports=reports))
    assert facts("AgentService/Session", told).speaks_for == ("a1", "a2")
    assert facts("AgentService/Session", agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat())).speaks_for == ()
    assert facts("ClusterService/JoinRaftCluster", cluster_pb2.JoinRaftClusterRequest(node_id="c2")).speaks_for == (
        "c2",
    )


def test_namespaces_are_those_of_the_request_its_manifest_or_its_task() -> None:
    cluster = TestCluster()
    task = TaskDesired(
        id="t1", namespace="team-b", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n",
        spec=build_task_template(),
    )  # fmt: skip
    cluster.put(keys.task_desired("t1"), task)
    manifest = "".join(
        f"---\napiVersion: cloudless/v1\nkind: Workload\nmetadata: {{name: web, namespace: {name}}}\n"
        "spec: {executor: process, command: [x]}\n"
        for name in ("team-a", "team-b")
    )
    w = workload_pb2
    for name, message, expected in (
        ("WorkloadService/ListWorkloads", w.ListWorkloadsRequest(), None),
        ("WorkloadService/ListWorkloads", w.ListWorkloadsRequest(namespace="x"), ("x",)),
        ("WorkloadService/GetWorkload", w.GetWorkloadRequest(name="web"), ("default",)),
        ("TaskService/GetTask", w.GetTaskRequest(task_id="t1"), ("team-b",)),
        ("TaskService/GetTask", w.GetTaskRequest(task_id="t2"), ()),
        ("TaskService/ExecTask", exec_pb2.ExecTaskRequest(start=exec_pb2.ExecStart(task_id="t1")), ("team-b",)),
        ("TaskService/ExecTask", exec_pb2.ExecTaskRequest(input=b"x"), ()),
        ("WorkloadService/ReadLogs", w.ReadLogsRequest(namespace="team-a", task_id="t1"), ("team-b",)),
        ("WorkloadService/ReadLogs", w.ReadLogsRequest(namespace="team-a", workload="web"), ("team-a",)),
        ("WorkloadService/ApplyWorkload", w.ApplyWorkloadRequest(manifest=manifest), ("team-a", "team-b")),
        ("WorkloadService/ApplyWorkload", w.ApplyWorkloadRequest(manifest="{"), ()),
    ):
        assert facts(name, message, cluster).namespaces == expected, name
    assert facts("TaskService/GetTask", w.GetTaskRequest(task_id="t1")).namespaces is None
