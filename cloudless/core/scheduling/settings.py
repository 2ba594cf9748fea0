"""What operators may set of the scheduler, and every fault of a wish at once."""

from __future__ import annotations

from cloudless.core.keys import Kind
from cloudless.core.model import SchedulerRecord
from cloudless.core.state.view import View
from cloudless.errors import Problem

WEIGHTS = ("pack", "balance", "affinity", "locality", "reliability", "cost", "network")
SCHEDULER_WEIGHT_MAX = 1_000
REBALANCE_AFTER_S = (5, 86_400)
"""From and to; an agent that is reachable again has not said before how its tasks are (`orchestration.reconcile`)."""


def scheduler_of(view: View) -> SchedulerRecord:
    """Return what operators want of the scheduler; the defaults if they said nothing."""
    record = next((entry.record for entry in view.held(Kind.SCHEDULER).values()), None)
    return record if isinstance(record, SchedulerRecord) else SchedulerRecord()


def check_scheduler(record: SchedulerRecord) -> list[Problem]:
    """Return every fault of the settings, by field; none if they can be followed."""
    problems = [
        Problem(field, f"must be from 0 to {SCHEDULER_WEIGHT_MAX}, not {getattr(record, field)}")
        for field in WEIGHTS
        if not 0 <= getattr(record, field) <= SCHEDULER_WEIGHT_MAX
    ]
    if not problems and record.pack and record.balance:
        problems.append(Problem("balance", "pulls against pack; set one of them to 0"))
    least_s, most_s = REBALANCE_AFTER_S
    if record.rebalance_after_s and not least_s <= record.rebalance_after_s <= most_s:
        allowed = f"must be 0 (never) or from {least_s} to {most_s} seconds"
        problems.append(Problem("rebalance_after_s", f"{allowed}, not {record.rebalance_after_s}"))
    return problems
