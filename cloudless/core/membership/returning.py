"""Whether the data a member comes back with is what it left, or an older copy of it.

A member that has forgotten what it acknowledged must not vote again: with it, a minority could become a majority
that lacks acknowledged writes. So the members witness each other: every coordinator keeps, durably, how far its own
member and each other one has got, and a member whose log ends earlier than that is replaced instead of started.

An older copy younger than the last word of it (some seconds) is not told from the real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reached:
    """How far one member has got: everything up to `raft_index` is in its log. `member_id` is hexadecimal."""

    member_id: str
    raft_index: int


def find_outdated(member_id: str, log_ends: int, witnesses: Iterable[tuple[str, Reached]]) -> str:
    """Return why the log of `member_id` is older than it must be, "" if no witness contradicts it.

    `witnesses` are (who says so, what); one that speaks of another member of the same node says nothing here: a
    removed member is told by etcd itself.
    """
    words = [(said.raft_index, who) for who, said in witnesses if said.member_id == member_id]
    reached, who = max(words, default=(0, ""))
    if reached <= log_ends:
        return ""
    return f"etcd's log ends at index {log_ends}, but by the word of {who} this member had reached {reached}"


def newer(held: Reached | None, said: Reached) -> Reached:
    """Return which of two words on one node to keep: the later member's, or of one member the farther."""
    if held is not None and held.member_id == said.member_id and held.raft_index > said.raft_index:
        return held
    return said


def find_divergence(own: Mapping[int, int | None], said: Mapping[str, tuple[int, int]], voters: frozenset[str]) -> str:
    """Return why this node's state is wrong, "" if no majority of the voters contradicts it.

    `said`: (revision, digest) by node id; `own`: this node's digest at those revisions, None where it is not known.
    """
    differing = sorted(
        node_id
        for node_id, (revision, digest) in said.items()
        if node_id in voters and own.get(revision) not in (None, digest)
    )
    if len(differing) <= len(voters) // 2:
        return ""
    return f"its state differs from that of {', '.join(differing)}: a majority"
