"""The leader's next step for the members of the etcd cluster.

`plan_membership` looks at the members, at those who ask to join, at those given up, and at how long things have been
so; it returns at most one step, and for everything that is not done now the reason. Rules, in the order in which
their steps go first:

1. etcd's own leader is moved off the coordinator leader's host, so that one host's death does not cost both elections.
2. Requests that are fulfilled, or whose author no longer answers, are forgotten.
3. A learner is promoted when it has kept up for a while and the number of voters becomes odd by it, or will by the
   next one that waits; one that makes no headway gives way. Never more voters than allowed.
4. A dead voter is removed when a replacement is there, or when without the dead the cluster survives more losses than
   with them; never below a quorum of healthy ones, nor below `min_quorum` without a replacement.
5. The first in the queue becomes a learner, one at a time; one that comes back without its data takes its own place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cloudless.core.membership.chronicle import Chronicle
from cloudless.core.membership.observed import JoinView, MemberView, Observed
from cloudless.core.membership.quorum import check_removal, spare_of
from cloudless.core.membership.replacement import Newcomer, ReplacementStep, find_newcomer, next_step
from cloudless.core.model import AutopilotRecord, AutopilotWait

UNSTARTED_LEARNER_MAX_S = 60.0
JOIN_SILENT_MAX_S = 60.0


class MembershipStep(Enum):
    WAIT = "wait"
    MOVE_LEADER = "move-leader"
    FORGET_JOIN = "forget-join"
    FORGET_REPLACEMENT = "forget-replacement"
    PROMOTE = "promote"
    DROP_LEARNER = "drop-learner"
    REMOVE = "remove"
    ADD_LEARNER = "add-learner"


@dataclass(frozen=True, slots=True)
class MembershipDecision:
    """`member_id` is the member it is about, `node_id` the coordinator; `reason` says why, in words.

    `waits`: what else is not done now, and why.
    """

    step: MembershipStep
    member_id: int = 0
    node_id: str = ""
    reason: str = ""
    waits: tuple[AutopilotWait, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """What all rules look at."""

    seen: Observed
    wanted: AutopilotRecord
    past: Chronicle

    @property
    def queue(self) -> list[JoinView]:
        """Those who wait and can be asked: first who has a place waiting for it, then in the order in which they came.

        A place of its own (it comes back without its data), or that of one given up for it by name.
        """
        awaited = {replacement.new_id for replacement in self.seen.replacements}
        waiting = [join for join in self.seen.joins if join.answers and not self.seen.is_admitted(join)]

        def order(join: JoinView) -> tuple[bool, int, str]:
            has_place = join.node_id in awaited or self.seen.holder_of(join) is not None
            return not has_place, join.asked_revision, join.node_id

        return sorted(waiting, key=order)

    @property
    def newcomers(self) -> list[JoinView]:
        """Those in the queue that would be one voter more."""
        return [join for join in self.queue if self.seen.holder_of(join) is None]

    def in_sync_s(self, member: MemberView) -> float | None:
        past = self.past.members.get(member.id)
        return None if past is None or past.in_sync_since_s is None else self.past.looked_s - past.in_sync_since_s

    def is_ready(self, member: MemberView) -> bool:
        in_sync_s = self.in_sync_s(member)
        return member.started and in_sync_s is not None and in_sync_s >= self.wanted.catch_up_stable_s


_Rule = Callable[[_Case], list[MembershipDecision]]


def plan_membership(observed: Observed, wanted: AutopilotRecord, past: Chronicle) -> MembershipDecision:
    """Return the one next step, with the reasons for all that waits. `past` has this look folded in already."""
    case = _Case(observed, wanted, past)
    found = [decision for rule in _RULES for decision in rule(case)]
    waits = tuple(AutopilotWait(d.node_id, d.reason) for d in found if d.step is MembershipStep.WAIT)
    step = next((d for d in found if d.step is not MembershipStep.WAIT), MembershipDecision(MembershipStep.WAIT))
    return MembershipDecision(step.step, step.member_id, step.node_id, step.reason, waits)


def _wait(about: str, reason: str) -> MembershipDecision:
    return MembershipDecision(MembershipStep.WAIT, node_id=about, reason=reason)


# --- 1. etcd's leader ---


def _move_leader(case: _Case) -> list[MembershipDecision]:
    seen = case.seen
    if not seen.own_member_id or seen.raft_leader_id != seen.own_member_id:
        return []
    others = [m for m in seen.voters if m.id != seen.own_member_id and m.started and m.linked]
    target = next((m for m in others if m.id not in seen.resting), None)
    if target is None:
        return []
    reason = f"etcd's leader goes to {target.name}, off the leader's host"
    return [MembershipDecision(MembershipStep.MOVE_LEADER, target.id, target.name, reason)]


# --- 2. requests that are done with ---


def _forget(case: _Case) -> list[MembershipDecision]:
    seen, found = case.seen, []
    voting = {member.name for member in seen.voters if member.alive}
    voting_ids = {member.id for member in seen.voters}
    for join in seen.joins:
        silent_s = case.past.looked_s - case.past.joins.get(join.node_id, case.past.looked_s)
        if join.node_id in voting or join.member_id in voting_ids:
            found.append(_forget_join(join, "it votes"))
        elif silent_s > JOIN_SILENT_MAX_S and not seen.is_admitted(join):
            found.append(_forget_join(join, f"it has not answered at {join.api_address} for {silent_s:.0f} s"))
        elif not join.answers and not seen.is_admitted(join):
            found.append(_wait(join.node_id, f"asked to join, but does not answer at {join.api_address}"))
    for replacement in seen.replacements:
        if next_step(seen, replacement) is ReplacementStep.DONE:
            step, reason = MembershipStep.FORGET_REPLACEMENT, f"{replacement.node_id} is replaced"
            found.append(MembershipDecision(step, replacement.member_id, replacement.node_id, reason))
        elif next_step(seen, replacement) is ReplacementStep.AWAIT_NEWCOMER:
            who = replacement.new_id or "a new coordinator"
            found.append(_wait(replacement.node_id, f"to be replaced: waits for {who} to ask to join"))
    return found


def _forget_join(join: JoinView, reason: str) -> MembershipDecision:
    return MembershipDecision(MembershipStep.FORGET_JOIN, node_id=join.node_id, reason=reason)


# --- 3. learners ---


def _settle_learners(case: _Case) -> list[MembershipDecision]:
    return [_settle_learner(case, learner) for learner in case.seen.learners]


def _settle_learner(case: _Case, learner: MemberView) -> MembershipDecision:
    about, past = _about(case, learner), case.past.members.get(learner.id)
    age_s = case.past.looked_s - past.since_s if past else 0.0
    stuck_s = case.past.looked_s - past.advanced_s if past else 0.0
    if not learner.started:
        if age_s > min(UNSTARTED_LEARNER_MAX_S, case.wanted.learner_stall_s):
            return MembershipDecision(MembershipStep.DROP_LEARNER, learner.id, about, "it was added and never started")
        return _wait(about, "was added as a learner and has not started yet")
    if case.is_ready(learner):
        hindrance = _find_hindrance(case)
        if hindrance:
            return _wait(about, f"stays a learner, ready to vote: {hindrance}")
        return MembershipDecision(MembershipStep.PROMOTE, learner.id, about, "it has caught up")
    if stuck_s > case.wanted.learner_stall_s:
        if case.queue:
            reason = f"it has made no headway for {case.wanted.learner_stall_s:g} s, and others wait"
            return MembershipDecision(MembershipStep.DROP_LEARNER, learner.id, about, reason)
        return _wait(about, "makes no headway as a learner; it gives way as soon as another asks to join")
    if not learner.raft_index:
        return _wait(about, "is a learner that does not tell how far it has got")
    if case.in_sync_s(learner) is None:
        return _wait(about, "is a learner that catches up")
    return _wait(about, "has caught up; it votes when it has kept up for a while")


def _find_hindrance(case: _Case) -> str:
    """Return why one more voter is not wanted now, "" if it is."""
    voters, wanted = len(case.seen.voters), case.wanted
    if voters >= wanted.voters_max:
        return f"there are {voters} voters, the most allowed"
    if wanted.even_voters or (voters + 1) % 2 == 1:
        return ""
    if not case.newcomers or voters + 2 > wanted.voters_max:
        return (
            f"{voters + 1} voters survive no more losses than {voters}; it votes when one more coordinator asks to join"
        )
    ill = [member.label for member in case.seen.voters if not member.healthy]
    return f"first {', '.join(ill)} must be well again, or gone" if ill else ""


def _about(case: _Case, learner: MemberView) -> str:
    """Return whom a learner belongs to, from the queue while it has no name of its own."""
    owner = next((join.node_id for join in case.seen.joins if case.seen.holder_of(join) == learner), "")
    return learner.name or owner or learner.label


# --- 4. dead voters ---


def _remove_dead(case: _Case) -> list[MembershipDecision]:
    given_up = {replacement.member_id: replacement for replacement in case.seen.replacements}
    found = []
    for voter in case.seen.voters:
        if voter.id == case.seen.own_member_id:
            continue
        replacement = given_up.get(voter.id)
        if replacement is not None:
            there = find_newcomer(case.seen, replacement) is not Newcomer.AWAY
            hindrance = "it answers again" if voter.alive else ("" if there else None)
            reason = f"it was given up, and {replacement.new_id or 'a newcomer'} is there"
        elif not voter.alive:
            hindrance = _why_kept(case, voter)
            reason = f"dead for more than {case.wanted.dead_after_s:g} s"
        else:
            continue
        hindrance = hindrance if hindrance != "" else check_removal(case.seen.members, voter.id)
        if hindrance:
            found.append(_wait(voter.label, f"is not removed: {hindrance}"))
        elif hindrance is not None:
            found.append(MembershipDecision(MembershipStep.REMOVE, voter.id, voter.label, reason))
    return found


def _why_kept(case: _Case, voter: MemberView) -> str:
    """Return why a dead voter is not removed by itself, "" if it may be."""
    wanted, voters = case.wanted, case.seen.voters
    if not wanted.cleanup_dead_voters:
        return "the cleanup of dead voters is switched off"
    if case.past.silent_s(voter.id) < wanted.dead_after_s:
        return f"it has not answered, but not for {wanted.dead_after_s:g} s yet"
    if case.past.stable_s() < wanted.stabilization_s:
        return f"the voters changed less than {wanted.stabilization_s:g} s ago"
    replaced = any(case.is_ready(learner) for learner in case.seen.learners) or (
        bool(case.newcomers) and not case.seen.learners
    )
    # With a replacement there are as many as before; kept, the dead one would keep it out: etcd admits nobody then.
    if not replaced and len(voters) - 1 < wanted.min_quorum:
        return f"{len(voters) - 1} voters would be left, fewer than {wanted.min_quorum}, and no other coordinator waits"
    healthy, dead = sum(m.healthy for m in voters), sum(not m.alive for m in voters)
    if replaced or spare_of(healthy, len(voters) - dead) > spare_of(healthy, len(voters)):
        return ""
    return "without it the cluster survives no more losses than with it, and it may come back"


# --- 5. the queue ---


def _admit(case: _Case) -> list[MembershipDecision]:
    queue = case.queue
    if not queue:
        return []
    first, *rest = queue
    found = [_admit_first(case, first)]
    for place, join in enumerate(rest, start=2):
        found.append(_wait(join.node_id, f"is number {place} in the queue of those who join, after {first.node_id}"))
    return found


def _admit_first(case: _Case, join: JoinView) -> MembershipDecision:
    holder = case.seen.holder_of(join)
    if holder is not None:
        if holder.linked or holder.registered:
            return _wait(join.node_id, f"{holder.label} still lives in the place that it asks for")
        danger = check_removal(case.seen.members, holder.id)
        if danger:
            return _wait(join.node_id, f"its old member cannot be removed: {danger}")
        return MembershipDecision(
            MembershipStep.REMOVE, holder.id, holder.label, f"{join.node_id} comes back without its data"
        )
    if case.seen.learners:
        learner = case.seen.learners[0]
        reason = f"waits: one learner at a time, and {_about(case, learner)} is one now"
        return _wait(join.node_id, reason)
    return MembershipDecision(MembershipStep.ADD_LEARNER, node_id=join.node_id, reason="it asked to join")


_RULES: tuple[_Rule, ...] = (_move_leader, _forget, _settle_learners, _remove_dead, _admit)
