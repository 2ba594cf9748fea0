"""What the cluster remembers of its own backups: how they are to be made, and how the last ones went."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings(Evolving):
    """How the leader makes backups by itself; written by people.

    `target` is where: "" for the directory `backups` in the leader's own data directory, an absolute path (the
    same one on every coordinator, best a shared file system), or `s3://bucket/prefix`. The keep numbers say what
    pruning leaves: so many of the newest, and the newest of so many days and weeks.
    """

    enabled: bool = True
    interval_s: int = 3600
    target: str = ""
    keep_last: int = 12
    keep_daily: int = 7
    keep_weekly: int = 4
    verify: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupStatus(Evolving):
    """How the leaders' backups went; written by the leader after each try. Times are 0 and texts "" until then."""

    last_success_at_ms: int = 0
    last_name: str = ""
    last_revision: int = 0
    last_size_bytes: int = 0
    last_took_ms: int = 0
    last_target: str = ""
    last_coordinator_id: str = ""
    verified: bool = False
    encrypted: bool = False
    last_failure_at_ms: int = 0
    last_error: str = ""
    failures_in_a_row: int = 0
