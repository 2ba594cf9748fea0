"""How long things have been as they are, on the leader's own monotonic clock.

`follow` folds each look into a `Chronicle`. A new leader begins with an empty one, so nothing counts that it has not
watched itself; so does a leader that did not look for a while (it was frozen): its sleep is nobody's death.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cloudless.core.membership.observed import MemberView, Observed

LOOK_GAP_MAX_S = 5.0
"""After a longer time without a look everything counts anew."""


@dataclass(frozen=True, slots=True)
class Past:
    """What was seen of one member. `in_sync_since_s` is None while it is not within the lag allowed."""

    since_s: float
    alive_s: float
    advanced_s: float
    raft_index: int = 0
    in_sync_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Chronicle:
    """`changed_s`: when the voters, or which of them are healthy, last changed. `joins`: when each last answered."""

    looked_s: float
    changed_s: float
    picture: tuple[tuple[int, bool], ...] = ()
    members: Mapping[int, Past] = field(default_factory=dict)
    joins: Mapping[str, float] = field(default_factory=dict)

    def silent_s(self, member_id: int) -> float:
        """Return the seconds since anything spoke for a member, 0 for one never looked at."""
        past = self.members.get(member_id)
        return self.looked_s - past.alive_s if past else 0.0

    def stable_s(self) -> float:
        return self.looked_s - self.changed_s


def begin(now_s: float) -> Chronicle:
    """Return the chronicle of a leader that has seen nothing yet."""
    return Chronicle(looked_s=now_s, changed_s=now_s)


def follow(chronicle: Chronicle, observed: Observed, lag_max: int, now_s: float) -> Chronicle:
    """Fold one look; a learner within `lag_max` raft entries of the leader is in sync."""
    if now_s - chronicle.looked_s > LOOK_GAP_MAX_S:
        chronicle = begin(now_s)
    picture = tuple((member.id, member.healthy) for member in observed.voters)
    return Chronicle(
        looked_s=now_s,
        changed_s=chronicle.changed_s if picture == chronicle.picture else now_s,
        picture=picture,
        members={m.id: _continue(chronicle.members.get(m.id), m, observed, lag_max, now_s) for m in observed.members},
        joins={
            join.node_id: now_s if join.answers else chronicle.joins.get(join.node_id, now_s) for join in observed.joins
        },
    )


def _continue(past: Past | None, member: MemberView, observed: Observed, lag_max: int, now_s: float) -> Past:
    past = past or Past(since_s=now_s, alive_s=now_s, advanced_s=now_s)
    in_sync = member.raft_index > 0 and observed.raft_index - member.raft_index <= lag_max
    return replace(
        past,
        alive_s=now_s if member.alive else past.alive_s,
        advanced_s=now_s if in_sync or member.raft_index > past.raft_index else past.advanced_s,
        raft_index=max(member.raft_index, past.raft_index),
        in_sync_since_s=(now_s if past.in_sync_since_s is None else past.in_sync_since_s) if in_sync else None,
    )
