"""How nodes that were given one name in DNS found one cluster, and can never found two.

DNS may show each of them other addresses at each look, so what they agree on is not addresses but node ids: each node
collects those it finds that wait for the same number of founders, and once it has found that many (itself included)
that set is its word for as long as its process lives. It founds when all of the set have given the very same word; from
there on everything is as in `founding`, with node ids in place of addresses. Nodes that came too late for the set find
the cluster there and join it.

::

    found so far, itself included        its word        then
    ───────────────────────────────────  ──────────────  ─────────────────────────────────────────────
    fewer than expected                  none yet        waits
    more than expected, no word yet      none            waits, and says that too many are there
    as many as expected                  those node ids  waits until all say the same, then founds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloudless.core.membership.founding import Founder, Founding, Standing, Verdict, decide_founding


@dataclass(frozen=True, slots=True)
class NamedFounder:
    """One answer: who it is, and how many founders it waits for (0: it founds nothing)."""

    founder: Founder
    expected: int


def decide_named_founding(
    own: Founder, expected: int, word: Sequence[str], answers: Mapping[str, NamedFounder], *, scheme: str = "http"
) -> tuple[tuple[str, ...], Founding]:
    """Return this node's word (unchanged once given) and what it does; `answers` are the others', by address."""
    if any(answer.founder.standing is Standing.MEMBER for answer in answers.values()):
        return tuple(word), Founding(Verdict.JOIN, reason="a cluster exists already")
    by_id: dict[str, Founder] = {own.node_id: own}
    for address, answer in sorted(answers.items()):
        told = answer.founder
        held = by_id.setdefault(told.node_id, told)
        if held.instance_id != told.instance_id:
            return tuple(word), Founding(
                Verdict.REFUSE, reason=f"two nodes share the node id {told.node_id} ({address})"
            )
    differing = sorted(a.founder.node_id for a in answers.values() if a.expected not in (0, expected))
    if differing:
        reason = f"{', '.join(differing)} waits for another number of founders than the {expected} of this node"
        return tuple(word), Founding(Verdict.REFUSE, reason=reason)
    idle = {a.founder.node_id for a in answers.values() if a.expected == 0}
    found = tuple(sorted(by_id.keys() - idle))
    if not word and len(found) < expected:
        names = ", ".join(found)
        return (), Founding(Verdict.WAIT, reason=f"{len(found)} of {expected} founders found so far: {names}")
    if not word and len(found) > expected:
        reason = f"{len(found)} founders answer where {expected} are expected: {', '.join(found)}"
        return (), Founding(Verdict.WAIT, reason=reason)
    settled = tuple(word) or found
    silent = [node_id for node_id in settled if node_id not in found]
    if silent:
        return settled, Founding(Verdict.WAIT, reason=f"waiting for {', '.join(silent)} to answer")
    founders = {id: replace(own, expects=settled) if id == own.node_id else by_id[id] for id in settled}
    undecided = [id for id, told in founders.items() if not told.expects]
    if undecided:
        return settled, Founding(Verdict.WAIT, reason=f"{', '.join(undecided)} has not found all founders yet")
    return settled, decide_founding(replace(own, expects=settled), settled, founders, scheme=scheme)
