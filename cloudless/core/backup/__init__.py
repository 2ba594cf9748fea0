"""Backups as values: what one says of itself, when the next is due, which ones may go.

`manifest` is what a backup's file begins with, `naming` its name, `retention` which are kept, `schedule` when.
"""

from cloudless.core.backup.manifest import FORMAT, IDENTITY, STATE, BackupMember, Manifest, Part, parse_manifest
from cloudless.core.backup.naming import Named, build_name, parse_name
from cloudless.core.backup.records import find_settings, find_status, settings_of, status_of
from cloudless.core.backup.retention import Keep, plan_prune
from cloudless.core.backup.schedule import BackupDecision, check_settings, describe_trouble, plan_backup

__all__ = [
    "FORMAT",
    "IDENTITY",
    "STATE",
    "BackupDecision",
    "BackupMember",
    "Keep",
    "Manifest",
    "Named",
    "Part",
    "build_name",
    "check_settings",
    "describe_trouble",
    "find_settings",
    "find_status",
    "parse_manifest",
    "parse_name",
    "plan_backup",
    "plan_prune",
    "settings_of",
    "status_of",
]
