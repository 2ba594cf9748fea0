"""What a coordinator says of itself over HTTP: life, readiness, role, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

from cloudless.adapters.http.server import Answer
from cloudless.adapters.member.supervisor import Phase
from cloudless.coordinator.body import Body
from cloudless.core.backup import status_of
from cloudless.core.lifecycle import LIVE
from cloudless.core.model import TaskState
from cloudless.observability import tracing
from cloudless.observability.metrics import COORDINATOR_COUNTERS, COORDINATOR_GAUGES

READY_STALENESS_MAX_S = 5.0
OPEN_PATHS = ("/livez",)
"""What is answered without a certificate."""


def build_routes(body: Callable[[], Body | None], render_metrics: Callable[[], str]) -> dict[str, Callable[[], Answer]]:
    """Return the paths a coordinator answers.

    /livez: the process runs its loop. /readyz: it holds fresh state. /healthz: both, as JSON with the
    reasons. /leader, /follower: 200 for that role, 503 otherwise (for load balancers). /metrics.
    """

    def role_route(leads: bool) -> Callable[[], Answer]:
        def answer() -> Answer:
            now = body()
            if now is None or not _fresh(now):
                return Answer(503, "not ready\n")
            is_leader = now.leadership.leading_term > 0
            return Answer(200 if is_leader is leads else 503, "leader\n" if is_leader else "follower\n")

        return answer

    def ready() -> Answer:
        now = body()
        return Answer(200, "ok\n") if now is not None and _fresh(now) else Answer(503, "not ready\n")

    def health() -> Answer:
        now = body()
        document = _describe(now)
        fine = now is not None and _fresh(now)
        return Answer(200 if fine else 503, json.dumps(document, indent=1) + "\n", "application/json")

    return {
        "/livez": lambda: Answer(200, "ok\n"),
        "/readyz": ready,
        "/healthz": health,
        "/leader": role_route(True),
        "/follower": role_route(False),
        "/metrics": lambda: Answer(200, render_metrics()),
    }


def _fresh(body: Body) -> bool:
    return body.replica.staleness_s <= READY_STALENESS_MAX_S


def _describe(body: Body | None) -> dict[str, object]:
    if body is None:
        return {"ready": False, "reason": "not a voter of a cluster yet"}
    leader = body.leadership.leader()
    loaded = body.replica.loaded.is_set()
    return {
        "ready": _fresh(body),
        "coordinator": body.settings.node_id,
        "role": body.leadership.role.value,
        "leader": leader.record.coordinator_id if leader else "",
        "term": leader.term if leader else 0,
        "revision": body.replica.machine.revision,
        "stalenessSeconds": round(body.replica.staleness_s, 3) if loaded else None,
        "etcd": body.supervisor.state.phase.value,
    }


def sample_metrics(body: Body | None) -> Mapping[str, float]:
    """Return a value for every declared metric; zeros and -1 before this coordinator belongs to a cluster."""
    if body is None:
        values = dict.fromkeys([*COORDINATOR_GAUGES, *COORDINATOR_COUNTERS], 0.0)
        negative = dict.fromkeys(("state_staleness_seconds", "quota_hours_left", "backup_age_seconds"), -1.0)
        return {**values, "raft_state": 3.0, **negative}
    machine, members = body.replica.machine, body.members
    leader = body.leadership.leader()
    status = members.status
    live = [task.state for task in machine.tasks.values() if task.state is None or task.state in LIVE]
    return {
        "is_leader": float(body.leadership.leading_term > 0),
        "term": float(leader.term if leader else 0),
        "raft_state": _raft_state(body),
        "raft_applied_index": float(status.raft_applied_index if status else 0),
        "raft_commit_index": float(status.raft_index if status else 0),
        "raft_term": float(status.raft_term if status else 0),
        "etcd_db_bytes": float(status.db_size_bytes if status else 0),
        "etcd_db_in_use_bytes": float(status.db_in_use_bytes if status else 0),
        "etcd_quota_bytes": float(body.space.quota_bytes),
        "quota_hours_left": -1.0 if body.space.hours_left is None else body.space.hours_left,
        "writes_refused": float(bool(body.space.shortage)),
        "etcd_restarts": float(body.supervisor.state.restarts),
        "voters": float(len(members.voters())),
        "learners": float(sum(member.is_learner for member in members.list)),
        "peers_linked": float(sum(body.peers.linked(id) for id in machine.coordinators if id != body.settings.node_id)),
        "state_revision": float(machine.revision),
        "state_entries": float(machine.entry_count),
        "state_staleness_seconds": body.replica.staleness_s if body.replica.loaded.is_set() else -1.0,
        "state_quarantined": float(len(machine.quarantined)),
        "agent_sessions": float(body.sessions.count),
        "state_listeners": float(body.replica.listener_count),
        "asyncio_tasks": float(len(asyncio.all_tasks())),
        "nodes": float(len(machine.nodes)),
        "nodes_reachable": float(sum(node.reachable for node in machine.nodes.values())),
        "workloads": float(len(machine.workloads)),
        "tasks": float(len(live)),
        "tasks_running": float(sum(state is TaskState.RUNNING for state in live)),
        "terms_won": float(body.leadership.terms_won_total),
        "leaders_deposed": float(body.peers.deposed_total),
        "commit_transactions": float(body.committer.transactions_total),
        "commit_changes": float(body.committer.changes_total),
        "state_resets": float(body.replica.resets_total),
        "placements": float(body.orchestrator.placed_total),
        "trace_spans_dropped": float(tracing.dropped_total()),
        **_sample_backups(body),
    }


def _sample_backups(body: Body) -> dict[str, float]:
    status = status_of(body.replica.machine)
    age_s = (body.clock.wall_ms() - status.last_success_at_ms) / 1000 if status.last_success_at_ms else -1.0
    return {
        "backup_age_seconds": age_s,
        "backup_bytes": float(status.last_size_bytes),
        "backup_failures_in_a_row": float(status.failures_in_a_row),
    }


def _raft_state(body: Body) -> float:
    status = body.members.status
    if body.supervisor.state.phase is not Phase.RUNNING or status is None:
        return 3.0
    if status.leader_id == 0:
        return 1.0
    return 2.0 if status.leader_id == status.member_id else 0.0
