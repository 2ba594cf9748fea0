"""A workload in containers, on an engine of the tests' own that all agents share, and which containers run for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil

from tests.docker_engine import IMAGE, DockerDaemon
from tests.faults.rig.tasks import running
from tests.integration.cluster import LocalCluster, manifest_of

BOXES = 3
SLEEP = ["sh", "-c", "trap 'exit 143' TERM; sleep 1000000 & wait"]


def give_engine(cluster: LocalCluster, daemon: DockerDaemon, *agents: str) -> None:
    """Let agents that are yet to start have the engine: those named, or all."""
    for name in agents or [agent.name for agent in cluster.agents]:
        cluster.processes[name].settings |= {"DOCKER_ENABLED": "true", "DOCKER_HOST": daemon.host}


def run_boxes(
    cluster: LocalCluster,
    daemon: DockerDaemon,
    name: str = "boxes",
    replicas: int = BOXES,
    command: Sequence[str] = SLEEP,
    **spec: Any,
) -> None:
    """Run a workload in containers."""
    cluster.apply(manifest_of(name, replicas=replicas, executor="docker", image=IMAGE, command=list(command), **spec))
    cluster.until(lambda: boxes_run(cluster, daemon, name, replicas), f"{replicas} boxes of {name} run", 60)


def boxes_run(cluster: LocalCluster, daemon: DockerDaemon, name: str = "boxes", count: int = BOXES) -> bool:
    """Return whether all boxes run, each in exactly one container, that of its newest attempt, and no other of them."""
    told = {f"cloudless-{task}-{seen.attempt}" for task, seen in running(cluster, name).items()}
    seen = containers_of(daemon, name)
    assert len({box.rpartition("-")[0] for box in seen}) == len(seen), f"two attempts of one task run: {sorted(seen)}"
    return told == seen.keys() and len(seen) == count


def containers_of(daemon: DockerDaemon, name: str) -> dict[str, str]:
    """Return the running containers of a workload's tasks: their names, and the engine's ids."""
    named = {row["Names"][0].removeprefix("/"): row for row in daemon.containers() if row["State"] == "running"}
    return {box: row["Id"] for box, row in named.items() if box.startswith(f"cloudless-{name}-")}


def pid_of(daemon: DockerDaemon, task_id: str, attempt: int) -> int:
    """Return the first process of a container."""
    client = daemon.client()
    try:
        return int(client.inspect_container(f"cloudless-{task_id}-{attempt}")["State"]["Pid"])
    finally:
        client.close()


def family_of(daemon: DockerDaemon, task_id: str, attempt: int) -> list[int]:
    """Return every process in a container; what loses its parent there becomes a child of the first one."""
    first = psutil.Process(pid_of(daemon, task_id, attempt))
    return [first.pid, *(child.pid for child in first.children(recursive=True))]
