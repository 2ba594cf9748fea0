"""Durable writes: what users' writes cost over raw etcd puts and over an empty call.

Two ordinary writes are measured. *apply*: one small manifest without replicas (ApplyWorkload: the workload, an
event, the remembered request). *cordon*: cordon or uncordon a node (UpdateNode: the node's spec, an event, the
request). Each is answered when a majority of etcd has it on disk and the coordinator's own state shows it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import count

from cloudless.adapters.yaml_documents import DOCUMENTS_MAX
from cloudless.cli.methods import APPLY_WORKLOAD, UPDATE_NODE
from cloudless.rpc.v1.node_pb2 import UpdateNodeRequest
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest
from tests.bench.bench import Bench
from tests.bench.echo import Echo
from tests.bench.figures import Figure, at_least, at_most, ratio
from tests.bench.load import Load, Step, p50s, p99s, rates, take_turns
from tests.bench.objects import create_nodes, create_workloads, manifest, manifests
from tests.bench.own import OwnWrites
from tests.bench.rawetcd import RawEtcd
from tests.bench.stage import Api, dev_cluster

MANY, MORE = 64, 256
BATCH = min(100, DOCUMENTS_MAX)
BATCHES_IN_FLIGHT = 12


async def measure(bench: Bench) -> list[Figure]:
    with dev_cluster(profile_to=bench.profile_file("coordinator-1")) as cluster:
        async with AsyncExitStack() as stack:
            api, raw = cluster.connect(stack), RawEtcd(stack, cluster.etcd_endpoints)
            echo = await Echo.start(stack)
            own = await OwnWrites.start(stack, cluster.etcd_endpoints[0], bench.profile_file("own"))
            writes = _Writes(
                api,
                await create_workloads(api, "bench", MORE),
                await create_nodes(cluster.etcd_endpoints[0], api, MORE),
            )
            steps = bench.chosen(_steps(echo, raw, writes, own))
            cluster.start_profile()
            loads = await take_turns(steps, bench.rounds, bench.slice_s, bench.say)
    return bench.partial(loads) or _figures(loads)


class _Writes:
    """Steps of users' writes. Each caller writes to objects of its own."""

    def __init__(self, api: Api, workloads: list[str], nodes: list[str]) -> None:
        self._api, self._workloads, self._nodes = api, workloads, nodes
        self._number = count(1)

    def apply(self, in_flight: int, *, spread: bool) -> Step:
        def call(caller: int) -> object:
            request = ApplyWorkloadRequest(manifest=manifest(self._workloads[caller], next(self._number)))
            return self._api.call(caller if spread else 0, APPLY_WORKLOAD, request)

        return Step(call, in_flight)  # type: ignore[arg-type]

    def cordon(self, in_flight: int, *, spread: bool) -> Step:
        cordoned: dict[int, bool] = {}

        def call(caller: int) -> object:
            cordoned[caller] = not cordoned.get(caller, False)
            request = UpdateNodeRequest(node_id=self._nodes[caller], cordoned=cordoned[caller])
            return self._api.call(caller if spread else 0, UPDATE_NODE, request)

        return Step(call, in_flight)  # type: ignore[arg-type]

    def apply_batches(self, in_flight: int, *, spread: bool) -> Step:
        def call(caller: int) -> object:
            names = [f"batch-{caller}-{index}" for index in range(BATCH)]
            request = ApplyWorkloadRequest(manifest=manifests(names, next(self._number)))
            return self._api.call(caller if spread else 0, APPLY_WORKLOAD, request)

        return Step(call, in_flight, worth=BATCH)  # type: ignore[arg-type]


def _steps(echo: Echo, raw: RawEtcd, writes: _Writes, own: OwnWrites) -> dict[str, Step]:
    return {
        "raw 1": raw.puts(1, spread=False),
        "apply 1": writes.apply(1, spread=False),
        "cordon 1": writes.cordon(1, spread=False),
        "echo 64": echo.step(MANY),
        "apply 64": writes.apply(MANY, spread=True),
        "apply 64 one": writes.apply(MANY, spread=False),
        "cordon 64": writes.cordon(MANY, spread=True),
        "raw 64": raw.puts(MANY, spread=True),
        "apply 256": writes.apply(MORE, spread=True),
        "batches one": writes.apply_batches(BATCHES_IN_FLIGHT, spread=False),
        "batches": writes.apply_batches(BATCHES_IN_FLIGHT, spread=True),
        "raw 256": raw.puts(MORE, spread=True),
        "own": own.step(),
    }


def _figures(loads: dict[str, list[Load]]) -> list[Figure]:
    rate = {name: rates(found) for name, found in loads.items()}
    p99 = {name: p99s(found) for name, found in loads.items()}
    figures = [
        Figure(name.replace(" ", "_"), text, "1/s", rate[name])
        for name, text in (
            ("echo 64", "empty unary calls, 64 in flight"),
            ("raw 1", "raw etcd puts of 256 bytes, 1 in flight"),
            ("raw 64", "raw etcd puts, 64 in flight over three members"),
            ("raw 256", "raw etcd puts, 256 in flight over three members"),
            ("apply 1", "apply, 1 in flight"),
            ("cordon 1", "cordon, 1 in flight"),
            ("apply 64", "apply, 64 in flight over three coordinators"),
            ("apply 64 one", "apply, 64 in flight through one coordinator"),
            ("cordon 64", "cordon, 64 in flight over three coordinators"),
            ("apply 256", "apply, 256 in flight over three coordinators"),
            ("batches", f"workloads applied in requests of {BATCH}, {BATCHES_IN_FLIGHT} requests in flight"),
            ("batches one", "the same through one coordinator"),
            ("own", "the control plane's own fenced writes (reports of tasks), from one process"),
        )
    ]
    for name, text in (("raw 1", "a raw put alone"), ("apply 1", "an apply alone"), ("raw 64", "a raw put among 64"),
                       ("apply 64", "an apply among 64")):  # fmt: skip
        word = name.replace(" ", "_")
        figures.append(Figure(f"{word}_p50", f"{text}, p50", "ms", p50s(loads[name])))
        figures.append(Figure(f"{word}_p99", f"{text}, p99", "ms", p99[name]))
    for name, text, over, under, bar in (
        ("apply_64_to_echo", "apply / empty call, 64 in flight", rate["apply 64"], rate["echo 64"], at_least(0.5)),
        ("cordon_64_to_echo", "cordon / empty call, 64 in flight", rate["cordon 64"], rate["echo 64"], at_least(0.5)),
        ("apply_1_to_raw", "apply / raw put, 1 in flight", rate["apply 1"], rate["raw 1"], at_least(0.6)),
        ("cordon_1_to_raw", "cordon / raw put, 1 in flight", rate["cordon 1"], rate["raw 1"], at_least(0.6)),
        ("apply_1_p99_to_raw", "apply / raw put, 1 in flight, p99", p99["apply 1"], p99["raw 1"], at_most(3.0)),
        ("batched_to_raw", "batched apply / raw puts, 256 in flight", rate["batches"], rate["raw 256"], at_least(2.0)),
        ("own_to_raw", "own writes / raw puts, 256 in flight", rate["own"], rate["raw 256"], at_least(2.0)),
    ):
        figures.append(ratio(name, text, over, under, bar))
    return figures
