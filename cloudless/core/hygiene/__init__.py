"""Keeping the store small: what to do next, whether there is room for a write, and how long the room will last."""

from cloudless.core.hygiene.forecast import Sample, forecast_hours
from cloudless.core.hygiene.planner import HygieneDecision, HygieneStep, MemberSpace, Since, plan_hygiene
from cloudless.core.hygiene.room import find_shortage

__all__ = [
    "HygieneDecision",
    "HygieneStep",
    "MemberSpace",
    "Sample",
    "Since",
    "find_shortage",
    "forecast_hours",
    "plan_hygiene",
]
