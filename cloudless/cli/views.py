"""How each kind of object looks in tables and as plain values: one `Listing` per kind."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from cloudless.cli.ages import format_age, format_span
from cloudless.cli.endpoints import Step, address_of
from cloudless.cli.output import Column, Listing
from cloudless.cli.plain import enum_word, to_plain
from cloudless.rpc.v1.cluster_pb2 import CoordinatorStatus, Joiner, Member
from cloudless.rpc.v1.names_pb2 import Endpoint
from cloudless.rpc.v1.node_pb2 import Node
from cloudless.rpc.v1.objects_pb2 import (
    EventRecord,
    Resources,
    RolloutStrategy,
    Severity,
    Taint,
    TaintEffect,
    WorkloadSpec,
)
from cloudless.rpc.v1.workload_pb2 import Revision, Task, Workload


def now_ms() -> int:
    return int(time.time() * 1000)


def format_cpu(millicores: int) -> str:
    """Return cores: `2`, `0.25`, `1.5`."""
    return f"{millicores / 1000:g}"


def format_mb(megabytes: int) -> str:
    return f"{megabytes / 1024:.4g}G" if megabytes >= 1024 else f"{megabytes}M"


def format_labels(labels: Any) -> str:
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) or "-"


def format_taint(taint: Taint) -> str:
    """Return a taint as `node taint` takes it."""
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{enum_word(TaintEffect.DESCRIPTOR, taint.effect)}"


def format_resources(amounts: Resources) -> str:
    """Return the amounts that are not zero, in words."""
    parts = (
        (amounts.cpu_millicores, f"cpu {format_cpu(amounts.cpu_millicores)}"),
        (amounts.memory_mb, f"memory {format_mb(amounts.memory_mb)}"),
        (amounts.storage_mb, f"storage {format_mb(amounts.storage_mb)}"),
        (amounts.bandwidth_mbps, f"bandwidth {amounts.bandwidth_mbps}Mbps"),
        (amounts.gpus, f"gpus {amounts.gpus}"),
    )
    return ", ".join(text for amount, text in parts if amount) or "none"


def _heard(node: Node) -> str:
    return format_span(node.last_heard_s) if node.last_heard_s >= 0 else "-"


def _resource(field: str, form: Any) -> Any:
    def cell(node: Node) -> str:
        return f"{form(getattr(node.reserved, field))}/{form(getattr(node.info.capacity, field))}"

    return cell


NODES: Listing[Node] = Listing(
    kind="node",
    name=lambda n: n.id,
    plain=to_plain,
    columns=[
        Column("NAME", lambda n: n.id),
        Column("PHASE", lambda n: n.phase),
        Column("ZONE", lambda n: n.info.zone or "-"),
        Column("CPU", _resource("cpu_millicores", format_cpu)),
        Column("MEM", _resource("memory_mb", format_mb)),
        Column("TASKS", lambda n: str(n.tasks_live)),
        Column("HEARD", _heard),
        Column("AGE", lambda n: format_age(n.info.enrolled_at_ms, now_ms())),
        Column("TYPE", lambda n: n.info.type or "-", wide=True),
        Column("REGION", lambda n: n.info.region or "-", wide=True),
        Column("STORAGE", _resource("storage_mb", format_mb), wide=True),
        Column("NET", lambda n: f"{n.info.capacity.bandwidth_mbps}Mbps", wide=True),
        Column("EXECUTORS", lambda n: ",".join(n.info.executors) or "-", wide=True),
        Column("ADDRESS", lambda n: n.info.address or "-", wide=True),
        Column("VERSION", lambda n: n.info.version or "-", wide=True),
        Column("LABELS", lambda n: format_labels({**n.info.labels, **n.spec.labels}), wide=True),
    ],
)


def _runs(spec: WorkloadSpec) -> str:
    whole = spec.image or " ".join([*spec.command, *spec.args])
    line = (whole.splitlines() or ["-"])[0][:40]
    return line if line == whole or not whole else f"{line.rstrip()}…"


def _strategy(workload: Workload) -> str:
    return enum_word(RolloutStrategy.DESCRIPTOR, workload.record.spec.rollout.strategy)


def workload_name(workload: Workload) -> str:
    """Return `namespace/name`, or the name alone in the default namespace."""
    record = workload.record
    return record.name if record.namespace == "default" else f"{record.namespace}/{record.name}"


def workload_state(workload: Workload) -> str:
    return "DELETING" if workload.record.deleted_at_ms else workload.summary.state or "-"


WORKLOADS: Listing[Workload] = Listing(
    kind="workload",
    name=workload_name,
    plain=to_plain,
    columns=[
        Column("NAMESPACE", lambda w: w.record.namespace),
        Column("NAME", lambda w: w.record.name),
        Column("STATE", workload_state),
        Column("RUNNING", lambda w: f"{w.summary.running}/{w.summary.desired}"),
        Column("READY", lambda w: str(w.summary.ready)),
        Column("UPDATED", lambda w: str(w.summary.updated)),
        Column("PENDING", lambda w: str(w.summary.pending)),
        Column("UNKNOWN", lambda w: str(w.summary.unknown)),
        Column("FAILED", lambda w: str(w.summary.failed)),
        Column("AGE", lambda w: format_age(w.record.created_at_ms, now_ms())),
        Column("READY", lambda w: f"{w.summary.ready}/{w.summary.desired}", wide=True),
        Column("DONE", lambda w: str(w.summary.completed), wide=True),
        Column("GEN", lambda w: str(w.record.generation), wide=True),
        Column("REVISION", lambda w: str(w.revision), wide=True),
        Column("STRATEGY", _strategy, wide=True),
        Column("RUNS", lambda w: _runs(w.record.spec), wide=True),
        Column("LABELS", lambda w: format_labels(w.record.labels), wide=True),
    ],
)


REVISIONS: Listing[Revision] = Listing(
    kind="revision",
    name=lambda r: str(r.generation),
    plain=to_plain,
    columns=[
        Column("GENERATION", lambda r: str(r.generation)),
        Column("NOW", lambda r: "yes" if r.current else "-"),
        Column("REPLACED", lambda r: "-" if r.current else f"{format_age(r.replaced_at_ms, now_ms())} ago"),
        Column("WHY", lambda r: r.reason or "-"),
    ],
)


def _ports(task: Task) -> str:
    host = task.observed.host
    return ",".join(f"{name}={host}:{port}" for name, port in sorted(task.observed.ports.items())) or "-"


def format_ready(task: Task) -> str:
    """Return whether the task is ready, "-" while it does not run."""
    if task.state != "RUNNING":
        return "-"
    return "yes" if task.observed.ready else "no"


TASKS: Listing[Task] = Listing(
    kind="task",
    name=lambda t: t.desired.id,
    plain=to_plain,
    columns=[
        Column("ID", lambda t: t.desired.id),
        Column("WORKLOAD", lambda t: f"{t.desired.namespace}/{t.desired.workload}"),
        Column("SLOT", lambda t: str(t.desired.slot)),
        Column("STATE", lambda t: t.state),
        Column("READY", format_ready),
        Column("NODE", lambda t: t.desired.node_id),
        Column("RESTARTS", lambda t: str(t.observed.restarts)),
        Column("PORTS", _ports),
        Column("AGE", lambda t: format_age(t.desired.created_at_ms, now_ms())),
        Column("PID", lambda t: str(t.observed.pid or "-"), wide=True),
        Column("ATTEMPT", lambda t: str(t.observed.attempt), wide=True),
        Column("EXIT", lambda t: format_exit(t), wide=True),
        Column("GEN", lambda t: str(t.desired.task_generation), wide=True),
        Column("TERM", lambda t: str(t.desired.term), wide=True),
        Column("MESSAGE", lambda t: t.observed.message or t.desired.reason or "-", wide=True),
    ],
)


def format_exit(task: Task) -> str:
    """Return how the last attempt that ended did so: an exit code, a signal, or "-"."""
    observed = task.observed
    if observed.signal:
        return f"signal {observed.signal}"
    ended = observed.finished_at_ms > 0 and observed.exit_code >= 0
    return str(observed.exit_code) if ended else "-"


def severity(event: EventRecord) -> str:
    return Severity.Name(event.severity).removeprefix("SEVERITY_")


EVENTS: Listing[EventRecord] = Listing(
    kind="event",
    name=lambda e: e.id,
    plain=to_plain,
    columns=[
        Column("AGE", lambda e: format_age(e.at_ms, now_ms())),
        Column("SEVERITY", severity),
        Column("KIND", lambda e: e.kind),
        Column("SUBJECT", lambda e: e.subject),
        Column("MESSAGE", lambda e: e.message),
        Column("BY", lambda e: e.actor or "-", wide=True),
        Column("SOURCE", lambda e: e.source or "-", wide=True),
        Column("TERM", lambda e: str(e.term or "-"), wide=True),
        Column("ID", lambda e: e.id, wide=True),
    ],
)

MEMBERS: Listing[Member] = Listing(
    kind="member",
    name=lambda m: m.name or f"{m.id:x}",
    plain=to_plain,
    columns=[
        Column("NAME", lambda m: m.name or "-"),
        Column("ID", lambda m: f"{m.id:x}"),
        Column("ROLE", lambda m: "learner" if m.learner else "voter"),
        Column("HEALTH", lambda m: m.health or "-"),
        Column("RAFT", lambda m: "leader" if m.raft_leader else "follower"),
        Column("LAG", lambda m: str(m.raft_lag) if m.health and m.raft_lag >= 0 else "-"),
        Column("PEER URL", lambda m: ",".join(m.peer_urls) or "-"),
        Column("NOTE", lambda m: m.note or "-"),
        Column("STARTED", lambda m: "yes" if m.started else "no", wide=True),
        Column("CLIENT URL", lambda m: ",".join(m.client_urls) or "-", wide=True),
    ],
)

JOINERS: Listing[Joiner] = Listing(
    kind="joiner",
    name=lambda j: j.record.id,
    plain=to_plain,
    columns=[
        Column("JOINING", lambda j: j.record.id),
        Column("RAFT ADDRESS", lambda j: j.record.raft_address),
        Column("API", lambda j: j.record.api_address or "-"),
        Column("AGE", lambda j: format_age(j.record.asked_at_ms, now_ms())),
        Column("NOTE", lambda j: j.note or "the leader has not come to it yet"),
    ],
)

COORDINATORS: Listing[CoordinatorStatus] = Listing(
    kind="coordinator",
    name=lambda c: c.record.id,
    plain=to_plain,
    columns=[
        Column("COORDINATOR", lambda c: c.record.id),
        Column("ROLE", lambda c: "leader" if c.leader else "follower"),
        Column("MEMBER", lambda c: c.member_role or "-"),
        Column("LINKED", lambda c: "yes" if c.linked else "no"),
        Column("API", lambda c: c.record.api_address or "-"),
        Column("HTTP", lambda c: c.record.http_address or "-"),
        Column("UP", lambda c: format_age(c.record.started_at_ms, now_ms())),
        Column("METRICS", lambda c: c.record.metrics_address or "-", wide=True),
        Column("RAFT", lambda c: c.record.raft_address or "-", wide=True),
        Column("VERSION", lambda c: c.record.version or "-", wide=True),
        Column("ETCD", lambda c: c.record.etcd_version or "-", wide=True),
        Column("PID", lambda c: str(c.record.pid or "-"), wide=True),
    ],
)


ENDPOINTS: Listing[Endpoint] = Listing(
    kind="endpoint",
    name=lambda e: f"{e.task_id}/{e.port_name}" if e.port_name else e.task_id,
    plain=to_plain,
    columns=[
        Column("ADDRESS", address_of),
        Column("PORT", lambda e: e.port_name or "-"),
        Column("PROTOCOL", lambda e: e.protocol),
        Column("TASK", lambda e: e.task_id),
        Column("NODE", lambda e: e.node_id),
        Column("ZONE", lambda e: e.zone or "-"),
        Column("NEAR", lambda e: "?" if e.doubtful else e.distance),
        Column("REGION", lambda e: e.region or "-", wide=True),
    ],
)


def print_step(output: str, step: Step) -> None:
    """Print what changed: one line for each endpoint, or an object a line."""
    if output in ("json", "yaml"):  # a line each: an endless list cannot be closed
        gone = [{"taskId": endpoint.task_id, "portName": endpoint.port_name} for endpoint in step.gone]
        click.echo(json.dumps({"put": [to_plain(endpoint) for endpoint in step.put], "gone": gone}))
        return
    for sign, changed in (("-", step.gone), ("+", step.put)):
        for endpoint in changed:
            node = f"{endpoint.node_id}, unreachable" if endpoint.doubtful else endpoint.node_id
            click.echo(
                f"{sign} {address_of(endpoint):<24} {endpoint.port_name or '-':<10} {endpoint.task_id} on {node}"
            )
