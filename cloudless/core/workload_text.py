"""Write a workload as a manifest, and name the fields in which two specifications differ.

One table lists every field of `WorkloadSpec` with its manifest path and how it is written; a test
checks that none is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloudless.core.model import ExecutorKind, WorkloadRecord, WorkloadSpec
from cloudless.core.quantity import format_cpu, format_mb

_FIELDS: tuple[tuple[str, Callable[[WorkloadSpec], object]], ...] = (
    ("executor", lambda spec: spec.executor.value),
    ("image", lambda spec: spec.image),
    ("command", lambda spec: list(spec.command)),
    ("args", lambda spec: list(spec.args)),
    ("env", lambda spec: dict(spec.env)),
    ("ports", lambda spec: [{"name": port.name, "hostPort": port.host_port} for port in spec.ports]),
    ("resources.requests.cpu", lambda spec: format_cpu(spec.requests.cpu_millicores)),
    ("resources.requests.memory", lambda spec: format_mb(spec.requests.memory_mb)),
    ("resources.requests.storage", lambda spec: format_mb(spec.requests.storage_mb)),
    ("resources.requests.bandwidth", lambda spec: spec.requests.bandwidth_mbps),
    ("resources.requests.gpu", lambda spec: spec.requests.gpus),
    ("replicas", lambda spec: spec.replicas),
    ("placement.regions", lambda spec: list(spec.placement.regions)),
    ("placement.zones", lambda spec: list(spec.placement.zones)),
    ("placement.nodeSelector", lambda spec: dict(spec.placement.node_selector)),
    ("placement.spreadTopology", lambda spec: spec.placement.spread_topology.value),
    ("restartPolicy.policy", lambda spec: spec.restart_policy.condition.value),
    ("restartPolicy.maxRetries", lambda spec: spec.restart_policy.max_retries),
    ("restartPolicy.backoff", lambda spec: _seconds(spec.restart_policy.backoff_s)),
    ("rollout.strategy", lambda spec: spec.rollout.strategy.value),
    ("rollout.maxSurge", lambda spec: spec.rollout.max_surge),
    ("rollout.maxUnavailable", lambda spec: spec.rollout.max_unavailable),
    ("stopGrace", lambda spec: _seconds(spec.stop_grace_s)),
    ("lostAfter", lambda spec: _seconds(spec.lost_after_s)),
)


def diff_fields(before: WorkloadSpec, after: WorkloadSpec) -> tuple[str, ...]:
    """Return the manifest paths of the fields that differ, like `resources.requests.cpu`."""
    return tuple(path for path, write in _FIELDS if write(before) != write(after))


def to_manifest(record: WorkloadRecord) -> dict[str, Any]:
    """Return the record as a manifest of plain data, in camelCase, complete with defaults."""
    spec: dict[str, Any] = {}
    for path, write in _FIELDS:
        *parents, name = path.split(".")
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = write(record.spec)
    if record.spec.executor is not ExecutorKind.DOCKER:
        del spec["image"]
    metadata: dict[str, Any] = {"name": record.name, "namespace": record.namespace}
    if record.labels:
        metadata["labels"] = dict(record.labels)
    if record.annotations:
        metadata["annotations"] = dict(record.annotations)
    return {"apiVersion": "cloudless.io/v1", "kind": "Workload", "metadata": metadata, "spec": spec}


def _seconds(amount_s: float) -> int | float:
    return int(amount_s) if float(amount_s).is_integer() else amount_s
