"""A coordinator that is gone for good is replaced in one order only, and every step follows from what is there.

::

    the dead one is     the newcomer     next
    ──────────────────  ───────────────  ───────────────────────────────────────────────────────────────
    still a member      away             wait for it: a dead voter that may come back beats none at all
    still a member      any other        remove the dead one; etcd admits nobody while a voter is away
    removed             away             wait for it
    removed             in the queue     add it as a learner, which does not vote
    removed             a learner        wait until it has caught up, then promote it
    removed             a voter          done

Nothing is remembered but who was given up and for whom: whoever comes after a crash, at whichever step, reads the same
row. The voters that are healthy are never fewer than before, and always a quorum.
"""

from __future__ import annotations

from enum import Enum

from cloudless.core.membership.observed import Observed, ReplacementView


class Newcomer(Enum):
    AWAY = "away"
    QUEUED = "queued"
    LEARNER = "learner"
    VOTER = "voter"


class ReplacementStep(Enum):
    AWAIT_NEWCOMER = "await-newcomer"
    REMOVE_DEAD = "remove-dead"
    ADD_LEARNER = "add-learner"
    AWAIT_CATCH_UP = "await-catch-up"
    DONE = "done"


_STEPS: dict[tuple[bool, Newcomer], ReplacementStep] = {
    (True, Newcomer.AWAY): ReplacementStep.AWAIT_NEWCOMER,
    (True, Newcomer.QUEUED): ReplacementStep.REMOVE_DEAD,
    (True, Newcomer.LEARNER): ReplacementStep.REMOVE_DEAD,
    (True, Newcomer.VOTER): ReplacementStep.REMOVE_DEAD,
    (False, Newcomer.AWAY): ReplacementStep.AWAIT_NEWCOMER,
    (False, Newcomer.QUEUED): ReplacementStep.ADD_LEARNER,
    (False, Newcomer.LEARNER): ReplacementStep.AWAIT_CATCH_UP,
    (False, Newcomer.VOTER): ReplacementStep.DONE,
}


def next_step(observed: Observed, replacement: ReplacementView) -> ReplacementStep:
    """Return what a replacement comes to next."""
    listed = any(member.id == replacement.member_id for member in observed.members)
    return _STEPS[listed, find_newcomer(observed, replacement)]


def find_newcomer(observed: Observed, replacement: ReplacementView) -> Newcomer:
    """Return how far the one has got that is to take the place; the farthest if it may be anybody."""
    voters = [m for m in observed.voters if m.id != replacement.member_id]
    if replacement.new_id:
        is_voter = any(m.name == replacement.new_id for m in voters)
    else:
        is_voter = len(voters) >= replacement.voters
    if is_voter:
        return Newcomer.VOTER
    asking = [join for join in observed.joins if join.answers and _fits(replacement, join.node_id)]
    if any(m.started and _fits(replacement, m.name) for m in observed.learners):
        return Newcomer.LEARNER
    if any(observed.is_admitted(join) for join in asking):
        return Newcomer.LEARNER
    return Newcomer.QUEUED if asking else Newcomer.AWAY


def _fits(replacement: ReplacementView, node_id: str) -> bool:
    return replacement.new_id in ("", node_id)
