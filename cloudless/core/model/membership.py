"""Records about who belongs to the cluster: what operators want of the autopilot, what it does, who asks to join."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotRecord(Evolving):
    """How the leader cares for the members. Absent: these defaults. Times are the leader's own, in seconds.

    A voter is removed by itself only if `cleanup_dead_voters`, after it was dead for `dead_after_s` and nothing about
    the voters changed for `stabilization_s`, and never if fewer than `min_quorum` voters would be left. A learner
    votes once it was no more than `catch_up_lag_max` raft entries behind for `catch_up_stable_s`; one that makes no
    headway for `learner_stall_s` gives way to the next. `even_voters`: fill up to an even number of voters, too.
    """

    cleanup_dead_voters: bool = True
    dead_after_s: float = 300.0
    stabilization_s: float = 10.0
    min_quorum: int = 3
    learner_stall_s: float = 120.0
    catch_up_lag_max: int = 1_000
    catch_up_stable_s: float = 1.0
    voters_max: int = 7
    even_voters: bool = False
    updated_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class AutopilotWait(Evolving):
    """Why something about `subject` (a coordinator's id, or a member's in hex) is not done now."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotStatus(Evolving):
    """What the leader of `term` is doing about the members, or waits for; written when that changes.

    `dropped_member_ids`: learners that were removed because they made no headway; they may ask again.
    """

    term: int = 0
    doing: str = ""
    waits: tuple[AutopilotWait, ...] = ()
    since_ms: int = 0
    dropped_member_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRecord(Evolving):
    """A coordinator that waits to become a member. Deleted by the leader when it votes, or no longer answers."""

    id: str
    raft_address: str = ""
    api_address: str = ""
    etcd_version: str = ""
    asked_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacementRecord(Evolving):
    """A voter that an operator has given up for good, and who is to take its place ("": the next that asks).

    Deleted by the leader when that is done. `voters`: how many there were, the dead one included.
    """

    id: str
    member_id: int = 0
    new_id: str = ""
    voters: int = 0
    asked_at_ms: int = 0
