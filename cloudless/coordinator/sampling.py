"""What a coordinator's metrics are at a scrape: read from the parts that know, see `observability.metrics`.

One pass over nodes and over tasks, and nothing that waits: a scrape holds the event loop up for as long as this takes.
What only the leader knows (tasks without a place, rollouts that come no further, how learners are) the others tell as 0
or as far as they can see.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from cloudless import __version__
from cloudless.adapters.member.supervisor import Phase
from cloudless.coordinator.body import Body
from cloudless.core.backup import settings_of, status_of
from cloudless.core.keys import Kind
from cloudless.core.membership.health import describe_health
from cloudless.core.membership.observed import MemberView
from cloudless.core.membership.quorum import spare_of
from cloudless.core.membership.records import autopilot_of, autopilot_status_of, joins_of
from cloudless.core.model import AuthorityPhase, NodePhase, RolloutPhase, RolloutRecord, TaskState
from cloudless.core.orchestration.heartbeats import heartbeat_period_s
from cloudless.core.state import Node
from cloudless.observability import tracing
from cloudless.observability.metrics import COORDINATOR, MEMBERS_MAX, UNREPORTED
from cloudless.observability.registry import Value, unknown

CRASH_LOOP_RESTARTS = 3
SILENT_PERIODS = 2
_WELL = ("healthy", "standby")


def sample(body: Body | None) -> Mapping[str, Value]:
    """Return a value for every declared metric; what is unknown before this coordinator belongs to a cluster."""
    if body is None:
        return unknown(COORDINATOR)
    return {
        **_leading(body),
        **_etcd(body),
        **_members(body),
        **_state(body),
        **_commits(body),
        **_nodes(body),
        **_tasks(body),
        **_rollouts(body),
        **_backups(body),
        "certificate_expiry_timestamp_seconds": _certificates(body),
        "asyncio_tasks": float(len(asyncio.all_tasks())),
    }


def _leading(body: Body) -> dict[str, Value]:
    leadership, machine, status = body.leadership, body.replica.machine, body.members.status
    leader = leadership.leader()
    who: tuple[str, ...] = (
        body.settings.node_id,
        __version__,
        status.version if status else "",
        machine.cluster.id if machine.cluster else "",
        f"{status.cluster_id:x}" if status else "",
    )
    return {
        "info": {who: 1.0},
        "is_leader": float(leadership.leading_term > 0),
        "term": float(leader.term if leader else 0),
        "candidates": float(len(machine.candidates())),
        "terms_won": float(leadership.terms_won_total),
        "leader_changes": float(leadership.leader_changes_total),
        "leaders_deposed": float(body.peers.deposed_total),
        "fence_rejections": float(leadership.figures.fenced_total),
    }


def _etcd(body: Body) -> dict[str, Value]:
    status = body.members.status
    return {
        "raft_state": _raft_state(body),
        "raft_applied_index": float(status.raft_applied_index if status else 0),
        "raft_commit_index": float(status.raft_index if status else 0),
        "raft_term": float(status.raft_term if status else 0),
        "etcd_db_bytes": float(status.db_size_bytes if status else 0),
        "etcd_db_in_use_bytes": float(status.db_in_use_bytes if status else 0),
        "etcd_quota_bytes": float(body.space.quota_bytes),
        "etcd_alarms": _count_alarms(body),
        "quota_left_seconds": -1.0 if body.space.hours_left is None else 3600.0 * body.space.hours_left,
        "writes_refused": float(bool(body.space.shortage)),
        "etcd_restarts": float(body.supervisor.state.restarts),
    }


def _raft_state(body: Body) -> float:
    status = body.members.status
    if body.supervisor.state.phase is not Phase.RUNNING or status is None:
        return 3.0
    if status.leader_id == 0:
        return 1.0
    return 2.0 if status.leader_id == status.member_id else 0.0


def _count_alarms(body: Body) -> dict[str, float]:
    kinds = Counter(alarm.kind for alarm in (body.members.status.alarms if body.members.status else ()))
    return {kind: float(kinds[kind]) for kind in ("NOSPACE", "CORRUPT")}


def _members(body: Body) -> dict[str, Value]:
    machine, status = body.replica.machine, body.members.status
    views = _with_learners(body)[:MEMBERS_MAX]
    newest = status.raft_index if status else 0
    lags = {view.label: float(max(0, newest - view.raft_index)) if view.raft_index else -1.0 for view in views}
    lag_max = autopilot_of(machine).catch_up_lag_max
    health = {view.label: describe_health(view, _known(lags[view.label]), lag_max) for view in views}
    well: dict[tuple[str, ...], float] = {
        (view.label, "learner" if view.learner else "voter"): float(health[view.label] in _WELL) for view in views
    }
    voters = [view for view in views if not view.learner]
    healthy = sum(view.healthy for view in voters)
    return {
        "voters": float(len(voters)),
        "voters_healthy": float(healthy),
        "quorum_spare": float(spare_of(healthy, len(voters)) if voters else 0),
        "learners": float(len(views) - len(voters)),
        "members": {word: float(count) for word, count in Counter(health.values()).items()},
        "member_healthy": well,
        "member_lag_entries": lags,
        "autopilot_waits": float(len(autopilot_status_of(machine).waits)),
        "joins_waiting": float(len(joins_of(machine).keys() - body.members.names())),
        "peers_linked": float(sum(body.peers.linked(id) for id in machine.coordinators if id != body.settings.node_id)),
    }


def _with_learners(body: Body) -> list[MemberView]:
    """Return the members as seen from here; learners have no links yet, the leader's autopilot asks them itself."""
    asked = {view.id: view for view in body.autopilot.seen} if body.leadership.leading_term else {}
    return [asked.get(view.id, view) if view.learner else view for view in body.members.views()]


def _known(lag: float) -> int | None:
    return None if lag < 0 else int(lag)


def _state(body: Body) -> dict[str, Value]:
    replica, status = body.replica, body.members.status
    machine = replica.machine
    return {
        "state_revision": float(machine.revision),
        "state_lag_revisions": float(max(0, status.revision - machine.revision) if status else 0),
        "state_entries": float(machine.entry_count),
        "state_staleness_seconds": replica.staleness_s if replica.loaded.is_set() else -1.0,
        "state_resets": float(replica.resets_total),
        "watch_resets": {cause.value: float(count) for cause, count in replica.watch_resets.items()},
        "state_quarantined": float(len(machine.quarantined)),
        "state_listeners": float(replica.listener_count),
    }


def _commits(body: Body) -> dict[str, Value]:
    own, leaders = body.committer.figures, body.leadership.figures
    return {
        "commit_transactions": float(own.transactions_total),
        "commit_changes": float(own.changes_total),
        "commit_unanswered": float(own.unanswered_total + leaders.unanswered_total),
        "commit_queue_length": float(body.committer.queue_length),
        "placements": float(body.orchestrator.placed_total),
        "trace_spans_dropped": float(tracing.dropped_total()),
    }


def _nodes(body: Body) -> dict[str, Value]:
    machine, sessions = body.replica.machine, body.sessions
    silent_s, reachable, silent = body.heard.silent_s(), 0, 0
    patience_s = SILENT_PERIODS * heartbeat_period_s(len(machine.nodes), body.settings.heartbeat_period_s)
    phases: Counter[str] = Counter()
    for node in machine.nodes.values():
        phases[_phase(body, node).value] += 1
        if node.reachable:
            reachable += 1
            silent += silent_s.get(node.id, float("inf")) > patience_s
    return {
        "agent_sessions": float(sessions.count),
        "heartbeats_missed": float(sessions.heartbeats_missed_total),
        "nodes": {phase: float(count) for phase, count in phases.items()},
        "nodes_reachable": float(reachable),
        "nodes_silent": float(silent),
    }


def _phase(body: Body, node: Node) -> NodePhase:
    machine = body.replica.machine
    live = sum(not machine.tasks[id].ended for id in machine.tasks_on(node.id)) if node.spec.draining else 0
    return node.phase(live)


def _tasks(body: Body) -> dict[str, Value]:
    machine, tally = body.replica.machine, body.task_tally
    states: Counter[str] = Counter()
    unready = looping = 0
    for task in machine.tasks.values():
        seen = task.observed
        states[seen.state.value if seen else UNREPORTED] += 1
        if seen is not None and task.wanted:
            unready += seen.state is TaskState.RUNNING and not seen.ready
            looping += seen.state is TaskState.BACKOFF and seen.restarts >= CRASH_LOOP_RESTARTS
    return {
        "workloads": float(len(machine.workloads)),
        "tasks": {state: float(count) for state, count in states.items()},
        "tasks_unready": float(unready),
        "tasks_crash_looping": float(looping),
        "task_restarts": float(tally.restarts_total),
        "task_failures": float(tally.failures_total),
        "task_probe_failures": float(tally.probe_failures_total),
        "tasks_unplaced": body.orchestrator.count_unplaced() if body.leadership.leading_term else {},
    }


def _rollouts(body: Body) -> dict[str, Value]:
    phases: Counter[str] = Counter()
    stalled_ms = 0
    term, now_ms = body.leadership.leading_term, body.clock.wall_ms()
    for entry in body.replica.machine.held(Kind.ROLLOUT).values():
        notes = entry.record
        if not isinstance(notes, RolloutRecord):
            continue
        phases[notes.phase.value] += 1
        goes_on = notes.phase in (RolloutPhase.PROGRESSING, RolloutPhase.FAILED) and not notes.rest_from_ms
        if goes_on and notes.term == term:  # only the leader's own notes are of its own clock
            stalled_ms = max(stalled_ms, now_ms - notes.progress_at_ms)
    return {
        "rollouts": {phase: float(count) for phase, count in phases.items()},
        "rollout_stalled_seconds": stalled_ms / 1000,
    }


def _backups(body: Body) -> dict[str, Value]:
    status, settings = status_of(body.replica.machine), settings_of(body.replica.machine)
    age_s = (body.clock.wall_ms() - status.last_success_at_ms) / 1000 if status.last_success_at_ms else -1.0
    return {
        "backup_age_seconds": age_s,
        "backup_interval_seconds": float(settings.interval_s if settings.enabled else 0),
        "backup_bytes": float(status.last_size_bytes),
        "backup_failures_in_a_row": float(status.failures_in_a_row),
    }


def _certificates(body: Body) -> dict[str, float]:
    authorities = [one.record for one in body.replica.machine.authorities.values()]
    ends_ms = [one.not_after_ms for one in authorities if one.phase is not AuthorityPhase.RETIRING]
    return {
        "own": body.own.certificate_ends_ms / 1000,
        "authority": min(ends_ms, default=0) / 1000,
    }
