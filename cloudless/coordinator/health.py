"""What a coordinator says of itself over HTTP: life, readiness, role, metrics.

Load balancers ask by role: /leader, /follower and /read-only answer 200 or 503, each with the reasons. A state counts
as fresh for `READY_STALENESS_MAX_S` after it was last known to be complete.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping

from cloudless import __version__
from cloudless.adapters.http.exchange import JSON, Answer
from cloudless.adapters.member.supervisor import Phase
from cloudless.coordinator.body import Body
from cloudless.core.backup import status_of
from cloudless.core.lifecycle import LIVE
from cloudless.core.model import TaskState
from cloudless.observability.metrics import COORDINATOR_COUNTERS, COORDINATOR_GAUGES

READY_STALENESS_MAX_S = 5.0
OPEN_PATHS = ("/livez",)
"""What is answered without a certificate."""
MAX_STALENESS = "maxStalenessS"
PAGES: Mapping[str, str] = {
    "/livez": "200 while the process runs its loop. Needs no certificate.",
    "/readyz": f"200 while its state is fresh: known to be complete at most {READY_STALENESS_MAX_S:g} s ago.",
    "/healthz": "As /readyz, with what it knows of itself and the reasons, as JSON.",
    "/leader": "200 on the coordinator that leads, if its state is fresh: for what should reach the leader.",
    "/follower": "200 on one that does not lead, if its state is fresh.",
    "/read-only": f"200 on any whose state is not older than {MAX_STALENESS} (default {READY_STALENESS_MAX_S:g}): for "
    "reads. A large number keeps reads going without a quorum, marked as stale.",
    "/metrics": "Metrics for Prometheus.",
}

Page = Callable[[Mapping[str, str]], Answer]


def build_pages(
    body: Callable[[], Body | None], waiting_for: Callable[[], str], render_metrics: Callable[[], str]
) -> dict[str, Page]:
    """Return what answers each of `PAGES`, given the query. `waiting_for` tells what is waited for without a body."""

    def reasons(staleness_max_s: float = READY_STALENESS_MAX_S) -> list[str]:
        return _find_reasons(body(), waiting_for(), staleness_max_s)

    def ready(query: Mapping[str, str]) -> Answer:
        return _say("ready", reasons())

    def leader(query: Mapping[str, str]) -> Answer:
        now = body()
        away = [] if now is not None and now.leadership.leading_term > 0 else [f"not the leader{_who_leads(now)}"]
        return _say("leader", reasons() or away)

    def follower(query: Mapping[str, str]) -> Answer:
        now = body()
        leads = now is not None and now.leadership.leading_term > 0
        return _say("follower", reasons() or (["it is the leader"] if leads else []))

    def read_only(query: Mapping[str, str]) -> Answer:
        staleness_max_s = _read_staleness(query)
        if staleness_max_s is None:
            return Answer(400, f"{MAX_STALENESS} must be seconds, not negative\n")
        return _say("readable", reasons(staleness_max_s))

    def health(query: Mapping[str, str]) -> Answer:
        found = reasons()
        document = {"ready": not found, "reasons": found, **_describe(body())}
        return Answer(503 if found else 200, json.dumps(document, indent=1) + "\n", JSON)

    return {
        "/livez": lambda query: Answer(200, "ok\n"),
        "/readyz": ready,
        "/healthz": health,
        "/leader": leader,
        "/follower": follower,
        "/read-only": read_only,
        "/metrics": lambda query: Answer(200, render_metrics()),
    }


def _say(what: str, reasons: list[str]) -> Answer:
    """Return 200 with what it is, or 503 with every reason why it is not."""
    if not reasons:
        return Answer(200, f"{what}\n")
    return Answer(503, f"not {what}\n" + "".join(f"{reason}\n" for reason in reasons))


def _find_reasons(body: Body | None, waiting_for: str, staleness_max_s: float) -> list[str]:
    """Return why there is no state of at most that age; nothing if there is."""
    if body is None:
        waits = f": {waiting_for}" if waiting_for else ""
        return [f"not a voter of a cluster yet{waits}"]
    if not body.replica.loaded.is_set():
        return ["its state is not read yet"]
    if body.replica.staleness_s <= staleness_max_s:
        return []
    reasons = [f"its state was last known to be complete {body.replica.staleness_s:.1f} s ago"]
    phase = body.supervisor.state.phase
    if phase is not Phase.RUNNING:
        reasons.append(f"its etcd does not run ({phase.value})")
    return reasons


def _who_leads(body: Body | None) -> str:
    leader = body.leadership.leader() if body is not None else None
    return f": that is {leader.record.coordinator_id}" if leader else ": there is none that it knows"


def _read_staleness(query: Mapping[str, str]) -> float | None:
    """Return the age that the query allows, in seconds; None if that is none."""
    text = query.get(MAX_STALENESS, query.get("max_staleness_s", ""))
    try:
        seconds = float(text) if text else READY_STALENESS_MAX_S
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _describe(body: Body | None) -> dict[str, object]:
    if body is None:
        return {"version": __version__}
    leader = body.leadership.leader()
    cluster = body.replica.machine.cluster
    loaded = body.replica.loaded.is_set()
    return {
        "version": __version__,
        "clusterId": cluster.id if cluster else "",
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
