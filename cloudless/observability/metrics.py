"""Every metric there is: what a coordinator and an agent tell Prometheus, by name, kind, meaning and label values.

The only place where a metric gets its name. `registry` serves what is declared here, `manual` writes the table of it,
and tests hold the dashboards and alert rules of `compose/` against it. Labels are bounded: their values are listed, or
`bound` says why they stay few. Each declared metric has a sample at every scrape: one that nobody sets is worse than
none. Values read at a scrape come from `coordinator/sampling.py` and `agent/sampling.py`.
"""

from __future__ import annotations

from cloudless.core.model import NodePhase, RolloutPhase, TaskState
from cloudless.observability.declared import Declared, counter, gauge, histogram

COORDINATOR_PREFIX = "cloudless_coordinator_"
AGENT_PREFIX = "cloudless_agent_"

UNREPORTED = "UNREPORTED"
"""State of a task of which its agent has said nothing yet."""
NO_NODES = "no-nodes"
OTHER = "other"
MEMBERS_MAX = 16
"""So many members are told apart; etcd takes seven voters at most, and one learner at a time."""

OBSTACLES = (
    "offline", "enrolling", "draining", "cordoned", "not-starting", "executor", "ability", "region", "zone",
    "node-selector", "node-affinity", "taint", "capacity", "host-port", "workload-affinity", "workload-anti-affinity",
)  # fmt: skip
"""Codes of `core.scheduling.wakes.UNBLOCKED_BY`, which agents need not load."""
WRITERS = ("users", "leader")
WATCH_RESETS = ("broken", "hung", "compacted", "restored")
MEMBER_HEALTH = ("healthy", "ailing", "silent", "dead", "starting", "catching-up", "standby")
CERTIFICATES = ("own", "authority")
SERVICES = (
    "ClusterService", "NodeService", "WorkloadService", "TaskService", "EventService", "AgentService", "BackupService",
    "IdentityService", "NameService", "UsageService", "PeerService", "MaintenanceService", OTHER,
)  # fmt: skip
REFUSALS = ("stale-term", "stale-revision", "sequence-gap", "foreign-cluster", "unknown-kind")
SESSION_ENDS = ("unreachable", "broken", "silent", "shed", "refused", "foreign", "duplicate", "left")
PROBES = tuple(f"{purpose}-{answer}" for purpose in ("liveness", "readiness") for answer in ("success", "failure"))

_TASK_STATES = (UNREPORTED, *(state.value for state in TaskState))
_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MEMBER = f"one a member of etcd, at most {MEMBERS_MAX}"

COORDINATOR: tuple[Declared, ...] = (
    gauge(
        "info",
        "1; who this is, in its labels. Two values of etcd_cluster_id among the coordinators are two clusters",
        label="coordinator version etcd_version cluster_id etcd_cluster_id",
        bound="one series a coordinator at any time",
    ),
    # --- who leads ---
    gauge("is_leader", "1 while this coordinator leads and is sure of it"),
    gauge("term", "term of the leader this coordinator knows, 0 if none"),
    gauge("candidates", "coordinators in the election's queue, the leader among them"),
    counter("terms_won", "times this coordinator took office"),
    counter("leader_changes", "times this coordinator saw another term begin"),
    counter("leaders_deposed", "times this coordinator ended a term whose leader the majority had lost"),
    counter("fence_rejections", "transactions refused because the term they were written for had ended"),
    # --- etcd's member of this coordinator ---
    gauge(
        "raft_state",
        "this coordinator's etcd member: 0 follower, 1 candidate (no leader known), 2 leader, 3 shutdown",
        unknown=3.0,
    ),
    gauge("raft_applied_index", "log index etcd's member has applied"),
    gauge("raft_commit_index", "log index etcd's member knows to be committed"),
    gauge("raft_term", "etcd's raft term"),
    gauge("etcd_db_bytes", "size of the member's database"),
    gauge("etcd_db_in_use_bytes", "how much of the database holds something"),
    gauge("etcd_quota_bytes", "size at which etcd refuses writes"),
    gauge("etcd_alarms", "alarms that etcd has raised", label="alarm", values=("NOSPACE", "CORRUPT")),
    gauge(
        "quota_left_seconds",
        "seconds until the quota is used up if it goes on like this, -1 if it does not grow",
        unknown=-1.0,
    ),
    gauge("writes_refused", "1 while users' writes are refused for want of room"),
    counter("etcd_restarts", "times the member was started again since this coordinator began"),
    # --- members ---
    gauge("voters", "voting members"),
    gauge("voters_healthy", "voting members whose coordinator answers this one and whose etcd works"),
    gauge("quorum_spare", "healthy voters beyond a majority: 0 means that the next loss stops all writes"),
    gauge("learners", "members that do not vote yet"),
    gauge("members", "members, by how they are as seen from here", label="health", values=MEMBER_HEALTH),
    gauge("member_healthy", "1 while the member is well as seen from here", label="member role", bound=_MEMBER),
    gauge("member_lag_entries", "raft entries a member is behind, -1 if not known", label="member", bound=_MEMBER),
    gauge("autopilot_waits", "things that the autopilot would do about the members, and waits for"),
    gauge("joins_waiting", "coordinators that ask to become members"),
    gauge("peers_linked", "other coordinators that answer this one"),
    # --- this coordinator's copy of the state ---
    gauge("state_revision", "store revision this coordinator's state has"),
    gauge("state_lag_revisions", "revisions its own member has beyond that, as last asked about once a second"),
    gauge("state_entries", "entries in the state"),
    gauge(
        "state_staleness_seconds",
        "seconds since the state was last known to be complete, -1 before it was loaded",
        unknown=-1.0,
    ),
    histogram("state_catch_up_seconds", "how long a freshness check took: a linearizable read, then applying up to it",
              _FAST_S),
    counter("state_resets", "times the state was read afresh"),
    counter("watch_resets", "times the watch that keeps the state fresh was opened anew, by cause", label="cause",
            values=WATCH_RESETS),
    gauge("state_quarantined", "stored values that cannot be read and are ignored"),
    gauge("state_listeners", "who is told of every change: controllers, agents' sessions, watches of the API"),
    # --- group commit ---
    counter("commit_transactions", "transactions of users' and agents' writes sent by group commit"),
    counter("commit_changes", "changes of users and agents committed"),
    histogram("commit_batch_changes", "changes that travelled together in one transaction",
              (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), label="writer", values=WRITERS),
    histogram("commit_seconds", "from sending a transaction to its answer, repeats included", _FAST_S, label="writer",
              values=WRITERS),
    counter("commit_unanswered", "tries of a transaction that got no answer in time and were repeated"),
    gauge("commit_queue_length", "changes of users and agents that wait to be sent"),
    # --- API ---
    counter("requests", "finished API calls by method and outcome: ok, or an error's code", label="method outcome",
            bound="the API's methods by the error codes", recorded=True),
    histogram("request_seconds", "how long unary API calls took, by service", _FAST_S, label="service",
              values=SERVICES),
    # --- nodes and agents ---
    gauge("agent_sessions", "agents connected here"),
    counter("heartbeats_missed", "heartbeats of agents connected here that came late or never"),
    gauge("nodes", "nodes by phase", label="phase", values=tuple(phase.value for phase in NodePhase)),
    gauge("nodes_reachable", "nodes reachable"),
    gauge("nodes_silent", "reachable nodes that nobody has heard of for two heartbeat periods"),
    # --- workloads and tasks ---
    gauge("workloads", "workloads"),
    gauge("tasks", "tasks by the state their agent last reported", label="state", values=_TASK_STATES),
    gauge("tasks_unready", "running tasks whose readiness probe has not passed"),
    gauge("tasks_crash_looping", "tasks that wait to be started again after three restarts or more"),
    counter("task_restarts", "restarts of tasks that agents reported"),
    counter("task_failures", "tasks that ended as FAILED"),
    counter("task_probe_failures", "attempts ended because the liveness probe failed"),
    gauge("tasks_unplaced", "tasks that no node fits, by what is most in the way; told by the leader", label="reason",
          values=(*OBSTACLES, NO_NODES, OTHER)),
    counter("placements", "changes to tasks planned while leading"),
    counter("trace_spans_dropped", "spans of traces that the collector did not take, or that found the queue full"),
    histogram("planning_seconds", "how long the leader's scheduler took for one round of planning", _FAST_S),
    histogram("placing_seconds", "from the start of a round until what it decided is durable and seen", _FAST_S),
    gauge("rollouts", "rollouts by phase", label="phase", values=tuple(phase.value for phase in RolloutPhase)),
    gauge("rollout_stalled_seconds", "how long the rollout under way that waits longest has come no further"),
    # --- backups, certificates, the process ---
    gauge("backup_age_seconds", "seconds since the last scheduled backup, -1 if there was none", unknown=-1.0),
    gauge("backup_interval_seconds", "seconds between two scheduled backups, 0 while they are switched off"),
    gauge("backup_bytes", "size of the last scheduled backup"),
    gauge("backup_failures_in_a_row", "scheduled backups that failed since the last one that did not"),
    gauge("certificate_expiry_timestamp_seconds", "when the certificate runs out, as Unix time; 0 without TLS",
          label="certificate", values=CERTIFICATES),
    gauge("asyncio_tasks", "tasks of the event loop"),
)  # fmt: skip

AGENT: tuple[Declared, ...] = (
    gauge("up", "1 while the agent runs", unknown=1.0),
    gauge("info", "1; who this is, in its labels", label="node zone region version", bound="one series an agent"),
    # --- its coordinators ---
    gauge("sessions", "open sessions by role", label="role", values=("primary", "warm")),
    counter("session_ends", "ended sessions by cause", label="cause", values=SESSION_ENDS),
    counter("reconnects", "coordinators dialled after the first two"),
    gauge("contact_lost_seconds", "seconds since any coordinator was heard"),
    histogram("heartbeat_rtt_seconds", "from a heartbeat to its acknowledgement",
              (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    counter("assignments_refused", "assignments or coordinators not followed", label="reason", values=REFUSALS,
            recorded=True),
    counter("trace_spans_dropped", "spans of traces that the collector did not take, or that found the queue full"),
    counter("reports_resent", "reports sent again without an answer", recorded=True),
    gauge("reports_waiting", "reports of tasks that no coordinator has acknowledged yet"),
    # --- tasks ---
    gauge("tasks", "tasks of this node by state", label="state", values=tuple(state.value for state in TaskState)),
    counter("task_starts", "attempts begun, the first of each task among them"),
    counter("task_restarts", "attempts begun after another of the same task"),
    counter("probes", "probes tried, by purpose and answer", label="result", values=(*PROBES, "unknown")),
    gauge("starts_refused", "1 while nothing can be started here: the disk, or the journal on it, is at fault"),
    gauge("docker_available", "1 while containers can be started here"),
    # --- what is there, what is promised, what is used ---
    gauge("capacity_cpu_cores", "processor cores offered to tasks"),
    gauge("capacity_memory_bytes", "memory offered to tasks"),
    gauge("requested_cpu_cores", "processor cores that tasks not ended ask for"),
    gauge("requested_memory_bytes", "memory that tasks not ended ask for"),
    gauge("tasks_cpu_cores", "processor cores that tasks use, -1 if it cannot be told", unknown=-1.0),
    gauge("tasks_memory_bytes", "memory that tasks use, -1 if it cannot be told", unknown=-1.0),
    gauge("machine_cpu_cores", "processor cores busy on the whole machine, -1 if it cannot be told", unknown=-1.0),
    gauge("machine_memory_bytes", "memory in use on the whole machine, -1 if it cannot be told", unknown=-1.0),
    gauge("disk_free_bytes", "room on the disk of the data directory, -1 if it cannot be told", unknown=-1.0),
    gauge("disk_size_bytes", "size of the disk of the data directory, -1 if it cannot be told", unknown=-1.0),
    # --- the process ---
    gauge("certificate_expiry_timestamp_seconds", "when the certificate runs out, as Unix time; 0 without TLS",
          label="certificate", values=CERTIFICATES),
    gauge("asyncio_tasks", "tasks of the event loop"),
)  # fmt: skip
