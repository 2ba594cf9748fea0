"""The next step in keeping the store small: compact, defragment one member, or clear the space alarm.

    why                                            then
    ─────────────────────────────────────────────  ────────────────────────────────────────────────────────────
    a member that is not well                      wait: nothing here is worth a second member that pauses
    ordered, alarm NOSPACE, or much is in use      compact the history, once
    a file with enough free pages                  defragment: followers first, one at a time
    the raft leader's file                         hand raft leadership over first, then as any follower
    the file of the coordinator that decides       last, for it may have to leave office for that
    alarm NOSPACE and all files are small again    disarm it; never before, for etcd would raise it again

etcd's own periodic compaction goes on beneath this: it needs nobody. What is added is compaction before its time, when
a burst of writes fills the store faster than that, and defragmentation, which etcd never does by itself.

A member that is defragmented applies nothing meanwhile, and a raft leader's pause is everybody's. It pays only when a
good part of the file is free, and is not repeated before a rest: pages become free and are used again all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from cloudless.core.diagnosis.amounts import size
from cloudless.core.hygiene.room import TOO_MUCH_IN_USE

COMPACT_AT = 0.6
"""Share of the quota in use from which history is given up before its time."""
DEFRAGMENT_MIN_BYTES = 64 << 20
DEFRAGMENT_FREE = 0.5
DEFRAGMENT_REST_S = 3_600.0
PRESSED_AT = 0.7
PRESSED_FREE = 0.2
PRESSED_REST_S = 600.0
URGENT_AT = 0.9
"""Share of the quota, by the file's size, from which a lease may raise the alarm any time."""
URGENT_FREE = 0.05
URGENT_REST_S = 60.0
WORTH_BYTES = 256 << 10
"""Below that a file has nothing to give back, whoever asks."""
DISARM_BELOW = 0.9
COMPACT_REST_S = 60.0


class HygieneStep(Enum):
    REST = "rest"
    WAIT = "wait"
    COMPACT = "compact"
    MOVE_LEADER = "move-leader"
    DEFRAGMENT = "defragment"
    DISARM = "disarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSpace:
    """One member and its file. `ailing` is why it is not well, "" if it is; `safe` whether its etcd may be defragmented
    without being asked; `rested_s` since it was last defragmented."""

    member_id: int
    name: str
    size_bytes: int
    in_use_bytes: int
    quota_bytes: int
    raft_leader: bool = False
    learner: bool = False
    ailing: str = ""
    safe: bool = True
    rested_s: float = float("inf")

    @property
    def free_bytes(self) -> int:
        return max(0, self.size_bytes - self.in_use_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """What led here: whether a person ordered it, and how long ago the last compaction was."""

    ordered: bool = False
    compacted_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class HygieneDecision:
    """One step. `member_id`: whom it is about; of MOVE_LEADER, who is to lead. `reason`: why, or what is missing."""

    step: HygieneStep
    member_id: int = 0
    reason: str = ""


def plan_hygiene(
    members: Sequence[MemberSpace], since: Since, *, nospace: bool = False, own_member_id: int = 0
) -> HygieneDecision:
    """Return the one next step. `own_member_id`: the member that should not lead etcd if another can."""
    pressed = nospace or since.ordered or any(_in_use(member) >= COMPACT_AT for member in members)
    due = [member for member in members if _pays(member, since.ordered, nospace)]
    if not pressed and not due:
        return HygieneDecision(HygieneStep.REST)
    ailing = [member for member in members if member.ailing]
    if ailing:
        return HygieneDecision(HygieneStep.WAIT, ailing[0].member_id, f"{ailing[0].name} {ailing[0].ailing}")
    if pressed and since.compacted_s > COMPACT_REST_S:
        return HygieneDecision(HygieneStep.COMPACT, reason=_why(members, since, nospace))
    if due:
        return _next_to_defragment(due, members, own_member_id)
    if nospace:
        return _judge_alarm(members)
    return HygieneDecision(HygieneStep.REST)


def _in_use(member: MemberSpace) -> float:
    return member.in_use_bytes / member.quota_bytes if member.quota_bytes else 0.0


def _pays(member: MemberSpace, ordered: bool, nospace: bool) -> bool:
    """Whether defragmenting this member is worth its pause, and may be done unasked."""
    if member.free_bytes < WORTH_BYTES or not (member.safe or ordered):
        return False
    free = member.free_bytes / member.size_bytes
    fullness = member.size_bytes / member.quota_bytes if member.quota_bytes else 0.0
    if ordered or nospace or (fullness >= URGENT_AT and free >= URGENT_FREE):
        return member.rested_s > URGENT_REST_S
    if fullness >= PRESSED_AT:
        return free >= PRESSED_FREE and member.rested_s > PRESSED_REST_S
    large = member.size_bytes >= DEFRAGMENT_MIN_BYTES
    return large and free >= DEFRAGMENT_FREE and member.rested_s > DEFRAGMENT_REST_S


def _next_to_defragment(
    due: Sequence[MemberSpace], members: Sequence[MemberSpace], own_member_id: int
) -> HygieneDecision:
    """Followers first; then etcd's leader, once another leads; at last this coordinator's own."""
    others = sorted((m for m in due if m.member_id != own_member_id), key=lambda m: (m.raft_leader, m.member_id))
    chosen = (others or due)[0]
    heirs = [m for m in members if not m.learner and m.member_id != chosen.member_id]
    if not chosen.raft_leader or not heirs:
        return _defragment(chosen)
    waiting = frozenset(m.member_id for m in due)
    heir = min(heirs, key=lambda m: (m.member_id == own_member_id, m.member_id in waiting, m.member_id))
    return HygieneDecision(
        HygieneStep.MOVE_LEADER,
        heir.member_id,
        f"etcd's leader goes from {chosen.name} to {heir.name}: its file is next",
    )


def _defragment(member: MemberSpace) -> HygieneDecision:
    words = f"{member.name}: {size(member.free_bytes)} of {size(member.size_bytes)} are free"
    return HygieneDecision(HygieneStep.DEFRAGMENT, member.member_id, words)


def _judge_alarm(members: Sequence[MemberSpace]) -> HygieneDecision:
    full = [member for member in members if member.size_bytes >= DISARM_BELOW * member.quota_bytes]
    if not full:
        return HygieneDecision(HygieneStep.DISARM, reason="all files are below the quota again")
    worst = max(full, key=lambda member: (member.size_bytes, member.member_id))
    if not worst.safe and worst.free_bytes >= WORTH_BYTES:
        words = f"{worst.name} has an etcd that is not defragmented unasked: `cloudless cluster hygiene run`"
        return HygieneDecision(HygieneStep.WAIT, worst.member_id, words)
    return HygieneDecision(
        HygieneStep.WAIT,
        worst.member_id,
        f"{size(worst.in_use_bytes)} of {worst.name}'s {size(worst.quota_bytes)} are in use, not only by history: "
        f"{TOO_MUCH_IN_USE}",
    )


def _why(members: Sequence[MemberSpace], since: Since, nospace: bool) -> str:
    if nospace:
        return "the store takes no writes (alarm NOSPACE)"
    if since.ordered:
        return "ordered"
    fullest = max(members, key=lambda member: (_in_use(member), member.member_id))
    return f"{size(fullest.in_use_bytes)} of {fullest.name}'s {size(fullest.quota_bytes)} are in use"
