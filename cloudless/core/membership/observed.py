"""What the leader sees of the members, of those who want to become members, and of those given up.

Values only: gathered by the runtime, judged by the planner. A member is *healthy* while its coordinator answers the
leader and its etcd works. It is *alive* as long as anything speaks for it, its coordinator's lease in the store
included: what the leader alone cannot reach is not dead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member. `name` is its coordinator's id, empty until it has started; `linked`: that coordinator answers us.

    `registered`: its coordinator holds a lease in the store. `ailment`: what it says is wrong with its own etcd.
    `raft_index`: how far its log goes, 0 if that is not known.
    """

    id: int
    name: str
    peer_urls: tuple[str, ...]
    learner: bool
    started: bool
    linked: bool = False
    registered: bool = False
    ailment: str = ""
    raft_index: int = 0

    @property
    def healthy(self) -> bool:
        return self.started and self.linked and not self.ailment

    @property
    def alive(self) -> bool:
        return self.registered or (self.linked and not self.ailment)

    @property
    def label(self) -> str:
        """The coordinator's id, or the member's own while it has none."""
        return self.name or f"{self.id:x}"


@dataclass(frozen=True, slots=True)
class JoinView:
    """A coordinator that has asked to join. `answers`: it can be asked at `api_address` and still waits there.

    `member_id` is the member whose data it holds, 0 if it has none: that tells one that is about to vote, and has
    no links yet, from one that lost its data.
    """

    node_id: str
    raft_address: str
    asked_revision: int
    answers: bool = True
    api_address: str = ""
    member_id: int = 0


@dataclass(frozen=True, slots=True)
class ReplacementView:
    """A voter that an operator has given up. `new_id` "" lets any newcomer take its place.

    `voters`: how many there were with it.
    """

    node_id: str
    member_id: int
    new_id: str = ""
    voters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One look at everything. `raft_index` is the leader's own; `resting` did not take etcd's leadership lately."""

    members: tuple[MemberView, ...]
    own_member_id: int = 0
    raft_leader_id: int = 0
    raft_index: int = 0
    joins: tuple[JoinView, ...] = ()
    replacements: tuple[ReplacementView, ...] = ()
    resting: frozenset[int] = frozenset()

    @property
    def voters(self) -> tuple[MemberView, ...]:
        return tuple(sorted((m for m in self.members if not m.learner), key=lambda m: m.id))

    @property
    def learners(self) -> tuple[MemberView, ...]:
        return tuple(sorted((m for m in self.members if m.learner), key=lambda m: m.id))

    def holder_of(self, join: JoinView) -> MemberView | None:
        """Return the member that a joiner would take the place of: one of its id, or at its raft address."""
        named = next((m for m in self.members if m.name == join.node_id), None)
        return named or next((m for m in self.members if _at(m, join)), None)

    def is_admitted(self, join: JoinView) -> bool:
        """Return whether the joiner is a member already, or a learner that is expected to start."""
        return any(
            m.id == join.member_id or (m.learner and _at(m, join) and m.name in ("", join.node_id))
            for m in self.members
        )


def _at(member: MemberView, join: JoinView) -> bool:
    return any(url.partition("://")[2] == join.raft_address for url in member.peer_urls)
