"""Reads through the API, by how fresh they must be; and a list beside etcd's own range of the same values.

A get is GetWorkload: the record, the counts of its tasks, and the manifest as text. Lists are of 1,000 workloads,
one caller after another, as is etcd's range of exactly the keys that hold them.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

from cloudless.cli.methods import GET_NODE, GET_WORKLOAD, LIST_WORKLOADS
from cloudless.core import keys
from cloudless.rpc.v1.common_pb2 import (
    CONSISTENCY_BOUNDED,
    CONSISTENCY_LINEARIZABLE,
    CONSISTENCY_STALE,
    ReadOptions,
)
from cloudless.rpc.v1.node_pb2 import GetNodeRequest
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest, ListWorkloadsRequest
from tests.bench.bench import Bench
from tests.bench.echo import Echo
from tests.bench.figures import Figure, at_least, ratio
from tests.bench.load import Load, Step, p50s, p99s, rates, take_turns
from tests.bench.objects import create_workloads
from tests.bench.rawetcd import RawEtcd
from tests.bench.stage import Api, dev_cluster

LISTED = 1_000
_CONSISTENCIES = {
    "stale": CONSISTENCY_STALE,
    "bounded": CONSISTENCY_BOUNDED,
    "linearizable": CONSISTENCY_LINEARIZABLE,
}


async def measure(bench: Bench) -> list[Figure]:
    with dev_cluster(profile_to=bench.profile_file("coordinator-1")) as cluster:
        async with AsyncExitStack() as stack:
            api, raw = cluster.connect(stack), RawEtcd(stack, cluster.etcd_endpoints)
            echo = await Echo.start(stack)
            names = await create_workloads(api, "bench", LISTED)
            # What is compared stands side by side.
            gets = _gets(api, names)
            alone = {name: step for name, step in gets.items() if step.in_flight == 1}
            many = {name: step for name, step in gets.items() if step.in_flight > 1}
            steps = {"echo 1": echo.step(1), **alone, "echo 64": echo.step(64), **many, **_lists(api, raw)}
            cluster.start_profile()
            loads = await take_turns(bench.chosen(steps), bench.rounds, bench.slice_s, bench.say)
    return bench.partial(loads) or _figures(loads)


def _gets(api: Api, names: list[str]) -> dict[str, Step]:
    steps = {}
    for word, consistency in _CONSISTENCIES.items():
        read = ReadOptions(consistency=consistency)

        def get(caller: int, read: ReadOptions = read) -> Awaitable[object]:
            request = GetWorkloadRequest(read=read, namespace="bench", name=names[caller])
            got: Awaitable[object] = api.call(0, GET_WORKLOAD, request)
            return got

        steps[f"{word} 1"], steps[f"{word} 64"] = Step(get, 1), Step(get, 64)

    def get_node(caller: int) -> Awaitable[object]:
        request = GetNodeRequest(read=ReadOptions(consistency=CONSISTENCY_STALE), node_id="agent-1")
        got: Awaitable[object] = api.call(0, GET_NODE, request)
        return got

    steps["stale node 64"] = Step(get_node, 64)
    return steps


def _lists(api: Api, raw: RawEtcd) -> dict[str, Step]:
    async def list_all(consistency: Any) -> None:
        request = ListWorkloadsRequest(read=ReadOptions(consistency=consistency), namespace="bench", limit=LISTED)
        answer = await api.call(0, LIST_WORKLOADS, request)
        assert len(answer.workloads) == LISTED

    async def range_all(serializable: bool) -> None:
        answer = await raw.range(0, keys.WORKLOADS + "bench/", LISTED, serializable=serializable)
        assert len(answer.kvs) == LISTED

    return {
        "list stale": Step(lambda _: list_all(CONSISTENCY_STALE), 1),
        "range serializable": Step(lambda _: range_all(True), 1),
        "list linearizable": Step(lambda _: list_all(CONSISTENCY_LINEARIZABLE), 1),
        "range linearizable": Step(lambda _: range_all(False), 1),
    }


def _figures(loads: dict[str, list[Load]]) -> list[Figure]:
    rate = {name: rates(found) for name, found in loads.items()}
    figures = [Figure("echo_64", "empty unary calls, 64 in flight", "1/s", rate["echo 64"])]
    for word in _CONSISTENCIES:
        figures += [
            Figure(f"{word}_1", f"{word} gets of a workload, 1 in flight", "1/s", rate[f"{word} 1"]),
            Figure(f"{word}_64", f"{word} gets, 64 in flight at one coordinator", "1/s", rate[f"{word} 64"]),
            Figure(f"{word}_64_p99", f"a {word} get among 64, p99", "ms", p99s(loads[f"{word} 64"])),
        ]
    figures.append(
        Figure("stale_node_64", "stale gets of a node, 64 in flight at one coordinator", "1/s", rate["stale node 64"])
    )
    for name in ("list stale", "range serializable", "list linearizable", "range linearizable"):
        whose = "etcd's range of the same values" if name.startswith("range") else f"list of {LISTED} workloads"
        text = f"{whose}, {name.split()[1]}, p50"
        figures.append(Figure(name.replace(" ", "_") + "_p50", text, "ms", p50s(loads[name])))
    for word in ("stale", "bounded"):
        text = f"{word} get / empty call, 64 in flight"
        figures.append(ratio(f"{word}_to_echo", text, rate[f"{word} 64"], rate["echo 64"], at_least(0.7)))
    text = "linearizable get / empty call, 64 in flight"
    figures.append(ratio("linearizable_to_echo", text, rate["linearizable 64"], rate["echo 64"]))
    for kind, ours, theirs in (("stale", "list stale", "range serializable"),
                               ("linearizable", "list linearizable", "range linearizable")):  # fmt: skip
        text = f"{kind} list of {LISTED} / etcd's range, per second"
        figures.append(ratio(f"list_{kind}_to_range", text, rate[ours], rate[theirs], at_least(1.0)))
    return figures
