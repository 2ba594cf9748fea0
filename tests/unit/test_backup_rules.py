"""When a backup is due, which ones may go, what their names say, and whether a survivor may be rebuilt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core import keys
from cloudless.core.backup import Keep, Named, build_name, check_settings, parse_name, plan_backup, plan_prune
from cloudless.core.keys import Key, Kind
from cloudless.core.model import BackupSettings, BackupStatus, ClusterRecord, Record
from cloudless.core.recovery import Neighbour, Survivor, best_of, judge_recovery
from cloudless.core.state import StateMachine, Stored

HOUR_MS = 3_600_000
BORN_MS = 1_700_000_000_000
DAY = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday


def state_of(settings: BackupSettings | None = None, status: BackupStatus | None = None) -> StateMachine:
    machine = StateMachine()
    records: list[tuple[str, Kind, Record | None]] = [
        (keys.CLUSTER, Kind.CLUSTER, ClusterRecord(id="c1", created_at_ms=BORN_MS)),
        (keys.backup_settings(), Kind.BACKUP_SETTINGS, settings),
        (keys.backup_status(), Kind.BACKUP_STATUS, status),
    ]
    machine.reset(
        9,
        [
            Stored(key, Key(kind, ()), record, 1, 1, index)
            for index, (key, kind, record) in enumerate(records)
            if record
        ],
    )
    return machine


def backup_at(at: datetime, cluster: str = "c1", revision: int = 1) -> Named:
    name = build_name(cluster, int(at.timestamp() * 1000), revision)
    named = parse_name(name)
    assert named is not None
    return named


# --- when ---


@pytest.mark.parametrize(
    ("settings", "status", "after_ms", "due", "wait_s"),
    [
        (None, None, 0, False, 600.0),
        (None, None, 600_000, True, 0.0),
        (BackupSettings(interval_s=60), None, 60_000, True, 0.0),
        (BackupSettings(enabled=False), None, 10 * HOUR_MS, False, None),
        (None, BackupStatus(last_success_at_ms=BORN_MS + HOUR_MS), HOUR_MS + 1, False, 3599.999),
        (None, BackupStatus(last_success_at_ms=BORN_MS + HOUR_MS), 2 * HOUR_MS, True, 0.0),
        (None, BackupStatus(last_failure_at_ms=BORN_MS, failures_in_a_row=1), 59_000, False, 1.0),
        (None, BackupStatus(last_failure_at_ms=BORN_MS, failures_in_a_row=3), 239_000, False, 1.0),
        (None, BackupStatus(last_failure_at_ms=BORN_MS, failures_in_a_row=99), HOUR_MS, True, 0.0),
        (None, BackupStatus(last_success_at_ms=BORN_MS + 99 * HOUR_MS), 0, True, 0.0),
    ],
    ids=[
        "new", "first", "first of a short interval", "off", "just made", "an interval later", "failed once",
        "failed three times", "failed often", "the clock was put back",
    ],
)  # fmt: skip
def test_when_the_next_is_due(
    settings: BackupSettings | None, status: BackupStatus | None, after_ms: int, due: bool, wait_s: float | None
) -> None:
    decision = plan_backup(state_of(settings, status), BORN_MS + after_ms)
    assert (decision.due, decision.wait_s) == (due, wait_s)
    assert decision.reason


def test_a_cluster_without_a_name_waits() -> None:
    assert plan_backup(StateMachine(), BORN_MS).due is False


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (BackupSettings(interval_s=1), "settings.interval_s"),
        (BackupSettings(keep_last=-1), "settings.keep_last"),
        (BackupSettings(keep_last=0, keep_daily=0, keep_weekly=0), "settings.keep_last"),
        (BackupSettings(target="relative/path"), "settings.target"),
        (BackupSettings(target="s3://"), "settings.target"),
    ],
)
def test_faults_of_settings_are_named(settings: BackupSettings, field: str) -> None:
    assert [problem.field for problem in check_settings(settings)] == [field]


def test_the_defaults_are_without_fault() -> None:
    assert check_settings(BackupSettings()) == []


# --- which ---


def test_last_daily_and_weekly_each_keep_their_own() -> None:
    hourly = [backup_at(DAY - timedelta(hours=hours)) for hours in range(24 * 60)]
    doomed = set(plan_prune(hourly, Keep(last=3, daily=4, weekly=5)))
    kept = [backup for backup in hourly if backup.name not in doomed]
    said = [datetime.fromtimestamp(backup.created_at_ms / 1000, UTC).strftime("%m-%d %H") for backup in kept]
    assert said == [
        "03-02 12", "03-02 11", "03-02 10", "03-01 23", "02-28 23", "02-27 23", "02-22 23", "02-15 23", "02-08 23",
    ]  # fmt: skip


def test_gaps_cost_nothing() -> None:
    months = [backup_at(DAY - timedelta(days=40 * number)) for number in range(4)]
    assert plan_prune(months, Keep(last=1, daily=2, weekly=3)) == (months[3].name,)


@given(
    hours=st.lists(st.integers(0, 5_000), max_size=60),
    clusters=st.lists(st.sampled_from(["c1", "c2"]), min_size=60, max_size=60),
    keep=st.builds(Keep, last=st.integers(0, 9), daily=st.integers(0, 9), weekly=st.integers(0, 9)),
)
def test_pruning_leaves_the_newest_and_is_done_once(hours: list[int], clusters: list[str], keep: Keep) -> None:
    made = [
        backup_at(DAY - timedelta(hours=hour), cluster, revision)
        for revision, (hour, cluster) in enumerate(zip(hours, clusters, strict=False))
    ]
    doomed = set(plan_prune(made, keep))
    left = [backup for backup in made if backup.name not in doomed]
    assert plan_prune(left, keep) == ()
    for cluster in {backup.cluster for backup in made}:
        own = [backup for backup in made if backup.cluster == cluster]
        held = [backup for backup in left if backup.cluster == cluster]
        assert max(own, key=lambda backup: backup.created_at_ms).created_at_ms in {b.created_at_ms for b in held}
        assert min(len(own), keep.last) <= len(held) <= max(1, keep.last) + keep.daily + keep.weekly


@given(st.text(max_size=12), st.integers(0, 4_000_000_000_000), st.integers(0, 2**63 - 1))
def test_names_say_what_they_were_made_of(cluster_id: str, at_ms: int, revision: int) -> None:
    named = parse_name(build_name(cluster_id, at_ms, revision))
    assert named is not None
    assert (named.created_at_ms, named.revision) == (at_ms // 1000 * 1000, revision)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x.backup",
        ".hidden",
        "../cloudless-c1-20260101T000000Z-r1.backup",
        "cloudless-c1-20261399T000000Z-r1.backup",
        "cloudless-c1-20260101T000000Z-r1.backup.tmp",
    ],
)
def test_other_names_are_nobodys(name: str) -> None:
    assert parse_name(name) is None


# --- who ---

OWN = Survivor(5, 100, "c1")
THREE = ("c1", "c2", "c3")


def other(node_id: str = "c2", **said: object) -> Neighbour:
    return Neighbour(node_id=node_id, address=f"{node_id}:8080", **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("voters", "neighbours", "refusal", "insistable"),
    [
        (THREE, [], "", False),
        (THREE, [other(), other("c3")], "", False),
        (THREE, [other(has_leader=True)], "has a leader", False),
        (THREE, [other(supersedes=True, has_leader=True)], "rebuilt from this cluster already", False),
        (THREE, [other(has_data=True, survivor=Survivor(5, 101, "c2"))], "log of c2", True),
        (THREE, [other(has_data=True, survivor=Survivor(6, 3, "c2"))], "log of c2", True),
        (THREE, [other(has_data=True, survivor=Survivor(5, 100, "c2"))], "a majority", True),
        (("c1", "c2", "c3", "c4", "c5"), [other(has_data=True, survivor=Survivor(5, 99, "c2"))], "", False),
        (("c1",), [], "", False),
        (THREE, [other("stranger", has_data=True)], "", False),
    ],
)
def test_whether_a_survivor_may_be_rebuilt(
    voters: tuple[str, ...], neighbours: list[Neighbour], refusal: str, insistable: bool
) -> None:
    outlook = judge_recovery(OWN, voters, neighbours)
    assert refusal in outlook.refusal
    assert bool(outlook.refusal) is bool(refusal)
    assert outlook.insistable is insistable
    assert bool(outlook.hint) is bool(refusal)


def test_survivors_are_ranked_as_raft_would() -> None:
    ranked = [Survivor(5, 100, "a"), Survivor(6, 2, "c"), Survivor(6, 2, "b"), Survivor(4, 999, "d")]
    assert best_of(ranked) == Survivor(6, 2, "b")
    assert best_of([]) is None
