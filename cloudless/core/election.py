"""Who leads: the election as a pure step function.

Each coordinator holds one lease and queues one key under `election/`; the key with the lowest create
revision leads and that revision is the *term*. Neither lease nor key is mutual exclusion: two
coordinators may believe they lead for a moment. What makes that harmless is the fence, a compare of the
key's create revision in every leader write.

::

    FOLLOWER ──grant──► FOLLOWER with lease ──campaign──► CANDIDATE ──first in queue──► confirm ──► LEADER
        ▲                                                     ▲                                       │
        └────────────── lease lost or unconfirmed ────────────┴──────── key gone (deposed) ───────────┘

`decide` is level-triggered: it looks at what is true now and returns the one next thing to do, so a lost
notification never loses a step and doing a step twice is harmless.

Rules, each from a failure others met:
- leadership counts from *before* the last confirmed renewal was sent, and stops at 2/3 of the lease's
  time without a newer one, on a clock that also runs while the machine sleeps;
- having won, a fenced write and a barrier (own state has the newest revision) come before any action;
- a lost lease is never used again; its key's term ended with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.state.view import Candidate

CONFIDENCE = 2 / 3
"""Share of the lease's time after which an unconfirmed leader stops acting."""


class Role(Enum):
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    RESIGNING = "resigning"


@dataclass(frozen=True, slots=True)
class HeldLease:
    """`renewed_s` is the monotonic time just before the last successful renewal was sent."""

    id: int
    ttl_s: float
    renewed_s: float

    def is_sure(self, now_s: float) -> bool:
        return now_s - self.renewed_s < self.ttl_s * CONFIDENCE

    def is_over(self, now_s: float) -> bool:
        return now_s - self.renewed_s >= self.ttl_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one coordinator knows of itself and the queue.

    `queue` is the election's queue at the local state's `revision`, first in line first; `own_key` its
    own key's name for the current lease. `campaigned_revision` is the revision of its last campaign under
    this lease (0: none). `leading_term` is the term it acts for now (0: it does not lead).
    """

    now_s: float
    lease: HeldLease | None
    own_key: str
    queue: tuple[Candidate, ...]
    revision: int
    campaigned_revision: int
    leading_term: int
    stopping: bool = False


class Step(Enum):
    """The one thing to do next."""

    GRANT_LEASE = "grant-lease"
    DROP_LEASE = "drop-lease"
    CAMPAIGN = "campaign"
    TAKE_OFFICE = "take-office"
    LEAVE_OFFICE = "leave-office"
    RESIGN = "resign"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Decision:
    """`term` goes with TAKE_OFFICE; `until_s` is when to look again at the latest; `reason` is for people."""

    step: Step
    term: int = 0
    until_s: float = float("inf")
    reason: str = ""


def decide(seen: Observation) -> Decision:
    """Return the next step of one coordinator's part in the election."""
    if seen.leading_term:
        return _decide_in_office(seen)
    if seen.stopping:
        return Decision(Step.RESIGN, reason="stopping")
    if seen.lease is None:
        return Decision(Step.GRANT_LEASE)
    if seen.lease.is_over(seen.now_s):
        return Decision(Step.DROP_LEASE, reason="the lease ran out")
    own = _own(seen)
    if own is None:
        return _decide_absent(seen)
    if seen.queue[0] is not own or not seen.lease.is_sure(seen.now_s):
        return Decision(Step.WAIT, until_s=_lease_end_s(seen.lease))
    return Decision(Step.TAKE_OFFICE, term=own.term, reason="first in the queue")


def _decide_in_office(seen: Observation) -> Decision:
    own = _own(seen)
    if seen.stopping:
        return Decision(Step.LEAVE_OFFICE, reason="stopping")
    if seen.lease is None:
        return Decision(Step.LEAVE_OFFICE, reason="the lease is lost")
    if not seen.lease.is_sure(seen.now_s):
        return Decision(Step.LEAVE_OFFICE, reason="the lease could not be renewed in time")
    if own is None or own.term != seen.leading_term:
        return Decision(Step.LEAVE_OFFICE, reason="deposed: the leader key is gone")
    return Decision(Step.WAIT, until_s=seen.lease.renewed_s + seen.lease.ttl_s * CONFIDENCE)


def _decide_absent(seen: Observation) -> Decision:
    if seen.revision < seen.campaigned_revision:
        assert seen.lease is not None
        return Decision(Step.WAIT, until_s=_lease_end_s(seen.lease), reason="own campaign not yet seen")
    return Decision(Step.CAMPAIGN)


def _own(seen: Observation) -> Candidate | None:
    return next((candidate for candidate in seen.queue if candidate.key == seen.own_key), None)


def _lease_end_s(lease: HeldLease) -> float:
    return lease.renewed_s + lease.ttl_s


def role_of(seen: Observation) -> Role:
    """Return what a person should see."""
    if seen.stopping:
        return Role.RESIGNING
    if seen.leading_term:
        return Role.LEADER
    return Role.CANDIDATE if seen.lease is not None and _own(seen) is not None else Role.FOLLOWER


# --- deposing a leader that the majority has lost ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Doubt:
    """What to do about the leader's link: say so, take it back, or depose. All False: nothing."""

    suspect: bool = False
    withdraw: bool = False
    depose: bool = False


def decide_doubt(
    *,
    own_id: str,
    leader: Candidate | None,
    link_lost: bool,
    linked: frozenset[str],
    suspicions: frozenset[str],
    voters: frozenset[str],
) -> Doubt:
    """Decide what this coordinator says of the leader.

    `linked` are the voters this coordinator has a living link to, `suspicions` those that have recorded the
    loss of this leader's term, `voters` all voting coordinators (the leader included). Deposing needs a
    majority of all voters; a mistake costs a needless election, never safety. Who has lost so many links that
    the rest is no majority accuses nobody: it is the network between coordinators that fails, and the next
    leader would be accused at once, and the next.
    """
    if leader is None or leader.record.coordinator_id == own_id:
        return Doubt()
    others = ((linked | {own_id}) - {leader.record.coordinator_id}) & voters
    link_lost = link_lost and len(others) > len(voters) // 2
    said = own_id in suspicions
    if said and not link_lost:
        return Doubt(withdraw=True)
    agreeing = (suspicions | {own_id} if link_lost else suspicions) & voters
    majority = len(agreeing) >= len(voters) // 2 + 1
    return Doubt(suspect=link_lost and not said, depose=bool(voters) and majority and (said or not link_lost))
