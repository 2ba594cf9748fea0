"""Was every answer a cluster gave one that a single, never failing machine could have given?

`records` is what is known (what clients saw, what the store's own history holds), `checker` the judgement. Pure.
"""

from cloudless.testing.history.checker import check_history
from cloudless.testing.history.records import (
    Action,
    Consistency,
    Fault,
    History,
    LeaderWrite,
    LogEvent,
    Operation,
    Outcome,
    Violation,
)

__all__ = [
    "Action",
    "Consistency",
    "Fault",
    "History",
    "LeaderWrite",
    "LogEvent",
    "Operation",
    "Outcome",
    "Violation",
    "check_history",
]
