"""The leader's next step for the members of the etcd cluster.

Decides, from the member list and what is known of each coordinator, at most one step: promote a learner
that may have caught up, or move etcd's own leader off the coordinator leader's host, so that one host's
death does not cost both elections. Removing and replacing happen on request only (see `formation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member. `name` is its coordinator's id, empty until it has started; `linked`: that coordinator answers us."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    learner: bool
    started: bool
    linked: bool = False


class MembershipStep(Enum):
    WAIT = "wait"
    PROMOTE = "promote"
    MOVE_LEADER = "move-leader"


@dataclass(frozen=True, slots=True)
class MembershipDecision:
    """`member_id` is the learner to promote or the voter to lead; `reason` says why, or what is waited for."""

    step: MembershipStep
    member_id: int = 0
    reason: str = ""


def plan_membership(
    members: Sequence[MemberView], *, own_member_id: int, raft_leader_id: int, resting: frozenset[int] = frozenset()
) -> MembershipDecision:
    """Return the one next step; `resting` are members that did not take etcd's leadership lately."""
    if raft_leader_id == own_member_id:
        others = [m for m in members if m.id != own_member_id and not m.learner and m.started and m.linked]
        others = [m for m in others if m.id not in resting]
        if others:
            target = min(others, key=lambda member: member.id)
            return MembershipDecision(
                MembershipStep.MOVE_LEADER, target.id, f"etcd's leader goes to {target.name}, off the leader's host"
            )
    for member in sorted(members, key=lambda member: member.id):
        if member.learner and member.started:
            return MembershipDecision(MembershipStep.PROMOTE, member.id, f"learner {member.name} has started")
    waiting = [member for member in members if member.learner]
    return MembershipDecision(MembershipStep.WAIT, reason="a learner has not started yet" if waiting else "")


def check_removal(members: Sequence[MemberView], member_id: int) -> str:
    """Return why removing `member_id` would endanger the quorum, "" if it would not.

    What remains must have a majority of started voters whose coordinators answer.
    """
    remaining = [member for member in members if member.id != member_id and not member.learner]
    healthy = [member for member in remaining if member.started and member.linked]
    if not remaining:
        return "it is the last voter"
    if len(healthy) < len(remaining) // 2 + 1:
        return f"of the {len(remaining)} voters that would remain, only {len(healthy)} answer"
    return ""
