"""A small cluster whose workload `web` has tasks on nodes of two zones and two regions."""

from __future__ import annotations

from dataclasses import replace

from cloudless.core import keys
from cloudless.core.model import CoordinatorRecord, Desired, Port, PortProtocol, TaskDesired, TaskState
from cloudless.testing.builders import TestCluster, build_task_template, build_workload

PORTS = (Port(name="http"), Port(name="stats", protocol=PortProtocol.UDP))
NODES = {"n1": ("eu", "a", "10.0.0.1"), "n2": ("eu", "a", "10.0.0.2"), "n3": ("eu", "b", "10.0.0.3"),
         "n4": ("us", "a", "10.0.0.4")}  # fmt: skip


def build_cluster() -> TestCluster:
    """Return it with one ready task on each node: web-n1 … web-n4, port 20001 … of each."""
    cluster = TestCluster()
    for node_id, (region, zone, host) in NODES.items():
        cluster.add_node(node_id, region=region, zone=zone, address=f"{host}:8090")
    cluster.put(keys.coordinator("c1"), CoordinatorRecord(id="c1", api_address="10.0.1.1:8080"))
    cluster.add_workload(build_workload(replicas=4, ports=PORTS))
    for number, node_id in enumerate(NODES, 1):
        add_task(cluster, f"web-{node_id}", node_id, http=20_000 + number)
    return cluster


def add_task(cluster: TestCluster, task_id: str, node_id: str, *, http: int = 20_000, **desired: object) -> None:
    """Add a task that runs and is ready."""
    record = TaskDesired(
        id=task_id, namespace="default", workload="web", workload_uid="uid-1", task_generation=1, slot=0,
        node_id=node_id, spec=build_task_template(ports=PORTS),
    )  # fmt: skip
    cluster.put(keys.task_desired(task_id), replace(record, **desired))  # type: ignore[arg-type]
    ready(cluster, task_id, http)


def ready(cluster: TestCluster, task_id: str, http: int = 20_000) -> None:
    host = NODES[cluster.machine.tasks[task_id].desired.node_id][2]
    cluster.report(task_id, TaskState.RUNNING, host=host, ports={"http": http, "stats": http + 100}, ready=True)


def stop(cluster: TestCluster, task_id: str) -> None:
    """Let the leader decide that a task is to end."""
    desired = cluster.machine.tasks[task_id].desired
    cluster.put(keys.task_desired(task_id), replace(desired, desired=Desired.STOPPED))
