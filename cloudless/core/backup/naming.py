"""The names of backups: sorted by name is sorted by time, and listing needs to open no file.

cloudless-<first 8 of the cluster's id>-<UTC time>-r<revision>.backup
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

SUFFIX = ".backup"
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"cloudless-([A-Za-z0-9]{1,8})-(\d{8}T\d{6}Z)-r(\d{1,19})\.backup")


@dataclass(frozen=True, slots=True)
class Named:
    """What a backup's name says."""

    name: str
    cluster: str
    created_at_ms: int
    revision: int


def build_name(cluster_id: str, created_at_ms: int, revision: int) -> str:
    """Return the name of a backup made at that moment."""
    cluster = re.sub(r"[^A-Za-z0-9]", "", cluster_id)[:8] or "unnamed"
    at = datetime.fromtimestamp(created_at_ms // 1000, UTC).strftime(_TIME)
    return f"cloudless-{cluster}-{at}-r{revision}{SUFFIX}"


def parse_name(name: str) -> Named | None:
    """Return what the name says, None if it is no backup's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        at = datetime.strptime(match[2], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Named(name, match[1], int(at.timestamp()) * 1000, int(match[3]))
