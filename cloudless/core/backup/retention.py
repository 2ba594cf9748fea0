"""Which backups may be deleted: so many of the newest stay, and the newest of so many days and of so many weeks.

Only days and weeks that have a backup count, so a cluster that was off for a month loses nothing by it. Days and
weeks are UTC's. The newest backup always stays, whatever the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cloudless.core.backup.naming import Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How many of each to keep; 0 is none by that rule."""

    last: int = 12
    daily: int = 7
    weekly: int = 4


def plan_prune(backups: Iterable[Named], keep: Keep) -> tuple[str, ...]:
    """Return the names to delete, oldest first. Backups of several clusters are judged cluster by cluster."""
    by_cluster: dict[str, list[Named]] = {}
    for backup in backups:
        by_cluster.setdefault(backup.cluster, []).append(backup)
    doomed = [backup for group in by_cluster.values() for backup in _doomed(group, keep)]
    return tuple(backup.name for backup in sorted(doomed, key=lambda backup: (backup.created_at_ms, backup.name)))


def _doomed(group: list[Named], keep: Keep) -> list[Named]:
    newest_first = sorted(group, key=lambda backup: (backup.created_at_ms, backup.revision, backup.name), reverse=True)
    kept = {backup.name for backup in newest_first[: max(1, keep.last)]}
    kept |= _first_of_each(newest_first, "%Y-%j", keep.daily)
    kept |= _first_of_each(newest_first, "%G-%V", keep.weekly)
    return [backup for backup in newest_first if backup.name not in kept]


def _first_of_each(newest_first: Sequence[Named], period: str, count: int) -> set[str]:
    """Return the newest of each of the last `count` periods that have one."""
    newest: dict[str, str] = {}
    for backup in newest_first:
        at = datetime.fromtimestamp(backup.created_at_ms / 1000, UTC)
        newest.setdefault(at.strftime(period), backup.name)
    return set(list(newest.values())[:count])
