"""When the leader makes the next backup: decided from the replicated status, so it survives every change of leader.

    enabled   ever made   last try failed   due
    ────────  ──────────  ────────────────  ──────────────────────────────────────────────────────────
    no        –           –                 never
    yes       no          no                ten minutes after the cluster began, or an interval if that is shorter
    yes       yes         no                one interval after the last
    yes       –           yes               after a pause that doubles with each failure, up to the interval

Times are of the wall clock, because leaders follow each other. A last time that lies further ahead than an interval
is a clock put back: it counts as long ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.backup.records import find_status, settings_of, status_of
from cloudless.core.model import BackupSettings, BackupStatus
from cloudless.core.state import View
from cloudless.errors import Problem

FIRST_AFTER_S = 600
RETRY_PAUSE_S = 60
INTERVAL_MIN_S = 10
INTERVAL_MAX_S = 31 * 24 * 3600
KEEP_MAX = 10_000
TROUBLE_FAILURES = 2
LATE_INTERVALS = 3


@dataclass(frozen=True, slots=True)
class BackupDecision:
    """`due`: make one now. Otherwise `wait_s` until that has to be asked again (None: not before settings change)."""

    due: bool
    wait_s: float | None
    reason: str


def plan_backup(view: View, now_ms: int) -> BackupDecision:
    """Return whether a backup is due at `now_ms`, or how long until one is."""
    settings, status = settings_of(view), status_of(view)
    if not settings.enabled:
        return BackupDecision(False, None, "scheduled backups are switched off")
    if view.cluster is None:
        return BackupDecision(False, 1.0, "the cluster has no name yet")
    due_at_ms, reason = _due(settings, status, view.cluster.created_at_ms)
    if due_at_ms - now_ms > settings.interval_s * 1000:
        return BackupDecision(True, 0.0, "the clock was put back since the last one")
    if now_ms >= due_at_ms:
        return BackupDecision(True, 0.0, reason)
    return BackupDecision(False, (due_at_ms - now_ms) / 1000, reason)


def _due(settings: BackupSettings, status: BackupStatus, created_at_ms: int) -> tuple[int, str]:
    if status.failures_in_a_row:
        pause_s = min(RETRY_PAUSE_S * 2 ** min(status.failures_in_a_row - 1, 20), settings.interval_s)
        return status.last_failure_at_ms + pause_s * 1000, f"the last try failed: {status.last_error}"
    if status.last_success_at_ms:
        return status.last_success_at_ms + settings.interval_s * 1000, "the interval since the last one"
    return created_at_ms + min(FIRST_AFTER_S, settings.interval_s) * 1000, "there is none yet"


def describe_trouble(view: View, now_ms: int) -> str:
    """Return what a person should know of the scheduled backups, "" if all is well: one failure may happen."""
    settings, status = settings_of(view), find_status(view)
    if status is None or not settings.enabled:
        return ""
    if status.failures_in_a_row >= TROUBLE_FAILURES:
        return f"the last {status.failures_in_a_row} scheduled backups failed: {status.last_error}"
    late_ms = now_ms - status.last_success_at_ms - LATE_INTERVALS * settings.interval_s * 1000
    if status.last_success_at_ms and late_ms > 0:
        return f"the last backup is {round((now_ms - status.last_success_at_ms) / 3_600_000, 1)} hours old"
    return ""


def check_settings(settings: BackupSettings) -> list[Problem]:
    """Return every fault of settings that a person gave."""
    problems = []
    if not INTERVAL_MIN_S <= settings.interval_s <= INTERVAL_MAX_S:
        problems.append(Problem("settings.interval_s", f"must be from {INTERVAL_MIN_S} to {INTERVAL_MAX_S} seconds"))
    for name in ("keep_last", "keep_daily", "keep_weekly"):
        if not 0 <= getattr(settings, name) <= KEEP_MAX:
            problems.append(Problem(f"settings.{name}", f"must be from 0 to {KEEP_MAX}"))
    if settings.keep_last + settings.keep_daily + settings.keep_weekly == 0:
        problems.append(Problem("settings.keep_last", "at least one of the keep numbers must be more than 0"))
    if settings.target and not settings.target.startswith(("/", "s3://")):
        problems.append(Problem("settings.target", "must be an absolute path or s3://bucket/prefix, or be left empty"))
    elif settings.target.startswith("s3://") and not settings.target.removeprefix("s3://").partition("/")[0]:
        problems.append(Problem("settings.target", "names no bucket"))
    return problems
