"""How nodes that were given the same addresses found one cluster, and can never found two.

Every founder asks all founders what they bring. A node starts etcd as "new" only when *all* expected
founders have answered, name the same set of founders, and none belongs to a cluster yet. All then start
with the identical member list and token, from which etcd derives the cluster's id, and that cluster needs
a majority of exactly these members to do anything: there is no second majority to be had.

::

    what the founders say                                    a fresh node does
    ───────────────────────────────────────────────────────  ──────────────────────────────
    somebody is a member                                      joins through that one, as a newcomer
    somebody lost its data, nobody is a member                waits: never founds anew over a cluster that was
    the answers contradict each other or this node            refuses, and says why
    all answered, all fresh or forming with the same set      founds with the static list
    otherwise                                                 waits, and says for whom
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Standing(Enum):
    """What a node brings to the forming of a cluster."""

    FRESH = "fresh"
    FORMING = "forming"
    MEMBER = "member"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Founder:
    """One founder's answer. `expects` are the addresses it was given; `token` is set once it is forming.

    `instance_id` is drawn at each start of its process: it tells who is who where two share a node id, or two
    addresses lead to one. "" where that is not known.
    """

    node_id: str
    raft_address: str
    standing: Standing
    expects: tuple[str, ...] = ()
    token: str = ""
    instance_id: str = ""


class Verdict(Enum):
    WAIT = "wait"
    FOUND = "found"
    JOIN = "join"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Founding:
    """`initial_cluster` (name, peer URL) and `token` go with FOUND; `reason` is for people."""

    verdict: Verdict
    initial_cluster: tuple[tuple[str, str], ...] = ()
    token: str = ""
    reason: str = ""


def decide_founding(
    own: Founder, expected: Sequence[str], answers: Mapping[str, Founder], *, scheme: str = "http"
) -> Founding:
    """Decide for a fresh node from the answers by address; an address that did not answer is missing."""
    if any(answer.standing is Standing.MEMBER for answer in answers.values()):
        return Founding(Verdict.JOIN, reason="a cluster exists already")
    silent = sorted(set(expected) - answers.keys())
    if silent:
        return Founding(Verdict.WAIT, reason=f"waiting for {', '.join(silent)} to answer")
    by_id = {answer.node_id: answer for answer in answers.values()}
    mistaken = _find_mistaken_identity(own, answers)
    if mistaken:
        return Founding(Verdict.REFUSE, reason=mistaken)
    if own.node_id not in by_id:
        return Founding(Verdict.REFUSE, reason=f"{own.node_id} is not among {', '.join(sorted(expected))}")
    if len({answer.raft_address for answer in answers.values()}) != len(answers):
        return Founding(Verdict.REFUSE, reason="two of the founders give the same raft address")
    lost = sorted(answer.node_id for answer in answers.values() if answer.standing is Standing.LOST)
    if lost:
        return Founding(Verdict.WAIT, reason=f"{', '.join(lost)} had data and lost it: not founding anew")
    differing = sorted(a.node_id for a in answers.values() if set(a.expects) != set(expected))
    if differing:
        return Founding(Verdict.REFUSE, reason=f"{', '.join(differing)} expects other founders than this node does")
    members = tuple(sorted((a.node_id, f"{scheme}://{a.raft_address}") for a in by_id.values()))
    token = build_token(members)
    if any(answer.token not in ("", token) for answer in answers.values()):
        return Founding(Verdict.REFUSE, reason="another founder is forming a different cluster")
    return Founding(Verdict.FOUND, members, token)


def find_bootstrap_hindrance(
    answers: Mapping[str, Standing], silent: Sequence[str], own: Sequence[str], remembered: Sequence[str]
) -> str:
    """Return why a fresh node told to found alone must wait instead, "" if it may found.

    Told so, it was once the first one; with an emptied directory it no longer is, and founding again would give a
    second cluster. So whatever could know of the first one has to deny it: `answers` are the others' by address,
    `silent` the seeds that do not answer or cannot be looked up, `own` those that lead back to this node,
    `remembered` the addresses that its directory remembers of a cluster. Who really is the first of all is given no
    seeds, or those that answer that they are fresh.
    """
    if remembered:
        return f"this node remembers a cluster: waiting for one of its coordinators to answer ({', '.join(remembered)})"
    for standing, word in ((Standing.LOST, "had data and lost it"), (Standing.FORMING, "is forming a cluster")):
        if found := sorted(address for address, said in answers.items() if said is standing):
            return f"the coordinator at {', '.join(found)} {word}: not founding beside it"
    if silent:
        return (
            f"waiting for {', '.join(silent)} to say that there is no cluster yet (the very first coordinator is "
            "started without CLOUDLESS_RAFT_JOIN_ADDR)"
        )
    if own and not answers:
        return f"{', '.join(own)} leads back to this node only: without CLOUDLESS_RAFT_JOIN_ADDR it founds"
    return ""


def _find_mistaken_identity(own: Founder, answers: Mapping[str, Founder]) -> str:
    """Return which two answers come from one node, or which two nodes go by one id; "" if all is clear."""
    for address, answer in sorted(answers.items()):
        for other_address, other in sorted(answers.items()):
            if address < other_address and answer.node_id == other.node_id:
                same = answer.instance_id == other.instance_id
                if same and answer.instance_id == own.instance_id != "":
                    return f"{address} and {other_address} both lead to this node itself"
                if same:
                    return f"{address} and {other_address} lead to the same node, {answer.node_id}"
                return f"the nodes at {address} and {other_address} share the node id {answer.node_id}"
        if answer.node_id == own.node_id and answer.instance_id != own.instance_id and answer.instance_id:
            return f"the node at {address} has this node's id, {own.node_id}"
    return ""


def build_token(members: Sequence[tuple[str, str]]) -> str:
    """Return the cluster token that the member list stands for: the same list always gives the same one."""
    text = ",".join(f"{name}={url}" for name, url in sorted(members))
    return "cloudless-" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
