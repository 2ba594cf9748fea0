"""What happens to single requests: sent twice, reordered, answered into the void, senseless, too large, corrupt."""

from __future__ import annotations

import asyncio
import random
import time
import uuid

import grpc
import pytest

from cloudless.adapters.yaml_documents import DOCUMENTS_MAX
from cloudless.cli.aio import AsyncClient
from cloudless.cli.methods import (
    APPLY_WORKLOAD,
    DELETE_WORKLOAD,
    GET_WORKLOAD,
    LIST_WORKLOADS,
    SCALE_WORKLOAD,
    UPDATE_NODE,
    Method,
)
from cloudless.core import keys
from cloudless.errors import CloudlessError, InvalidSpec, TooLarge
from cloudless.ports import Delete, Put
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.rpc.v1.node_pb2 import UpdateNodeRequest
from cloudless.rpc.v1.workload_pb2 import (
    ApplyWorkloadRequest,
    ApplyWorkloadResponse,
    DeleteWorkloadRequest,
    GetWorkloadRequest,
    ListWorkloadsRequest,
    ScaleWorkloadRequest,
)
from tests.faults.rig.proxy import Mode, Proxy
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import STEADY, Trial
from tests.integration.cluster import LocalCluster, manifest_of
from tests.integration.test_hostile_requests import (
    MANIFESTS,
    RPCS,
    RSS_MAX_MB,
    Asker,
    megabytes,
    random_bytes,
    rpc_named,
)

OBJECTS = 6
RETRY_S = 20.0
RANDOM_BYTES_EACH = 10
PASSES = 2
MIB = 1 << 20
# Megabytes are read in a second or two of a processor that writers and readers share.
ANSWER_S = 6.0


def numbered(name: str, number: int) -> ApplyWorkloadRequest:
    """Return a write of its own id that sets the workload's number."""
    options = WriteOptions(request_id=uuid.uuid4().hex)
    return ApplyWorkloadRequest(options=options, manifest=manifest_of(name, replicas=0, env={"NUMBER": str(number)}))


@scenario(41, rounds=2)
def test_requests_sent_again_and_out_of_order_across_a_failover_have_one_effect(trial: Trial) -> None:
    """Two requests for each object are sent to every coordinator at once, twice, while the leader's host dies."""
    cluster = trial.start()
    for number in trial.rounds():
        trial.load_up()
        names = [f"twice-{number}-{n}" for n in range(OBJECTS)]
        for name in names:
            cluster.apply(manifest_of(name, replicas=0))
        requests = [numbered(name, n) for name in names for n in (1, 2)]
        leader = cluster.leader()
        sending = trial.load.begin(send_everywhere(cluster, requests))
        trial.note(f"kill {leader} and its etcd")
        cluster.kill(leader, etcd=True)
        for request, answers in zip(requests, sending.result(60.0), strict=True):
            assert len({(tuple(map(str, a.results)), a.header.revision) for a in answers}) == 1, request
        for name in names:
            record = cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=name)).workload.record
            assert record.generation == 3, "made, and changed by each of two requests"
        trial.figure("requests", len(requests) * 6)
        cluster.start(leader)
        trial.settle()


async def send_everywhere(
    cluster: LocalCluster, requests: list[ApplyWorkloadRequest]
) -> list[list[ApplyWorkloadResponse]]:
    """Send each request six times, at random moments, first to each coordinator in turn; return its answers."""
    addresses = cluster.api_addresses()
    orders = [[*addresses[n:], *addresses[:n]] for n in range(len(addresses))]
    clients = [AsyncClient(order, RETRY_S, cluster.dialler) for order in orders] * 2

    async def send(client: AsyncClient, request: ApplyWorkloadRequest) -> ApplyWorkloadResponse:
        await asyncio.sleep(random.uniform(0.0, 1.5))
        return await client.call(APPLY_WORKLOAD, request)

    try:
        return list(
            await asyncio.gather(*(asyncio.gather(*(send(client, each) for client in clients)) for each in requests))
        )
    finally:
        for client in clients:
            await client.close()


@scenario(42, quick=True)
def test_an_answer_that_was_lost_after_the_commit_is_given_to_whoever_asks_again(trial: Trial) -> None:
    cluster = trial.start()
    first = cluster.coordinators[0].name
    proxy = Proxy(cluster.processes[first].address())
    trial.load.run(proxy.start())
    for number in trial.rounds():
        trial.load_up()
        name = f"unheard-{number}"
        for method, request in writes_of(name):
            ask = trial.load.run
            ask(proxy.set(Mode.PASS))
            muted = AsyncClient([proxy.address], dialler=cluster.dialler)
            ask(reach(muted))
            trial.note(f"swallow the answer to {method.path.rpartition('/')[2]}")
            ask(proxy.set(Mode.MUTE))
            with pytest.raises(CloudlessError) as lost:
                ask(muted.call(method, request, timeout_s=1.0))
            assert lost.value.retryable
            answers = [cluster.call(method, request, process.name) for process in cluster.coordinators]
            assert len({answer.header.revision for answer in answers}) == 1, "one effect, told by all"
            ask(muted.close())
        assert proxy.swallowed_bytes
        trial.figure("answers_lost", 4.0 * number)
        patient = AsyncClient([proxy.address, cluster.coordinators[1].address()], dialler=cluster.dialler)
        began_s = time.monotonic()
        trial.load.run(patient.call(APPLY_WORKLOAD, numbered(f"patient-{number}", 1)))
        trial.figure("client_moved_on_s", time.monotonic() - began_s)
        trial.load.run(patient.close())
        trial.settle()
    trial.load.run(proxy.close())


def writes_of(name: str) -> list[tuple[Method, object]]:
    """Return one write of each kind, in an order that makes sense."""

    def options() -> WriteOptions:
        return WriteOptions(request_id=uuid.uuid4().hex)

    return [
        (APPLY_WORKLOAD, ApplyWorkloadRequest(options=options(), manifest=manifest_of(name, replicas=0))),
        (SCALE_WORKLOAD, ScaleWorkloadRequest(options=options(), name=name, replicas=1)),
        (UPDATE_NODE, UpdateNodeRequest(options=options(), node_id="agent-1", set_labels={"round": name})),
        (DELETE_WORKLOAD, DeleteWorkloadRequest(options=options(), name=name)),
    ]


async def reach(client: AsyncClient) -> None:
    """Have a connection before it falls silent: one that cannot be made is another fault."""
    await client.call(LIST_WORKLOADS, ListWorkloadsRequest())


TOO_SENSIBLE = ("TransferLeader", "MakeRoom")
"""Nearly any bytes are a good request for them; one costs the load its leader, one compacts the history away."""


@scenario(43, budget_s=400)
def test_senseless_requests_are_refused_and_cost_nobody_anything(trial: Trial) -> None:
    """The hostile requests of tests/integration, twice, under load; memory keeps to the bound they have there."""
    cluster = trial.start()
    draw = random.Random(trial.seed)

    async def ask_all() -> Asker:
        asker = Asker(cluster.api_addresses(), ANSWER_S, cluster.credentials())
        for rpc in RPCS:
            payloads = [random_bytes(rpc, draw) for _ in range(RANDOM_BYTES_EACH)]
            await asyncio.gather(*(asker.ask(rpc, payload) for payload in payloads if rpc.name not in TOO_SENSIBLE))
        for text in MANIFESTS.values():
            await asker.ask(rpc_named("ApplyWorkload"), ApplyWorkloadRequest(manifest=text).SerializeToString())
        for name, request in megabytes():
            await asker.ask(rpc_named(name), request.SerializeToString())
        await asker.close()
        unjudged = Asker(
            cluster.api_addresses(), credentials=cluster.credentials()
        )  # gRPC itself refuses this one, without our details
        assert await unjudged.ask(rpc_named("ApplyWorkload"), b"x" * (17 * MIB)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await unjudged.close()
        return asker

    for _ in trial.rounds():
        trial.load_up()
        told = []
        for number in range(PASSES):
            asker = trial.load.run(ask_all(), 180.0)
            # A request to wait for a revision of the future waits as long as its caller does, who may hang up first.
            findings = [text for text in asker.findings if "DEADLINE_EXCEEDED" not in text]
            assert findings == [], "\n".join(findings[:20])
            assert asker.outcomes["DEADLINE_EXCEEDED"] < asker.asked // 10, asker.outcomes
            told.append({process.name: round(cluster.rss_mb(process.name)) for process in cluster.coordinators})
            trial.note(f"pass {number + 1}: {told[-1]} MB")
        trial.figure("requests", PASSES * asker.asked)
        trial.figure("rss_mb", max(told[-1].values()))
        assert max(told[-1].values()) < RSS_MAX_MB
        trial.settle()


@scenario(44)
def test_what_is_too_large_for_one_transaction_is_refused_up_front_or_done_whole(trial: Trial) -> None:
    cluster = trial.start()
    for number in trial.rounds():
        trial.load_up()
        for documents in (DOCUMENTS_MAX, DOCUMENTS_MAX + 1, 300):
            done = apply_many(cluster, f"many-{number}-{documents}", documents, "")
            trial.note(f"{documents} documents: {'done' if done else 'refused'}")
            assert done == (documents <= DOCUMENTS_MAX)
        for kilobytes in (100, 900, 1600):
            done = apply_many(cluster, f"large-{number}-{kilobytes}", 60, "x" * (kilobytes * 1000 // 60))
            trial.note(f"{kilobytes} kB: {'done' if done else 'refused'}")
            assert done == (kilobytes < 1000)
        trial.settle()


def apply_many(cluster: LocalCluster, prefix: str, documents: int, padding: str) -> bool:
    """Apply so many workloads at once; return whether it was done. Whole or not at all, it must be."""
    text = "\n---\n".join(
        manifest_of(f"{prefix}-{n}", replicas=0, env={"PADDING": padding} if padding else {}) for n in range(documents)
    )
    try:
        cluster.call(APPLY_WORKLOAD, ApplyWorkloadRequest(manifest=text), timeout_s=20.0)
        done = True
    except (TooLarge, InvalidSpec):
        done = False
    there = count_workloads(cluster, prefix + "-")
    assert there == (documents if done else 0), f"{there} of {documents} objects are there"
    return done


def count_workloads(cluster: LocalCluster, prefix: str) -> int:
    count, token = 0, ""
    while True:
        page = cluster.call(LIST_WORKLOADS, ListWorkloadsRequest(namespace="default", page_token=token))
        count += sum(workload.record.name.startswith(prefix) for workload in page.workloads)
        token = page.next_token
        if not token:
            return count


@scenario(46)
def test_values_corrupted_by_hand_are_set_aside_and_shown_and_nothing_is_touched(trial: Trial) -> None:
    """A workload, its task's desired and observed state, a node's facts, and a key nobody knows; then put right."""
    cluster = trial.start()
    for _ in trial.rounds():
        trial.load_up()
        task = cluster.tasks(STEADY)[0].desired
        spoilt = [
            keys.workload("default", STEADY),
            keys.task_desired(task.id),
            keys.task_observed(task.id),
            keys.node_info(task.node_id),
        ]
        unknown = f"{keys.PREFIX}nobody/knows"
        held = {key: cluster.read_raw(cluster.coordinators[0].name, key) for key in spoilt}
        trial.note("write rubbish over four records")
        for key in [*spoilt, unknown]:
            cluster.write_raw(cluster.coordinators[0].name, Put(key, b"\xff\xfe no record"))
        for process in cluster.coordinators:
            cluster.until(lambda: cluster.status(process.name).quarantined == 5, f"{process.name} shows five")
            assert set(cluster.status(process.name).quarantine) == {*spoilt, unknown}
        trial.load_up(100)
        trial.note("put right")
        for key, value in held.items():
            cluster.write_raw(cluster.coordinators[0].name, Put(key, value))
        cluster.write_raw(cluster.coordinators[0].name, Delete(unknown))
        for process in cluster.coordinators:
            cluster.until(lambda: cluster.status(process.name).quarantined == 0, f"{process.name} shows none")
        trial.settle()
