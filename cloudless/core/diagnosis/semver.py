"""Versions as numbers that compare. Only major, minor and patch decide anything here; what follows is ignored."""

from __future__ import annotations

import re

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return (major, minor, patch), None if there is no version at the start of `text`."""
    match = _VERSION.match(text.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
