"""Prometheus metrics, read at scrape time from the objects that know the values.

Every gauge declared in a table has a value at every scrape: a metric nobody sets is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# name                      →  meaning
COORDINATOR_GAUGES: dict[str, str] = {
    "is_leader": "1 while this coordinator leads and is sure of it",
    "term": "term of the leader this coordinator knows, 0 if none",
    "raft_state": "this coordinator's etcd member: 0 follower, 1 candidate (no leader known), 2 leader, 3 shutdown",
    "raft_applied_index": "log index etcd's member has applied",
    "raft_commit_index": "log index etcd's member knows to be committed",
    "raft_term": "etcd's raft term",
    "etcd_db_bytes": "size of the member's database",
    "etcd_db_in_use_bytes": "how much of the database holds something",
    "etcd_quota_bytes": "size at which etcd refuses writes",
    "quota_hours_left": "hours until the quota is used up if it goes on like this, -1 if it does not grow",
    "writes_refused": "1 while users' writes are refused for want of room",
    "etcd_restarts": "times the member was started again since this coordinator began",
    "voters": "voting members",
    "learners": "members that do not vote yet",
    "peers_linked": "other coordinators that answer this one",
    "state_revision": "store revision this coordinator's state has",
    "state_entries": "entries in the state",
    "state_staleness_seconds": "seconds since the state was last known to be complete, -1 before it was loaded",
    "state_quarantined": "stored values that cannot be read and are ignored",
    "agent_sessions": "agents connected here",
    "state_listeners": "who is told of every change: controllers, agents' sessions, watches of the API",
    "asyncio_tasks": "tasks of the event loop",
    "nodes": "nodes known",
    "nodes_reachable": "nodes reachable",
    "workloads": "workloads",
    "tasks": "tasks not ended",
    "tasks_running": "tasks reported running",
    "backup_age_seconds": "seconds since the last scheduled backup, -1 if there was none",
    "backup_bytes": "size of the last scheduled backup",
    "backup_failures_in_a_row": "scheduled backups that failed since the last one that did not",
}
COORDINATOR_COUNTERS: dict[str, str] = {
    "terms_won": "times this coordinator took office",
    "leaders_deposed": "times this coordinator ended a term whose leader the majority had lost",
    "commit_transactions": "transactions sent by group commit",
    "commit_changes": "changes committed",
    "state_resets": "times the state was read afresh",
    "placements": "changes to tasks planned while leading",
    "trace_spans_dropped": "spans of traces that the collector did not take, or that found the queue full",
}


class _Sampled(Collector):
    """Values taken from `sample` at each scrape. Raises KeyError for a declared metric without a value."""

    def __init__(
        self,
        prefix: str,
        gauges: Mapping[str, str],
        counters: Mapping[str, str],
        sample: Callable[[], Mapping[str, float]],
    ) -> None:
        self._prefix, self._gauges, self._counters, self._sample = prefix, gauges, counters, sample

    def collect(self) -> Iterator[Metric]:
        values = self._sample()
        for name, meaning in self._gauges.items():
            yield GaugeMetricFamily(self._prefix + name, meaning, value=values[name])
        for name, meaning in self._counters.items():
            yield CounterMetricFamily(self._prefix + name, meaning, value=values[name])

    def describe(self) -> Iterator[Metric]:
        return iter(())


class CoordinatorMetrics:
    """All metrics of one coordinator. `sample` returns a value for every name declared above."""

    def __init__(self, sample: Callable[[], Mapping[str, float]]) -> None:
        self._registry = CollectorRegistry()
        for build in (ProcessCollector, PlatformCollector, GCCollector):
            build(registry=self._registry)
        self._registry.register(_Sampled("cloudless_coordinator_", COORDINATOR_GAUGES, COORDINATOR_COUNTERS, sample))
        self._requests = Counter(
            "cloudless_coordinator_requests", "finished API calls", ["method", "outcome"], registry=self._registry
        )

    def count_request(self, method: str, outcome: str) -> None:
        """Count a finished call; `outcome` is "ok" or an error's code."""
        self._requests.labels(method, outcome).inc()

    def render(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry).decode()
