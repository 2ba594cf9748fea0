"""A control plane under thousands of agents: tasks placed and acknowledged, and agents held through a leader's death.

Three coordinators over mTLS, and all agents simulated in one process: their sessions are the product's own, two for
each agent, every agent with a certificate of its own; their tasks run at once. Everything shares this machine's
processors.

*Placed and acknowledged*: from the first of several applies (a few hundred tasks each) until every agent has the
durable acknowledgement that its tasks run; before each round nothing runs, but for the one *beside*. *Begun
again*: on another node, because its own was taken for lost. *Held*: the
leader and its etcd are killed; a node that was ever marked unreachable since then says so in its status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import psutil

from cloudless.cli.methods import APPLY_WORKLOAD, DELETE_WORKLOAD, LIST_NODES, LIST_WORKLOADS
from cloudless.rpc.v1.node_pb2 import ListNodesRequest, Node
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest, DeleteWorkloadRequest, ListWorkloadsRequest
from cloudless.testing.fleet.agent import CAPACITY
from tests.bench.bench import Bench
from tests.bench.figures import Figure, at_least, at_most
from tests.bench.fleet import PREFIX, Fleet, fleet_of, start_profiles, trusted_cluster
from tests.integration.cluster import LocalCluster, manifest_of

NODES_PLACING, NODES_HELD = 1_000, 5_000
TASKS, TASKS_A_WORKLOAD, ROUNDS_PLACING = 20_000, 400, 3
QUIET_S, HELD_AFTER_S = 10.0, 20.0
_COME_LEAST_S, _COME_S_PER_AGENT = 120.0, 0.15
_PLACED_S, _TOGETHER_AGAIN_S = 300.0, 180.0
_CALL_S = 60.0


async def measure(bench: Bench) -> list[Figure]:
    return await asyncio.to_thread(_measure, bench)  # the cluster's own parts have loops of their own


def _measure(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    if bench.wants("placing"):
        figures += _placing(bench, bench.nodes or bench.size(NODES_PLACING))
    if bench.wants("holding"):
        figures += _holding(bench, bench.nodes or bench.size(NODES_HELD))
    return figures


def _placing(bench: Bench, nodes: int) -> list[Figure]:
    tasks, rounds = bench.size(TASKS), min(bench.rounds, ROUNDS_PLACING)
    cpu = f"{max(1, nodes * CAPACITY.cpu_millicores // (4 * tasks))}m"  # half of what there is, for two rounds' tasks
    rates: list[float] = []
    again: list[float] = []

    def place(number: int, running: int) -> float:
        """Return the tasks a second when a round's tasks come to those that run."""
        began_s, before = time.monotonic(), fleet.until(lambda _: True, "told", _CALL_S).started
        _apply(cluster, number, tasks, cpu)
        wanted = running + tasks
        news = fleet.until(lambda news: news.acknowledged >= wanted, "all run", _PLACED_S)
        bench.say(f"{tasks:,} tasks in {news.at_s - began_s:.1f} s beside {running:,}")
        _require_stored(cluster, wanted)
        again.append(float(news.started - before - tasks))
        return tasks / (news.at_s - began_s)

    with trusted_cluster(bench.profile_dir) as cluster, fleet_of(cluster, nodes) as fleet:
        _come(bench, cluster, fleet, nodes)
        idle = _processor_shares(cluster, fleet, QUIET_S * bench.slice_s)
        if bench.profile_dir:
            start_profiles(cluster)
        for number in range(rounds):
            if number:
                _delete(cluster, number - 1, tasks)
                fleet.until(lambda news: news.running == news.acknowledged == 0, "all have ended", _PLACED_S)
                bench.say("all have ended")
            rates.append(place(number, 0))
        beside = place(rounds, tasks)
    text = f"{nodes:,} agents: tasks placed and acknowledged"
    return [
        Figure("placed", text, "1/s", tuple(rates), at_least(1_000)),
        Figure("placed_beside", f"{text}, beside {tasks:,} that run", "1/s", (beside,)),
        Figure("again", f"{nodes:,} agents: tasks begun again elsewhere meanwhile", "", tuple(again), at_most(0)),
        *_share_figures("idle", f"{nodes:,} agents, nothing to do", idle),
    ]


def _holding(bench: Bench, nodes: int) -> list[Figure]:
    with trusted_cluster() as cluster, fleet_of(cluster, nodes) as fleet:
        _come(bench, cluster, fleet, nodes)
        idle = _processor_shares(cluster, fleet, QUIET_S * bench.slice_s)
        before = _changed_since(cluster, 0)
        assert len(before) == nodes
        leader = cluster.leader()
        rss_mb = [cluster.rss_mb(process.name) for process in cluster.coordinators]
        killed_ms, killed_s = time.time_ns() // 1_000_000, time.monotonic()
        cluster.kill(leader, etcd=True)
        bench.say(f"{leader} killed")
        news = fleet.until(lambda news: news.at_s > killed_s + 1 and news.primary == nodes, "led", _TOGETHER_AGAIN_S)
        primary_s = news.at_s - killed_s
        news = fleet.until(lambda news: news.warm == nodes, "two sessions each", _TOGETHER_AGAIN_S)
        both_s = news.at_s - killed_s
        bench.say(f"all have a primary after {primary_s:.1f} s, both after {both_s:.1f} s")
        time.sleep(HELD_AFTER_S * bench.slice_s)
        flapped = _changed_since(cluster, killed_ms)
    text = f"{nodes:,} agents, leader killed"
    return [
        Figure("unreachable", f"{text}: nodes ever marked unreachable", "", (float(len(flapped)),), at_most(0)),
        Figure("primary", f"{text}: until every agent has a primary session", "s", (primary_s,)),
        Figure("both", f"{text}: until every agent has two sessions", "s", (both_s,)),
        Figure("coordinator_rss", f"{nodes:,} agents: a coordinator's memory", "MB", tuple(rss_mb)),
        *_share_figures("held", f"{nodes:,} agents, nothing to do", idle),
    ]


def _come(bench: Bench, cluster: LocalCluster, fleet: Fleet, count: int) -> None:
    """Return when every agent has two sessions and its node is READY."""
    timeout_s = _COME_LEAST_S + _COME_S_PER_AGENT * count
    fleet.until(lambda news: news.entered == count, "all agents are let in", timeout_s)
    bench.say(f"{count:,} agents are let in")
    fleet.until(lambda news: news.primary == news.warm == count, "all agents have two sessions", timeout_s)
    bench.say(f"{count:,} agents have two sessions")

    def ready() -> bool:
        return sum(node.phase == "READY" for node in _nodes(cluster)) == count

    cluster.until(ready, "all READY", timeout_s)


def _apply(cluster: LocalCluster, number: int, tasks: int, cpu: str) -> None:
    client = cluster.new_client()
    try:
        for name, replicas in _workloads(number, tasks):
            requests = {"requests": {"cpu": cpu, "memory": "1Mi"}}
            manifest = manifest_of(name, replicas=replicas, resources=requests)
            client.call(APPLY_WORKLOAD, ApplyWorkloadRequest(manifest=manifest), timeout_s=_CALL_S)
    finally:
        client.close()


def _delete(cluster: LocalCluster, number: int, tasks: int) -> None:
    client = cluster.new_client()
    try:
        for name, _ in _workloads(number, tasks):
            client.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=name), timeout_s=_CALL_S)
    finally:
        client.close()


def _workloads(number: int, tasks: int) -> Iterator[tuple[str, int]]:
    """Yield the names and replicas of a round's workloads."""
    for first in range(0, tasks, TASKS_A_WORKLOAD):
        yield f"load-{number}-{first // TASKS_A_WORKLOAD}", min(TASKS_A_WORKLOAD, tasks - first)


def _require_stored(cluster: LocalCluster, count: int) -> None:
    """Raise unless so many tasks are stored as running."""
    client = cluster.new_client()
    try:
        listed = client.call(LIST_WORKLOADS, ListWorkloadsRequest(limit=1000), timeout_s=_CALL_S).workloads
    finally:
        client.close()
    running = sum(workload.summary.running for workload in listed)
    assert running == count, f"{running} of {count} tasks are stored as running"


def _nodes(cluster: LocalCluster) -> Iterator[Node]:
    client, token = cluster.new_client(), ""
    try:
        while True:
            page = client.call(LIST_NODES, ListNodesRequest(limit=1000, page_token=token), timeout_s=_CALL_S)
            yield from page.nodes
            if not (token := page.next_token):
                return
    finally:
        client.close()


def _changed_since(cluster: LocalCluster, since_ms: int) -> list[str]:
    """Return the nodes whose reachability was found anew since then: lost, or lost and back."""
    return [node.id for node in _nodes(cluster) if node.id.startswith(PREFIX) and node.status.since_ms >= since_ms]


def _processor_shares(cluster: LocalCluster, fleet: Fleet, seconds: float) -> dict[str, float]:
    """Return what each kind of process takes of one processor while nothing happens but heartbeats."""
    coordinators = [psutil.Process(process.pid) for process in cluster.coordinators]
    etcds = [psutil.Process(found.pid) for one in cluster.coordinators if (found := cluster.etcd_of(one.name))]
    groups = {"coordinators": coordinators, "etcd": etcds, "agents": [psutil.Process(fleet.pid)]}
    before = {name: sum(map(_cpu_s, group)) for name, group in groups.items()}
    time.sleep(seconds)
    return {name: (sum(map(_cpu_s, group)) - before[name]) / seconds for name, group in groups.items()}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _share_figures(name: str, text: str, shares: dict[str, float]) -> list[Figure]:
    return [
        Figure(f"{name}_{group}", f"{text}: processor time of the {group}, all together", "s/s", (share,))
        for group, share in shares.items()
    ]
