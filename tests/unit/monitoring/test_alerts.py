"""When each alert fires, and when it does not: Prometheus' own rule tests, one table for all.

A case gives series as promtool writes them (`1x20`: twenty-one samples, one each ten seconds) and says how many alerts
of that name are firing at a time. Every alert has a case in which it fires and one, as near to that as can be, in which
it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.prometheus_tools import RULES, promtool

ONE, TWO, THREE = "coordinator-1", "coordinator-2", "coordinator-3"
DAY_S = 86_400


@dataclass(frozen=True)
class Case:
    """`firing`: how many alerts at `at`; the series begin at 0 with a sample each 10 s."""

    alert: str
    series: Mapping[str, str]
    at: str
    firing: int


def c(name: str, instance: str = ONE, **labels: str) -> str:
    """Write a coordinator's series."""
    told = "".join(f',{key}="{value}"' for key, value in labels.items())
    return f'cloudless_coordinator_{name}{{job="cloudless-coordinator",instance="{instance}"{told}}}'


def a(name: str, **labels: str) -> str:
    told = "".join(f',{key}="{value}"' for key, value in labels.items())
    return f'cloudless_agent_{name}{{job="cloudless-agent",instance="agent-1"{told}}}'


def leads(first: str, second: str = "0x400") -> dict[str, str]:
    return {c("is_leader"): first, c("is_leader", TWO): second}


def cluster_ids(first: str, second: str) -> dict[str, str]:
    ids = (ONE, first), (TWO, second)
    return {c("info", instance, etcd_cluster_id=id): "1x60" for instance, id in ids}


def learner(healthy: str) -> dict[str, str]:
    seen = {c("member_healthy", ONE, member="coordinator-4", role="learner"): healthy}
    # A follower asks no learner and takes each for silent: that must not count.
    blind = {c("member_healthy", TWO, member="coordinator-4", role="learner"): "0x400"}
    return {**leads("1x400"), **seen, **blind}


def fsyncs(within_16ms: str, within_1s: str) -> dict[str, str]:
    bucket = 'etcd_disk_wal_fsync_duration_seconds_bucket{job="etcd",instance="coordinator-1",le="%s"}'
    return {bucket % "0.016": within_16ms, bucket % "1.024": within_1s, bucket % "+Inf": within_1s}


def commits(fast: str, every: str) -> dict[str, str]:
    return {
        c("commit_seconds_bucket", writer="users", le="0.1"): fast,
        c("commit_seconds_bucket", writer="users", le="5"): every,
        c("commit_seconds_bucket", writer="users", le="+Inf"): every,
    }


def backups(age: str, interval: str = "3600x400") -> dict[str, str]:
    return {c("backup_age_seconds"): age, c("backup_interval_seconds"): interval}


def expiry(series: str, at_s: int) -> dict[str, str]:
    return {series: f"{at_s}x500"}


CASES = (
    Case("CloudlessNoLeader", leads("1 1 0x60"), "3m", 1),
    Case("CloudlessNoLeader", {c("raft_term"): "1x60"}, "3m", 1),  # nobody can be scraped
    Case("CloudlessNoLeader", leads("1 1 0 0 1x60"), "3m", 0),  # a failover
    Case("CloudlessNoLeader", leads("1x10 0x60", "0x10 1x60"), "3m", 0),
    Case("CloudlessSeveralLeaders", leads("1x60", "0 0 1x60"), "3m", 1),
    Case("CloudlessSeveralLeaders", leads("1 1 1 0x60", "0 0 1x60"), "3m", 0),  # a handover, seen at two moments
    Case("CloudlessSplitBrain", cluster_ids("a1", "b2"), "3m", 1),
    Case("CloudlessSplitBrain", cluster_ids("a1", "a1"), "3m", 0),
    Case("CloudlessSplitBrain", cluster_ids("a1", ""), "3m", 0),  # one does not know yet where it belongs
    Case("CloudlessTermsDiffer", {c("term"): "70x60", c("term", TWO): "12x60"}, "3m", 1),
    Case("CloudlessTermsDiffer", {c("term"): "70x60", c("term", TWO): "12 12 70x60"}, "3m", 0),
    Case("CloudlessTermsDiffer", {c("term"): "70x60", c("term", TWO): "0x60"}, "3m", 0),
    Case("CloudlessLeadershipUnsteady", {c("leader_changes_total"): "0+1x100"}, "15m", 1),
    Case("CloudlessLeadershipUnsteady", {c("leader_changes_total"): "1x45 2x45 3x45"}, "15m", 0),
    Case("CloudlessQuorumAtRisk", {c("quorum_spare"): "1 0x60", c("voters"): "3x60"}, "3m", 1),
    Case("CloudlessQuorumAtRisk", {c("quorum_spare"): "1x60", c("voters"): "3x60"}, "3m", 0),
    Case("CloudlessQuorumAtRisk", {c("quorum_spare"): "0x60", c("voters"): "1x60"}, "3m", 0),  # one alone
    Case(
        "CloudlessQuorumAtRisk",  # one that is cut off takes all others for dead
        {c("quorum_spare"): "1x60", c("quorum_spare", TWO): "-1x60", c("voters"): "3x60"},
        "3m",
        0,
    ),
    Case(
        "CloudlessMemberDown",
        {
            c("member_healthy", ONE, member=THREE, role="voter"): "1 0x60",
            c("member_healthy", TWO, member=THREE, role="voter"): "1 0x60",
        },
        "3m",
        1,
    ),
    Case(
        "CloudlessMemberDown",
        {
            c("member_healthy", ONE, member=THREE, role="voter"): "1x60",
            c("member_healthy", TWO, member=THREE, role="voter"): "0x60",
        },
        "3m",
        0,
    ),
    Case("CloudlessLearnerStuck", learner("0x400"), "15m", 1),
    Case("CloudlessLearnerStuck", learner("0x30 1x400"), "15m", 0),
    Case("CloudlessEtcdRestarting", {c("etcd_restarts_total"): "0x10 1x3 2x3 3x3 4x3 5x60"}, "10m", 1),
    Case("CloudlessEtcdRestarting", {c("etcd_restarts_total"): "0x10 1x90"}, "10m", 0),
    Case("CloudlessApplyLag", {c("raft_commit_index"): "9000x60", c("raft_applied_index"): "7000x60"}, "3m", 1),
    Case("CloudlessApplyLag", {c("state_lag_revisions"): "2000x60"}, "3m", 1),
    Case(
        "CloudlessApplyLag",
        {
            c("raft_commit_index"): "9000x60",
            c("raft_applied_index"): "8990x60",
            c("state_lag_revisions"): "2000 2000 3x60",
        },
        "3m",
        0,
    ),
    Case("CloudlessStateStale", {c("state_staleness_seconds"): "1 6 16 26 36 46 56 66x20"}, "2m", 1),
    Case("CloudlessStateStale", {c("state_staleness_seconds"): "1 1 6 0 1x60"}, "2m", 0),
    Case("CloudlessStateStale", {c("state_staleness_seconds"): "-1x60"}, "2m", 0),
    Case("CloudlessFsyncSlow", fsyncs("0+90x120", "0+100x120"), "15m", 1),
    Case("CloudlessFsyncSlow", fsyncs("0+999x120", "0+1000x120"), "15m", 0),
    Case("CloudlessCommitsSlow", commits("0+50x120", "0+100x120"), "15m", 1),
    Case("CloudlessCommitsSlow", commits("0+999x120", "0+1000x120"), "15m", 0),
    Case("CloudlessStoreFilling", {c("etcd_db_in_use_bytes"): "75x100", c("etcd_quota_bytes"): "100x100"}, "12m", 1),
    Case("CloudlessStoreFilling", {c("quota_left_seconds"): "7200x100"}, "12m", 1),
    Case(
        "CloudlessStoreFilling",
        {
            c("etcd_db_in_use_bytes"): "60x100",
            c("etcd_quota_bytes"): "100x100",
            c("quota_left_seconds"): "-1x100",
        },
        "12m",
        0,
    ),
    Case("CloudlessWritesRefused", {c("writes_refused"): "0 1x60"}, "2m", 1),
    Case("CloudlessWritesRefused", {c("etcd_alarms", alarm="CORRUPT"): "0 1x60", c("writes_refused"): "0x60"}, "2m", 1),
    Case("CloudlessWritesRefused", {c("etcd_alarms", alarm="NOSPACE"): "0x60", c("writes_refused"): "0x60"}, "2m", 0),
    Case(
        "CloudlessCertificateExpiring",
        {
            **expiry(c("certificate_expiry_timestamp_seconds", certificate="own"), 3 * 3600),
            **expiry(a("certificate_expiry_timestamp_seconds", certificate="own"), 3 * 3600),
        },
        "15m",
        2,
    ),
    Case(
        "CloudlessCertificateExpiring",
        {
            **expiry(c("certificate_expiry_timestamp_seconds", certificate="own"), 12 * 3600),
            **expiry(a("certificate_expiry_timestamp_seconds", certificate="own"), 0),  # without TLS
        },
        "15m",
        0,
    ),
    Case(
        "CloudlessAuthorityExpiring",
        expiry(c("certificate_expiry_timestamp_seconds", certificate="authority"), 20 * DAY_S),
        "70m",
        1,
    ),
    Case(
        "CloudlessAuthorityExpiring",
        {
            **expiry(c("certificate_expiry_timestamp_seconds", certificate="authority"), 400 * DAY_S),
            **expiry(c("certificate_expiry_timestamp_seconds", TWO, certificate="authority"), 0),
        },
        "70m",
        0,
    ),
    Case("CloudlessBackupOld", backups("12000+10x400"), "25m", 1),
    Case("CloudlessBackupOld", backups("-1x400"), "25m", 1),
    Case("CloudlessBackupOld", backups("3000+10x400"), "25m", 0),
    Case("CloudlessBackupOld", backups("90000+10x400", "0x400"), "25m", 0),  # switched off
    Case("CloudlessBackupOld", backups("-1x70 0+10x300"), "25m", 0),  # a young cluster
    Case("CloudlessBackupFailing", {c("backup_failures_in_a_row"): "1 2x60"}, "3m", 1),
    Case("CloudlessBackupFailing", {c("backup_failures_in_a_row"): "1x60"}, "3m", 0),
    Case("CloudlessNodesOffline", {**leads("1x60"), c("nodes", phase="OFFLINE"): "0 1x60"}, "4m", 1),
    Case("CloudlessNodesOffline", {**leads("1x60"), c("nodes", phase="OFFLINE"): "0 1x3 0x60"}, "4m", 0),
    Case("CloudlessNodesOffline", {**leads("1x60"), c("nodes", TWO, phase="OFFLINE"): "1x60"}, "4m", 0),
    Case("CloudlessAgentCutOff", {a("contact_lost_seconds"): "0+10x60"}, "4m", 1),
    Case("CloudlessAgentCutOff", {a("contact_lost_seconds"): "0 1 5 20 0 1x60"}, "4m", 0),
    Case("CloudlessNodeRefusesStarts", {a("starts_refused"): "0 1x60"}, "6m", 1),
    Case("CloudlessNodeRefusesStarts", {a("starts_refused"): "0 1x9 0x60"}, "6m", 0),
    Case("CloudlessTasksUnplaced", {c("tasks_unplaced", reason="capacity"): "3x100"}, "12m", 1),
    Case("CloudlessTasksUnplaced", {c("tasks_unplaced", reason="capacity"): "3x20 0x100"}, "12m", 0),
    Case("CloudlessRolloutStuck", {c("rollout_stalled_seconds"): "0+10x200"}, "25m", 1),
    Case("CloudlessRolloutStuck", {c("rollouts", phase="FAILED"): "0 1x100"}, "7m", 1),
    Case(
        "CloudlessRolloutStuck",
        {c("rollout_stalled_seconds"): "0 60 120 180 0x200", c("rollouts", phase="FAILED"): "0x200"},
        "25m",
        0,
    ),
    Case("CloudlessCrashLoop", {c("tasks_crash_looping"): "0x3 1 0x15 1 0x15 1 0x15 1 0x15"}, "9m", 1),
    Case("CloudlessCrashLoop", {c("tasks_crash_looping"): "0x3 1 0x100"}, "9m", 0),
    Case("CloudlessTargetDown", {'up{job="etcd",instance="coordinator-1"}': "1 0x60"}, "3m", 1),
    Case("CloudlessTargetDown", {'up{job="etcd",instance="coordinator-1"}': "1 0 0 1x60"}, "3m", 0),
    Case("CloudlessTargetDown", {'up{job="prometheus",instance="prometheus"}': "0x60"}, "3m", 0),
)


def alerts() -> dict[str, dict[str, object]]:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}


def to_rule_test(case: Case) -> dict[str, object]:
    """Return the case as promtool takes it; how many fire is asked of the series that Prometheus makes of alerts."""
    return {
        "interval": "10s",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})',
                "eval_time": case.at,
                "exp_samples": [{"labels": "{}", "value": case.firing}] if case.firing else [],
            }
        ],
    }


def write_cases(directory: Path, alert: str) -> Path:
    """Write the cases of one alert, beside a file with its rule alone: promtool evaluates all rules of a file."""
    rules, cases = directory / f"{alert}.rules.yml", directory / f"{alert}.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": alert, "rules": [alerts()[alert]]}]}), encoding="utf-8")
    document = {
        "rule_files": [str(rules)],
        "evaluation_interval": "10s",
        "tests": [to_rule_test(case) for case in CASES if case.alert == alert],
    }
    cases.write_text(yaml.safe_dump(document), encoding="utf-8")
    return cases


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    done = promtool("test", "rules", *(write_cases(tmp_path, alert) for alert in alerts()))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    assert {case.firing > 0 for case in CASES if case.alert == alert} == {True, False}


def test_the_rules_are_clean() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(alert: str) -> None:
    rule = alerts()[alert]
    assert alert.startswith("Cloudless")
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/runbooks/{alert}.md"
