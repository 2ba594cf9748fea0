"""Time spans as people read them: two units, the larger first."""

from __future__ import annotations

_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


def format_span(seconds: float) -> str:
    """Return `45s`, `3m12s`, `5h03m`, `2d4h`; below ten seconds with one decimal; "-" for a negative span."""
    if seconds < 0:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for size, unit, lesser, lesser_unit in _UNITS:
        if whole >= size:
            rest = whole % size // lesser
            # Days and hours stand alone often enough; minutes keep two digits so that columns stay readable.
            return f"{whole // size}{unit}" + (f"{rest}{lesser_unit}" if unit == "d" else f"{rest:02d}{lesser_unit}")
    return f"{whole}s"


def format_age(at_ms: int, now_ms: int) -> str:
    """Return the age of something that happened at `at_ms`; "-" if that is not known."""
    return format_span(max(0, now_ms - at_ms) / 1000).replace(".0s", "s") if at_ms else "-"
