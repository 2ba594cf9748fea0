"""What a cluster tells of its nodes: what they can keep, what they use, how far they can be relied on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from cloudless.cli.methods import GET_NODE, READ_NODE_USAGE, READ_TASK_USAGE
from cloudless.rpc.v1.node_pb2 import GetNodeRequest, Node
from cloudless.rpc.v1.usage_pb2 import ReadNodeUsageRequest, ReadTaskUsageRequest, ReadTaskUsageResponse
from etcd.find import Found
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

AGENTS = ("agent-1", "agent-2")
BUSY = ["sh", "-c", "while :; do :; done"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("facts"), binary.path)
    made.add_coordinators()
    made.found_together()
    for name in AGENTS:
        made.add_agent(name)
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


def node(cluster: LocalCluster, name: str) -> Node:
    return cluster.call(GET_NODE, GetNodeRequest(node_id=name)).node


def task_usage(cluster: LocalCluster, workload: str, via: str) -> list[ReadTaskUsageResponse.Entry]:
    return list(cluster.call(READ_TASK_USAGE, ReadTaskUsageRequest(workload=workload), via).tasks)


def test_usage_of_nodes_and_tasks_is_told_through_any_coordinator(cluster: LocalCluster) -> None:
    cluster.apply(manifest_of("busy", replicas=2, command=BUSY, placement={"spreadTopology": "node"}))
    cluster.until(lambda: [task.state for task in cluster.tasks("busy")] == ["RUNNING"] * 2, "two tasks run", 30)
    for via in COORDINATORS:
        answer = cluster.call(READ_NODE_USAGE, ReadNodeUsageRequest(), via)
        assert [used.node_id for used in answer.nodes] == [*AGENTS], via
        assert not answer.silent_node_ids
        assert all(used.usage.cpu_millicores > 0 for used in answer.nodes)
        assert all(used.usage.memory_bytes > 1024**2 and not used.tasks for used in answer.nodes)
        cluster.until(
            lambda via=via: [used.usage.cpu_millicores > 50 for used in task_usage(cluster, "busy", via)] == [True] * 2,  # type: ignore[misc]
            f"two busy tasks are seen through {via}",
        )
    assert all(used.usage.memory_bytes > 0 for used in task_usage(cluster, "busy", COORDINATORS[0]))


def test_people_see_usage_beside_what_there_is(cluster: LocalCluster) -> None:
    table = must(run_cli(cluster, "node", "top")).splitlines()
    assert table[0].split() == ["NODE", "CPU", "MEMORY", "DISK"]
    assert {line.split()[0] for line in table[1:]} == {*AGENTS}
    shown = json.loads(must(run_cli(cluster, "workload", "top", "busy", "-o", "json")))
    assert [entry["workload"] for entry in shown] == ["busy", "busy"]
    assert "default/busy" in must(run_cli(cluster, "task", "top", "-w", "busy"))
    assert "agent-1" in must(run_cli(cluster, "node", "top", "agent-1"))
    assert run_cli(cluster, "node", "top", "nowhere").code != 0


def test_an_agent_that_does_not_answer_is_named_and_holds_nobody_up(cluster: LocalCluster) -> None:
    cluster.signal("agent-2", signal.SIGSTOP)
    try:
        answer = cluster.call(READ_NODE_USAGE, ReadNodeUsageRequest())
        assert [used.node_id for used in answer.nodes] == ["agent-1"]
        assert list(answer.silent_node_ids) == ["agent-2"]
    finally:
        cluster.signal("agent-2", signal.SIGCONT)
    cluster.wait_ready()


def test_a_limited_task_runs_where_limits_are_kept_and_waits_where_they_are_not(cluster: LocalCluster) -> None:
    limits = {"requests": {"cpu": "50m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}}
    able = [name for name in AGENTS if "limit-memory" in node(cluster, name).info.capabilities]
    cluster.apply(manifest_of("bounded", command=["tail", "/dev/zero"], resources=limits))
    if not able:
        assert os.geteuid() != 0
        explained = must(run_cli(cluster, "workload", "explain", "bounded"))
        assert "cannot limit memory" in explained
        assert "cannot limit-memory" in must(run_cli(cluster, "node", "describe", "agent-1"))
        return

    def told() -> bool:
        return any("out of memory (limit 32 MB)" in task.observed.message for task in cluster.tasks("bounded"))

    cluster.until(told, "the end for want of memory is told with its limit")
    assert "limit-memory" in must(run_cli(cluster, "node", "describe", "agent-1"))


def reliability(cluster: LocalCluster, name: str) -> float:
    status = node(cluster, name).status
    return status.reliability if status.HasField("reliability") else 1.0


def test_a_node_that_fell_silent_is_relied_on_less(cluster: LocalCluster) -> None:
    before = reliability(cluster, "agent-2")
    cluster.kill("agent-2")
    cluster.until(lambda: node(cluster, "agent-2").phase == "OFFLINE", "the node is offline")
    cluster.until(lambda: reliability(cluster, "agent-2") < 0.75 * before, "that has cost it")
    assert "%" in must(run_cli(cluster, "node", "describe", "agent-2"))
    cluster.start("agent-2")
    cluster.wait_ready()
    assert reliability(cluster, "agent-2") < 0.75 * before, "coming back does not make up for it at once"
