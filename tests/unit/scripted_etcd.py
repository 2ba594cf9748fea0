"""An etcd cluster's membership in memory, as `EtcdAdmin` shows it: for what the autopilot does with members.

It refuses what etcd refuses: a second learner, a new member while a voter is away, promoting what lags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cloudless.adapters.etcd.admin import (
    ConnectedTooShortly,
    LearnerNotReady,
    Member,
    MemberNotFound,
    MemberStatus,
    ReconfigurationUnsafe,
    TooManyLearners,
)
from cloudless.errors import CommitUncertain


class ScriptedEtcd:
    """`away`: voters that etcd misses. `lose_next`: the next change is done, but its answer is lost."""

    def __init__(self, *names: str) -> None:
        self.members_now: dict[int, Member] = {}
        self.away: set[str] = set()
        self.index = 5_000
        self.leader_id = 2 if len(names) > 1 else 1
        self.changes: list[str] = []
        self.lose_next = False
        self.unsettled = 0
        """How many changes are still refused because a member has just connected."""
        for id, name in enumerate(names, start=1):
            self.members_now[id] = build_member(id, name)
        self._next_id = 100

    async def members(self) -> tuple[Member, ...]:
        return tuple(self.members_now[id] for id in sorted(self.members_now))

    async def status(self) -> MemberStatus:
        return MemberStatus(
            member_id=1, cluster_id=7, version="3.5.30", db_size_bytes=0, db_in_use_bytes=0,
            leader_id=self.leader_id, raft_term=3, raft_index=self.index, raft_applied_index=self.index,
            revision=1, is_learner=False, errors=(),
        )  # fmt: skip

    async def add_learner(self, peer_urls: Iterable[str]) -> Member:
        if any(member.is_learner for member in self.members_now.values()):
            raise TooManyLearners("too many learner members in cluster")
        if self.away & {member.name for member in self.members_now.values()}:
            raise ReconfigurationUnsafe("unhealthy cluster")
        self._next_id += 1
        added = Member(self._next_id, "", tuple(peer_urls), (), True)
        self.members_now[added.id] = added
        self._note(f"add {added.peer_urls[0]}")
        return added

    async def promote(self, member_id: int) -> None:
        member = self._get(member_id)
        if not member.name:
            raise LearnerNotReady("can only promote a learner member which is in sync with leader")
        self.members_now[member_id] = replace(member, is_learner=False)
        self._note(f"promote {member.name}")

    async def remove(self, member_id: int) -> None:
        member = self._get(member_id)
        if self.unsettled:
            self.unsettled -= 1
            raise ConnectedTooShortly("unhealthy cluster")
        del self.members_now[member_id]
        self._note(f"remove {member.name or member.peer_urls[0]}")

    async def move_leader(self, target_id: int) -> None:
        self.leader_id = target_id
        self._note(f"move {self._get(target_id).name}")

    def start(self, name: str, peer_url: str) -> None:
        """Let a learner start and publish its name."""
        found = next(m for m in self.members_now.values() if peer_url in m.peer_urls)
        self.members_now[found.id] = replace(found, name=name, client_urls=("http://127.0.0.1:1",))

    def _get(self, member_id: int) -> Member:
        if member_id not in self.members_now:
            raise MemberNotFound("member not found")
        return self.members_now[member_id]

    def _note(self, change: str) -> None:
        self.changes.append(change)
        if self.lose_next:
            self.lose_next = False
            raise CommitUncertain("no clear answer")


def build_member(id: int, name: str, *, learner: bool = False) -> Member:
    return Member(id, name, (f"http://{name}:2",), ("http://127.0.0.1:1",), learner)
