"""How many losses a set of voters survives, and which removals would put its quorum at risk.

::

    voters    1  2  3  4  5  6  7
    quorum    1  2  2  3  3  4  4
    spare     0  0  1  1  2  2  3      losses survived while all are healthy

An even number survives no more than the odd one below it and can lose its quorum in more ways; that is why a voter
too many stays a learner, and a dead one may be better gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudless.core.membership.observed import MemberView


def quorum_of(voters: int) -> int:
    return voters // 2 + 1


def spare_of(healthy: int, voters: int) -> int:
    """Return how many further losses are survived; negative without a quorum."""
    return healthy - quorum_of(voters)


def check_removal(members: Sequence[MemberView], member_id: int) -> str:
    """Return why removing `member_id` would endanger the quorum, "" if it would not.

    What remains must have a majority of started voters whose coordinators answer.
    """
    remaining = [member for member in members if member.id != member_id and not member.learner]
    healthy = [member for member in remaining if member.healthy]
    if not remaining:
        return "it is the last voter"
    if spare_of(len(healthy), len(remaining)) < 0:
        return f"of the {len(remaining)} voters that would remain, only {len(healthy)} answer"
    return ""
