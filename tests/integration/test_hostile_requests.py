"""Whatever is sent to a coordinator, the answer is an answer or a typed error, and the cluster runs on unmoved.

Every method that a coordinator serves is found through the descriptors, so a new one is covered without a word here. A
failed test prints its seed; HOSTILE_SEED draws the same again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import Dialler, known_as, to_channel_credentials
from cloudless.adapters.grpc.server import REQUEST_BYTES_MAX
from cloudless.adapters.grpc.status import find_detail
from cloudless.cli.methods import APPLY_WORKLOAD, GET_WORKLOAD
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.errors import CloudlessError, error_with_code, outcome_of
from cloudless.ports import Credentials
from cloudless.rpc.v1 import (
    agent_pb2,
    cluster_pb2,
    common_pb2,
    event_pb2,
    maintenance_pb2,
    node_pb2,
    peer_pb2,
    workload_pb2,
)
from cloudless.rpc.v1.objects_pb2 import NodeInfo
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest, GetWorkloadRequest
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MODULES = (agent_pb2, cluster_pb2, event_pb2, maintenance_pb2, node_pb2, peer_pb2, workload_pb2)
AT_ONCE = 32
ANSWER_S = 2.0
RANDOM_BYTES_EACH = 60
ABSURD_EACH = 60
RSS_MAX_MB = 500.0
MIB = 1 << 20
CHANNEL_OPTIONS = (("grpc.max_send_message_length", 64 * MIB), ("grpc.max_receive_message_length", 64 * MIB))
REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
FORBIDDEN = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED}


@dataclass(frozen=True)
class Rpc:
    """One method as its descriptor tells it."""

    service: str
    name: str
    request: Any
    client_streams: bool
    server_streams: bool

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


RPCS = tuple(
    Rpc(
        service.full_name,
        method.name,
        message_factory.GetMessageClass(method.input_type),
        method.client_streaming,
        method.server_streaming,
    )
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    if service.name not in ("AgentLogService", "AgentExecService")  # served by agents, to coordinators
    for method in service.methods
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    """A cluster with a node and a running workload."""
    made = LocalCluster(tmp_path_factory.mktemp("hostile"), binary.path)
    made.add_coordinators()
    made.found_together()
    made.add_agent("agent-1")
    made.start(*made.processes)
    try:
        made.wait_ready()
        made.apply(manifest_of("calm"))
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def unmoved(cluster: LocalCluster) -> Iterator[None]:
    """What must be so after every test: the same leader in the same term, memory within bounds, no bug logged."""
    before = cluster.status().header
    logged = {name: logged_bugs(cluster, name) for name in COORDINATORS}
    yield
    for name in COORDINATORS:
        assert cluster.processes[name].lives, cluster.tail(name)
        print(f"{name} has {cluster.rss_mb(name):.0f} MB")
        assert cluster.rss_mb(name) < RSS_MAX_MB
        assert logged_bugs(cluster, name) == logged[name], cluster.tail(name, 200)
    cluster.wait_formed()
    assert cluster.phases()["agent-1"] == "READY"
    after = cluster.status().header
    assert (after.leader_id, after.term) == (before.leader_id, before.term)
    cluster.call(APPLY_WORKLOAD, ApplyWorkloadRequest(manifest=manifest_of("still-served", replicas=0)))
    assert cluster.call(GET_WORKLOAD, GetWorkloadRequest(name="calm")).workload.summary.running == 1
    cluster.assert_equal_states()


def logged_bugs(cluster: LocalCluster, name: str) -> int:
    return cluster.processes[name].log.read_text(errors="replace").count("Traceback")


@pytest.fixture
def draw() -> random.Random:
    seed = int(os.environ.get("HOSTILE_SEED") or random.randrange(2**32))
    print(f"HOSTILE_SEED={seed}")
    return random.Random(seed)


# --- asking ---

Ended = tuple[grpc.StatusCode, common_pb2.ErrorDetail | None, str]
"""How a call ended: its status, the detail it carried, the words of gRPC."""


def _open_blocking(address: str, credentials: Credentials | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    options = (*CHANNEL_OPTIONS, *known_as(ANY_COORDINATOR))
    return grpc.secure_channel(address, to_channel_credentials(credentials), options=options)


class Asker:
    """Sends raw bytes to one coordinator after the other and judges what comes back."""

    def __init__(
        self, addresses: Sequence[str], answer_s: float = ANSWER_S, credentials: Credentials | None = None
    ) -> None:
        self._answer_s = answer_s
        dialler = Dialler((lambda: credentials) if credentials is not None else None)
        self._channels = [dialler.open(address, options=CHANNEL_OPTIONS) for address in addresses]
        # For conversations: of a call that the server ends while more is being sent, grpc's asyncio client loses the
        # status ("Internal error from Core"); the blocking one tells it.
        self._blocking = [_open_blocking(address, credentials) for address in addresses]
        self.asked = 0
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.outcomes: Counter[str] = Counter()
        self.findings: list[str] = []

    async def ask(self, rpc: Rpc, *payloads: bytes) -> grpc.StatusCode:
        """Send one request, or a stream of them; return how it ended (a stream that goes on ends OK here)."""
        async with self._slots:
            self.asked += 1
            code, detail, words = await self._call(self.asked % len(self._channels), rpc, payloads)
        self.outcomes[code.name] += 1
        if code is not grpc.StatusCode.OK:
            self._judge(rpc, code, detail, words, payloads)
        return code

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        for blocking in self._blocking:
            blocking.close()

    async def _call(self, number: int, rpc: Rpc, payloads: tuple[bytes, ...]) -> Ended:
        channel = self._channels[number]
        try:
            if rpc.client_streams:
                return await asyncio.to_thread(self._converse, self._blocking[number], rpc, payloads)
            if not rpc.server_streams:
                await channel.unary_unary(rpc.path)(payloads[0], timeout=self._answer_s)
                return grpc.StatusCode.OK, None, ""
            call: Any = channel.unary_stream(rpc.path)(payloads[0], timeout=self._answer_s)
            async for _ in call:
                break  # it has begun
            call.cancel()
            return grpc.StatusCode.OK, None, ""
        except grpc.aio.AioRpcError as error:
            # Output is followed until there is some; only our own deadline ends that.
            waits = rpc.server_streams and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return (grpc.StatusCode.OK if waits else error.code()), find_detail(error), error.details() or ""

    def _converse(self, channel: grpc.Channel, rpc: Rpc, payloads: tuple[bytes, ...]) -> Ended:
        """Send a stream of requests and read all answers."""
        call: Any = channel.stream_stream(rpc.path)(iter(payloads), timeout=ANSWER_S)
        try:
            for _ in call:
                continue
            return grpc.StatusCode.OK, None, ""
        except grpc.RpcError:
            # Until it hears of a revision from the future a session waits; only our own deadline ends that.
            waits = call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return (grpc.StatusCode.OK if waits else call.code()), find_detail(call), call.details() or ""

    def _judge(
        self, rpc: Rpc, code: grpc.StatusCode, detail: common_pb2.ErrorDetail | None, words: str, sent: Iterable[bytes]
    ) -> None:
        sent = tuple(sent)
        said = f"{rpc.path}: {code.name}: {words[:200]!r} for {[payload[:60] for payload in sent]!r}"
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and max(map(len, sent)) > REQUEST_BYTES_MAX:
            return  # gRPC itself refuses what is too long, and knows nothing of our details
        if detail is None:
            self.findings.append(f"no detail: {said}")
        elif code in FORBIDDEN or error_with_code(detail.code) is CloudlessError:
            self.findings.append(said)
        elif outcome_of(error_with_code(detail.code)).grpc_status != code.name:
            self.findings.append(f"{detail.code} under a status of its own: {said}")

    def report(self) -> None:
        print(dict(self.outcomes))
        assert self.findings == [], "\n".join(self.findings[:20])


@asynccontextmanager
async def asking(cluster: LocalCluster) -> AsyncIterator[Asker]:
    asker = Asker([process.address() for process in cluster.coordinators])
    try:
        yield asker
    finally:
        await asker.close()


def judge(cluster: LocalCluster, send: Callable[[Asker], Awaitable[object]]) -> None:
    """Let `send` ask, then report every answer that was not as it should be."""

    async def run() -> None:
        async with asking(cluster) as asker:
            await send(asker)
            asker.report()

    asyncio.run(run())


# --- drawing ---

NUMBERS = (0, 1, -1, 2, 1000, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63))
REALS = (0.0, 1.0, -1.0, 1e-300, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", "a", "calm", "default", "agent-x", "A B", "-", ".", "..", "../../etc/passwd", "a/b", "\0", "a\0b", "\n", "é",
    "\u202e", "🦆" * 50, "x" * 64, "y" * 100_000, "%s%n", "{}", "$(x)", "' or 1=1", "linearizable", "\ufffe",
)  # fmt: skip


def absurd(message_class: Any, draw: random.Random, depth: int = 0) -> Any:
    """Return a message of valid shape and senseless content."""
    message = message_class()
    for spec in message_class.DESCRIPTOR.fields:
        if draw.random() < 0.35 or depth > 4:
            continue
        if spec.message_type is not None and spec.message_type.GetOptions().map_entry:
            fill_map(getattr(message, spec.name), spec, draw)
        elif spec.is_repeated:
            values = [value_of(spec, draw, depth) for _ in range(draw.choice((0, 1, 3, 50)))]
            getattr(message, spec.name).extend(values)
        elif spec.message_type is not None:
            getattr(message, spec.name).CopyFrom(value_of(spec, draw, depth))
        else:
            setattr(message, spec.name, value_of(spec, draw, depth))
    return message


def fill_map(target: Any, spec: FieldDescriptor, draw: random.Random) -> None:
    assert spec.message_type is not None
    key, value = spec.message_type.fields_by_name["key"], spec.message_type.fields_by_name["value"]
    for _ in range(draw.choice((0, 1, 3, 200))):
        target[value_of(key, draw, 9)] = value_of(value, draw, 9)


def message_class_of(spec: FieldDescriptor) -> Any:
    assert spec.message_type is not None
    return message_factory.GetMessageClass(spec.message_type)


def value_of(spec: FieldDescriptor, draw: random.Random, depth: int) -> Any:
    match spec.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return absurd(message_class_of(spec), draw, depth + 1)
        case FieldDescriptor.CPPTYPE_STRING:
            text = draw.choice(TEXTS) if draw.random() < 0.8 else "".join(map(chr, draw.choices(range(0xD7FF), k=20)))
            return text if spec.type == FieldDescriptor.TYPE_STRING else text.encode()
        case FieldDescriptor.CPPTYPE_BOOL:
            return draw.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return draw.choice(REALS)
        case FieldDescriptor.CPPTYPE_UINT64:
            return draw.choice(NUMBERS) % 2**64
        case FieldDescriptor.CPPTYPE_ENUM:
            return draw.choice((0, 1, 2, 3, 4, 99, -1, 2**31 - 1))
        case _:
            return draw.choice(NUMBERS)


_ENDING = ("DeleteWorkload", "ScaleWorkload")


def harmless(rpc: Rpc, message: Any) -> Any:
    """Keep one request from doing what it validly asks for: to move the leader, to end the workload that is watched."""
    if rpc.name == "TransferLeader" and not message.to_coordinator_id:
        message.to_coordinator_id = "nobody"
    if rpc.name in _ENDING and message.name == "calm":
        message.name = "nobody"
    return message


def random_bytes(rpc: Rpc, draw: random.Random) -> bytes:
    """Return noise, or a message with noise in it."""
    noise = draw.randbytes(draw.choice((1, 2, 7, 64, 1000)))
    if draw.random() < 0.5:
        return noise
    whole: bytes = harmless(rpc, absurd(rpc.request, draw)).SerializeToString()
    at = draw.randrange(len(whole) + 1)
    return whole[:at] + noise + whole[at + draw.randrange(8) :]


def reads_as_harmless(rpc: Rpc, payload: bytes) -> bool:
    """Return whether it is not, by chance, a readable request to do what `harmless` prevents."""
    if rpc.name not in ("TransferLeader", *_ENDING):
        return True
    try:
        message = rpc.request.FromString(payload)
    except Exception:
        return True
    return bool(message.to_coordinator_id) if rpc.name == "TransferLeader" else message.name != "calm"


# --- tests ---


def test_random_bytes_to_every_method(cluster: LocalCluster, draw: random.Random) -> None:
    payloads = [
        (rpc, [random_bytes(rpc, draw) for _ in range(3 if rpc.client_streams else 1)])
        for rpc in RPCS
        for _ in range(RANDOM_BYTES_EACH)
    ]

    async def send(asker: Asker) -> None:
        await asyncio.gather(*(asker.ask(rpc, *sent) for rpc, sent in payloads if reads_as_harmless(rpc, sent[0])))

    judge(cluster, send)


def test_absurd_values_in_every_method(cluster: LocalCluster, draw: random.Random) -> None:
    messages = [
        (rpc, [harmless(rpc, absurd(rpc.request, draw)) for _ in range(3 if rpc.client_streams else 1)])
        for rpc in RPCS
        for _ in range(ABSURD_EACH)
    ]

    async def send(asker: Asker) -> None:
        await asyncio.gather(*(asker.ask(rpc, *(m.SerializeToString() for m in sent)) for rpc, sent in messages))
        assert asker.outcomes["OK"] > len(RPCS), "nothing got through: this proves little"

    judge(cluster, send)


def rpc_named(name: str) -> Rpc:
    return next(rpc for rpc in RPCS if rpc.name == name)


def document(**spec: Any) -> str:
    metadata = spec.pop("metadata", {"name": "hostile"})
    spec = {"command": ["true"], "replicas": 0, **spec}
    return json.dumps({"apiVersion": "cloudless/v1", "kind": "Workload", "metadata": metadata, "spec": spec})


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


MANIFESTS = {
    "nothing": "",
    "only comments": "# nothing",
    "not a mapping": "just text",
    "alias bomb": bomb(12),
    "self reference": "&a [*a]",
    "merge keys": "a: &a {b: 1}\nc: {<<: *a}",
    "duplicate keys": "a: 1\na: 2",
    "deep list": "[" * 100_000,
    "deep mapping": "{a: " * 100_000,
    "deep block": "\n".join(" " * n + "a:" for n in range(1_000)),
    "deep json": document(env=json.loads("[" * 60 + "]" * 60)),
    "many documents": "---\na: 1\n" * 10_000,
    "many scalars": "[" + "1," * (MIB // 2 - 10) + "1]",
    "many keys": "\n".join(f"k{n}: {n}" for n in range(70_000)),
    "a long scalar": "a: " + "x" * (MIB - 100),
    "too long": "a: " + "x" * MIB,
    "many anchors": "\n".join(f"k{n}: &a{n} 1" for n in range(40_000)),
    "unhashable key": "? [a, b]\n: c",
    "mapping as key": "? {a: b}\n: c",
    "python object": "!!python/object/apply:os.system ['true']",
    "wrong bool tag": "a: !!bool maybe",
    "wrong timestamp tag": "a: !!timestamp never",
    "sequence as map": "a: !!map [b]",
    "scalar as map": "a: !!map b",
    "set": "a: !!set [b]",
    "omap": "a: !!omap {b: c}",
    "pairs": "a: !!pairs [b]",
    "binary": "a: !!binary '%%%'",
    "unknown tag": "a: !mine b",
    "tag directive": "%TAG ! tag:example,2000:\n---\na: !b c",
    "impossible date": "a: 2024-99-99",
    "far date": "a: 9999-12-31T23:59:59-23:59",
    "huge integer": "a: " + "9" * 5_000,
    "huge binary integer": "a: 0b" + "1" * 100_000,
    "no digits": "a: 0b_",
    "sexagesimal": "a: " + "1:" * 5_000 + "1",
    "the value tag": "a: =",
    "not a number": document().replace('"replicas": 0', '"replicas": .nan'),
    "infinitely many": document().replace('"replicas": 0', '"replicas": .inf'),
    "more than int64": document(replicas=2**70),
    "a negative count": document(replicas=-1),
    "half a surrogate in a value": document(env={"A": "\ud800"}),
    "half a surrogate in a key": document(env={"A\ud800": "b"}),
    "half a surrogate in an annotation": document(metadata={"name": "hostile", "annotations": {"a": "\udfff"}}),
    "half a surrogate in a name": document(metadata={"name": "\ud800"}),
    "half a surrogate as a field": json.dumps({"\ud800": 1}),
    "NUL in a command": document(command=["a\0b"]),
    "NUL in the environment": document(env={"A": "a\0b"}),
    "control characters": "a: \x01\x02",
    "a byte order mark": "\ufeff" + document(),
    "no characters": "a: \ufffe",
    "many problems": document(env={f"-{n}": n for n in range(5_000)}),
    "many ports": document(ports=[{"name": f"p{n}", "hostPort": 1} for n in range(5_000)]),
    "a wide duration": document(stopGrace="9" * 400 + "s"),
    "a wide quantity": document(resources={"requests": {"cpu": "9" * 4_000, "memory": "1e400Gi"}}),
    "a quantity of every kind": document(
        resources={"requests": {"cpu": True, "memory": [], "storage": {}, "gpu": None}}
    ),
    "numbers as texts": document(command=[1, 2.5, None, True, {}]),
    "much of everything": "\n---\n".join(document(metadata={"name": f"h{n}"}, args=["x" * 15_000]) for n in range(64)),
}


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry-run", "applied"])
def test_manifests_that_are_traps(cluster: LocalCluster, dry_run: bool) -> None:
    rpc = rpc_named("ApplyWorkload")

    async def send(asker: Asker) -> None:
        for title, text in MANIFESTS.items():
            request = ApplyWorkloadRequest(manifest=text, dry_run=dry_run)
            code = await asker.ask(rpc, request.SerializeToString())
            assert code in (grpc.StatusCode.OK, *REFUSALS), f"{title!r}: {code}"

    judge(cluster, send)


def hello_of(info: NodeInfo, **fields: Any) -> agent_pb2.AgentMessage:
    return agent_pb2.AgentMessage(hello=agent_pb2.AgentHello(info=info, **fields))


def megabytes() -> Iterator[tuple[str, Message]]:
    """Yield (method, request) of nearly as many bytes as are read at all."""
    many = range(100_000, 250_000)
    long = "x" * (REQUEST_BYTES_MAX // 2 - 1_000)
    yield "ListNodes", node_pb2.ListNodesRequest(selector={str(n): "" for n in many})
    yield "ListWorkloads", workload_pb2.ListWorkloadsRequest(selector={str(n): "" for n in many})
    yield "UpdateNode", node_pb2.UpdateNodeRequest(node_id="agent-1", set_labels={str(n): "" for n in many})
    yield "UpdateNode", node_pb2.UpdateNodeRequest(node_id="agent-1", remove_labels=map(str, many))
    yield "Watch", event_pb2.WatchRequest(kinds=map(str, many))
    yield "GetNode", node_pb2.GetNodeRequest(node_id=long)
    yield "GetWorkload", workload_pb2.GetWorkloadRequest(name=long, namespace=long)
    yield "GetTask", workload_pb2.GetTaskRequest(task_id=long)
    yield "ListTasks", workload_pb2.ListTasksRequest(page_token=long)
    yield "ListEvents", event_pb2.ListEventsRequest(subject=long)
    yield "ReadLogs", workload_pb2.ReadLogsRequest(task_id=long)
    yield "ApplyWorkload", ApplyWorkloadRequest(manifest=long)
    yield (
        "ScaleWorkload",
        workload_pb2.ScaleWorkloadRequest(options=common_pb2.WriteOptions(request_id=long), name="calm", replicas=1),
    )
    yield "DeleteWorkload", workload_pb2.DeleteWorkloadRequest(name=long)
    yield "RemoveMember", cluster_pb2.RemoveMemberRequest(coordinator_id=long)
    yield "TransferLeader", cluster_pb2.TransferLeaderRequest(to_coordinator_id=long)
    yield "JoinRaftCluster", cluster_pb2.JoinRaftClusterRequest(node_id=long, raft_address=long)
    yield "Session", hello_of(NodeInfo(id=long), cluster_id=long)


def test_requests_of_megabytes(cluster: LocalCluster) -> None:
    async def send(asker: Asker) -> None:
        for name, request in megabytes():
            await asker.ask(rpc_named(name), request.SerializeToString())

    judge(cluster, send)


@pytest.mark.parametrize("size", [REQUEST_BYTES_MAX + 1_000, 17 * MIB])
def test_a_request_larger_than_any_may_be_is_refused(cluster: LocalCluster, size: int) -> None:
    async def run() -> None:
        async with asking(cluster) as asker:
            code = await asker.ask(rpc_named("ApplyWorkload"), b"x" * size)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(run())


def test_an_agent_that_talks_nonsense_ends_its_own_session_only(cluster: LocalCluster, draw: random.Random) -> None:
    rpc = rpc_named("Session")
    cluster_id = cluster.status().header.cluster_id

    def hello(number: int) -> bytes:
        address, labels = draw.choice(TEXTS), {"a": draw.choice(TEXTS)}
        info = NodeInfo(id=f"stranger-{number}", address=address, labels=labels)
        whole: bytes = hello_of(info, cluster_id=cluster_id, incarnation=draw.choice(NUMBERS)).SerializeToString()
        return whole

    def nonsense() -> bytes:
        if draw.random() < 0.3:
            return draw.randbytes(20)
        whole: bytes = absurd(agent_pb2.AgentMessage, draw).SerializeToString()
        return whole

    async def send(asker: Asker) -> None:
        await asyncio.gather(
            *(asker.ask(rpc, hello(n % 10), *(nonsense() for _ in range(draw.randrange(6)))) for n in range(100))
        )

    judge(cluster, send)
