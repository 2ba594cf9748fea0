"""Write a workload as a manifest, and name the fields in which two specifications differ.

Two tables list every field of `WorkloadSpec` with its manifest path and how it is written; a test
checks that none is missing. What most workloads use is always shown, the rest where it is not the default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from cloudless.core.model import (
    RLIMIT_UNLIMITED,
    NodeTerm,
    Port,
    PortProtocol,
    Probe,
    ProbeKind,
    Rlimit,
    Toleration,
    TolerationOperator,
    Volume,
    WorkloadMode,
    WorkloadRecord,
    WorkloadSpec,
    WorkloadTerm,
)
from cloudless.core.quantity import format_cpu, format_mb

_Table = tuple[tuple[str, Callable[[WorkloadSpec], object]], ...]

_SHOWN: _Table = (
    ("executor", lambda spec: spec.executor.value),
    ("command", lambda spec: list(spec.command)),
    ("args", lambda spec: list(spec.args)),
    ("env", lambda spec: dict(spec.env)),
    ("ports", lambda spec: [_port(port) for port in spec.ports]),
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
    ("rollout.maxSurge", lambda spec: _share(spec.rollout.max_surge, spec.rollout.max_surge_percent)),
    ("rollout.maxUnavailable", lambda s: _share(s.rollout.max_unavailable, s.rollout.max_unavailable_percent)),
    ("stopGrace", lambda spec: _seconds(spec.stop_grace_s)),
    ("lostAfter", lambda spec: _seconds(spec.lost_after_s)),
)

_SHOWN_IF_SET: _Table = (
    ("image", lambda spec: spec.image),
    ("imagePullPolicy", lambda spec: spec.image_pull_policy.value),
    ("mode", lambda spec: spec.mode.value),
    ("priority", lambda spec: spec.priority),
    ("resources.limits.cpu", lambda spec: format_cpu(spec.limits.cpu_millicores)),
    ("resources.limits.memory", lambda spec: format_mb(spec.limits.memory_mb)),
    ("resources.limits.pids", lambda spec: spec.limits.pids),
    ("volumes", lambda spec: [_volume(volume) for volume in spec.volumes]),
    ("livenessProbe", lambda spec: _probe(spec.liveness_probe)),
    ("readinessProbe", lambda spec: _probe(spec.readiness_probe)),
    ("securityContext.runAsUser", lambda spec: spec.security_context.run_as_user),
    ("securityContext.runAsGroup", lambda spec: spec.security_context.run_as_group),
    ("securityContext.readOnlyRoot", lambda spec: spec.security_context.read_only_root),
    ("securityContext.capabilities.add", lambda spec: list(spec.security_context.add_capabilities)),
    ("securityContext.capabilities.drop", lambda spec: list(spec.security_context.drop_capabilities)),
    ("securityContext.privateTmp", lambda spec: spec.security_context.private_tmp),
    ("securityContext.rlimits", lambda spec: {one.name: _rlimit(one) for one in spec.security_context.rlimits}),
    ("placement.tolerations", lambda spec: [_toleration(one) for one in spec.placement.tolerations]),
    ("placement.affinity.nodes.required", lambda spec: _node_terms(spec.placement.node_affinity, required=True)),
    ("placement.affinity.nodes.preferred", lambda spec: _node_terms(spec.placement.node_affinity, required=False)),
    ("placement.affinity.workloads.required", lambda s: _workload_terms(s.placement.workload_affinity, required=True)),
    (
        "placement.affinity.workloads.preferred",
        lambda s: _workload_terms(s.placement.workload_affinity, required=False),
    ),
    (
        "placement.antiAffinity.workloads.required",
        lambda spec: _workload_terms(spec.placement.workload_anti_affinity, required=True),
    ),
    (
        "placement.antiAffinity.workloads.preferred",
        lambda spec: _workload_terms(spec.placement.workload_anti_affinity, required=False),
    ),
    ("rollout.minAvailable", lambda spec: _share(spec.rollout.min_available, spec.rollout.min_available_percent)),
    ("rollout.batchSize", lambda spec: spec.rollout.batch_size),
    ("rollout.pauseDuration", lambda spec: _seconds(spec.rollout.pause_s)),
    ("rollout.minReady", lambda spec: _seconds(spec.rollout.min_ready_s)),
    ("rollout.progressDeadline", lambda spec: _seconds(spec.rollout.progress_deadline_s)),
    ("rollout.autoRollback", lambda spec: spec.rollout.auto_rollback),
    ("rollout.canary", lambda spec: spec.rollout.canary),
    ("rollout.autoPromote", lambda spec: spec.rollout.auto_promote),
    ("reconcile", lambda spec: spec.reconcile.value),
    ("stopAfter", lambda spec: _seconds(spec.stop_after_s)),
)


def diff_fields(before: WorkloadSpec, after: WorkloadSpec) -> tuple[str, ...]:
    """Return the manifest paths of the fields that differ, like `resources.requests.cpu`."""
    return tuple(path for path, write in _SHOWN + _SHOWN_IF_SET if write(before) != write(after))


def diff_values(before: WorkloadSpec | None, after: WorkloadSpec) -> tuple[tuple[str, str, str], ...]:
    """Return (path, before, after) of the fields that differ, as text; without `before`, of those not as by default."""
    held = before or WorkloadSpec()
    differing = ((path, write(held), write(after)) for path, write in _SHOWN + _SHOWN_IF_SET)
    return tuple((path, _as_text(old) if before else "", _as_text(new)) for path, old, new in differing if old != new)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def to_manifest(record: WorkloadRecord) -> dict[str, Any]:
    """Return the record as a manifest of plain data, in camelCase."""
    metadata: dict[str, Any] = {"name": record.name, "namespace": record.namespace}
    if record.labels:
        metadata["labels"] = dict(record.labels)
    if record.annotations:
        metadata["annotations"] = dict(record.annotations)
    return {"apiVersion": "cloudless.io/v1", "kind": "Workload", "metadata": metadata, "spec": write_spec(record.spec)}


def write_spec(spec: WorkloadSpec) -> dict[str, Any]:
    """Return the specification as plain data: what is always shown, and what is not as it is by default."""
    base = WorkloadSpec()
    written: dict[str, Any] = {}
    for path, write in _SHOWN:
        if path != "replicas" or spec.mode is not WorkloadMode.PER_NODE:
            _place(written, path, write(spec))
    for path, write in _SHOWN_IF_SET:
        if write(spec) != write(base):
            _place(written, path, write(spec))
    return written


def written_defaults() -> dict[str, object]:
    """Return each manifest path with what it is by default."""
    base = WorkloadSpec()
    return {path: write(base) for path, write in _SHOWN + _SHOWN_IF_SET}


def _place(written: dict[str, Any], path: str, value: object) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        written = written.setdefault(parent, {})
    written[name] = value


def _seconds(amount_s: float) -> int | float:
    return int(amount_s) if float(amount_s).is_integer() else amount_s


def _share(number: int | None, percent: int) -> int | str | None:
    return f"{percent}%" if percent else number


def _port(port: Port) -> dict[str, Any]:
    written: dict[str, Any] = {"name": port.name, "hostPort": port.host_port}
    if port.container_port:
        written["containerPort"] = port.container_port
    if port.protocol is not PortProtocol.TCP:
        written["protocol"] = port.protocol.value
    return written


def _volume(volume: Volume) -> dict[str, Any]:
    written: dict[str, Any] = {"name": volume.name, "mountPath": volume.mount_path}
    if volume.host_path:
        written |= {"hostPath": volume.host_path, "readOnly": volume.read_only}
    if volume.size_mb:
        written["size"] = format_mb(volume.size_mb)
    return written


def _probe(probe: Probe | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    question: dict[str, Any] = {}
    if probe.kind is ProbeKind.EXEC:
        question["command"] = list(probe.command)
    else:
        question["port"] = probe.port
    if probe.kind is ProbeKind.HTTP:
        question["path"] = probe.path
    return {
        probe.kind.value: question,
        "initialDelay": _seconds(probe.initial_delay_s),
        "period": _seconds(probe.period_s),
        "timeout": _seconds(probe.timeout_s),
        "successThreshold": probe.success_threshold,
        "failureThreshold": probe.failure_threshold,
    }


def _rlimit(limit: Rlimit) -> object:
    soft, hard = ("unlimited" if bound == RLIMIT_UNLIMITED else bound for bound in (limit.soft, limit.hard))
    return soft if soft == hard else {"soft": soft, "hard": hard}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    written: dict[str, Any] = {"operator": toleration.operator.value}
    if toleration.key:
        written["key"] = toleration.key
    if toleration.operator is TolerationOperator.EQUAL:
        written["value"] = toleration.value
    if toleration.effect is not None:
        written["effect"] = toleration.effect.value
    return written


def _node_terms(terms: Iterable[NodeTerm], *, required: bool) -> list[dict[str, Any]]:
    found = []
    for term in terms:
        written: dict[str, Any] = {"key": term.key, "operator": term.operator.value}
        if term.values:
            written["values"] = list(term.values)
        if term.weight:
            written["weight"] = term.weight
        if required is not bool(term.weight):
            found.append(written)
    return found


def _workload_terms(terms: Iterable[WorkloadTerm], *, required: bool) -> list[dict[str, Any]]:
    found = []
    for term in terms:
        written: dict[str, Any] = {"workload": term.workload} if term.workload else {"labels": dict(term.labels)}
        written["topology"] = term.topology.value
        if term.weight:
            written["weight"] = term.weight
        if required is not bool(term.weight):
            found.append(written)
    return found
