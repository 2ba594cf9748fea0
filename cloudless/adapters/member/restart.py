"""Decide how long to wait before a member that ended is started again. Pure.

Doubling from 0.1 s up to 10 s, so that a member that cannot start costs next to nothing; half of each wait is
random, so that members felled by one cause do not come back in step. A member that stayed up for 30 s starts afresh.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    first_s: float = 0.1
    max_s: float = 10.0
    # A run at least this long was a success: the next failure is the first again.
    stable_s: float = 30.0


def count_failures(policy: RestartPolicy, failures: int, ran_s: float) -> int:
    """Return the number of failures in a row, this end included."""
    return 1 if ran_s >= policy.stable_s else failures + 1


def restart_delay_s(policy: RestartPolicy, failures: int, chance: float) -> float:
    """Return the wait after `failures` (>= 1) ends in a row; `chance` in [0, 1) picks from its upper half."""
    # The exponent is bounded: a member may fail for weeks, and 2.0**1024 overflows.
    full = min(policy.max_s, policy.first_s * 2.0 ** min(failures - 1, 30))
    return full * (0.5 + 0.5 * chance)
