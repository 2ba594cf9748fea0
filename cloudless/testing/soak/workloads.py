"""What runs on the cluster under soak: one workload that nobody touches, and one that is changed all the time.

The steady one tolerates silent nodes for longer than any fault lasts, so that each of its tasks that is restarted,
moved or doubled was so wrongly; only draining a node may move them.
"""

from __future__ import annotations

import asyncio
import json
import math

from cloudless.cli.methods import APPLY_WORKLOAD, DELETE_WORKLOAD, GET_WORKLOAD, LIST_WORKLOADS, SCALE_WORKLOAD
from cloudless.errors import NotFound
from cloudless.rpc.v1.workload_pb2 import (
    ApplyWorkloadRequest,
    DeleteWorkloadRequest,
    GetWorkloadRequest,
    ListWorkloadsRequest,
    ScaleWorkloadRequest,
)
from cloudless.testing.load.objects import manifest_of
from cloudless.testing.soak.ground import Ground, until

STEADY = "steady"
MOVING = "moving"
NAMESPACE = "default"
_STEADY_REPLICAS = 4
_MOVING_REPLICAS_MAX = 5
_SETTLED_S = 60.0
_FILLERS = 32


def manifest(name: str, replicas: int, version: int = 0) -> str:
    """Return the manifest of a workload whose tasks run until they are told to stop."""
    spec = {
        "executor": "process",
        "command": ["sleep", "1000000"],
        "env": {"VERSION": str(version)},
        "replicas": replicas,
        "resources": {"requests": {"cpu": "50m", "memory": "8Mi"}},
        "placement": {"spreadTopology": "node"},
        "stopGrace": "2s",
        **({"lostAfter": "10m"} if name == STEADY else {}),
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return json.dumps({"apiVersion": "cloudless/v1", "kind": "Workload", "metadata": metadata, "spec": spec})


async def deploy(ground: Ground) -> None:
    """Apply both workloads and return once they run."""
    for name, replicas in ((STEADY, _STEADY_REPLICAS), (MOVING, 2)):
        await _apply(ground, manifest(name, replicas))
    await settled(ground)


async def settled(ground: Ground, timeout_s: float = _SETTLED_S) -> None:
    """Return once each workload has exactly the tasks it should. Raises TimeoutError."""

    async def look() -> bool:
        for workload in (await ground.client.call(LIST_WORKLOADS, ListWorkloadsRequest(namespace=NAMESPACE))).workloads:
            seen = workload.summary
            if workload.record.deleted_at_ms or not seen.desired == seen.running == seen.active == seen.updated:
                return False
        return True

    await until(look, "every workload has the tasks it should", timeout_s)


async def fill(ground: Ground, writes: int) -> None:
    """Write so much that every memory that is bounded by number is full; what is written is deleted again."""
    per_writer = math.ceil(writes / _FILLERS)
    await asyncio.gather(*(_fill(ground, f"fill-{number}", per_writer) for number in range(_FILLERS)))


async def _fill(ground: Ground, name: str, writes: int) -> None:
    for number in range(writes):
        await _apply(ground, manifest_of("fill", name, str(number)))
    await ground.client.call(DELETE_WORKLOAD, DeleteWorkloadRequest(namespace="fill", name=name))


async def scale(ground: Ground) -> str:
    replicas = ground.random.randint(0, _MOVING_REPLICAS_MAX)
    request = ScaleWorkloadRequest(namespace=NAMESPACE, name=MOVING, replicas=replicas)
    await ground.client.call(SCALE_WORKLOAD, request, timeout_s=_SETTLED_S)
    return f"scale {MOVING} to {replicas}"


async def update(ground: Ground) -> str:
    version, replicas = ground.random.randrange(1_000_000), ground.random.randint(1, _MOVING_REPLICAS_MAX)
    await _apply(ground, manifest(MOVING, replicas, version))
    return f"update {MOVING} to version {version} with {replicas} replicas"


async def recreate(ground: Ground) -> str:
    request = DeleteWorkloadRequest(namespace=NAMESPACE, name=MOVING)
    await ground.client.call(DELETE_WORKLOAD, request, timeout_s=_SETTLED_S)

    async def is_gone() -> bool:
        try:
            await ground.client.call(GET_WORKLOAD, GetWorkloadRequest(namespace=NAMESPACE, name=MOVING))
        except NotFound:
            return True
        return False

    await until(is_gone, f"{MOVING} is gone", _SETTLED_S)
    await _apply(ground, manifest(MOVING, 2))
    return f"delete {MOVING} and create it again"


async def _apply(ground: Ground, text: str) -> None:
    await ground.client.call(APPLY_WORKLOAD, ApplyWorkloadRequest(manifest=text), timeout_s=_SETTLED_S)
