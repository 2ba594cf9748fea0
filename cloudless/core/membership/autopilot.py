"""What an operator may set of the autopilot: its bounds, and every fault of a wish at once."""

from __future__ import annotations

from cloudless.core.model import AutopilotRecord
from cloudless.errors import Problem

VOTERS_MOST = 7
"""etcd's own advice: more voters make every write slower and are of no further use."""

# field                 least   most
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("dead_after_s", 5, 30 * 86_400),
    ("stabilization_s", 0, 3_600),
    ("min_quorum", 1, VOTERS_MOST),
    ("learner_stall_s", 10, 86_400),
    ("catch_up_lag_max", 1, 1_000_000),
    ("catch_up_stable_s", 0, 3_600),
    ("voters_max", 1, VOTERS_MOST),
)


def check_autopilot(record: AutopilotRecord) -> list[Problem]:
    """Return every fault of the settings, by field; none if they can be followed."""
    problems = []
    for field, least, most in _BOUNDS:
        value = getattr(record, field)
        if not least <= value <= most:  # also refuses NaN
            problems.append(Problem(field, f"must be from {least:g} to {most:g}, not {value:g}"))
    if not problems and record.min_quorum > record.voters_max:
        problems.append(Problem("min_quorum", f"must not be more than voters_max ({record.voters_max})"))
    return problems
