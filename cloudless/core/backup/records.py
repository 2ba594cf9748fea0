"""What the state holds about backups: the schedule people gave, and how the last ones went."""

from __future__ import annotations

from cloudless.core.keys import Kind
from cloudless.core.model import BackupSettings, BackupStatus
from cloudless.core.state import View


def find_settings(view: View) -> BackupSettings | None:
    """Return the schedule, None if nobody has set one."""
    record = next((entry.record for entry in view.held(Kind.BACKUP_SETTINGS).values()), None)
    return record if isinstance(record, BackupSettings) else None


def settings_of(view: View) -> BackupSettings:
    """Return the schedule, the defaults if nobody has set one."""
    return find_settings(view) or BackupSettings()


def find_status(view: View) -> BackupStatus | None:
    """Return how the last backups went, None before the first."""
    record = next((entry.record for entry in view.held(Kind.BACKUP_STATUS).values()), None)
    return record if isinstance(record, BackupStatus) else None


def status_of(view: View) -> BackupStatus:
    """Return how the last backups went, empty before the first."""
    return find_status(view) or BackupStatus()
