"""Whether a lone survivor may be made a cluster of its own, from what the other coordinators answered.

Rebuilding forgets the others: if they were a majority that could come back, two clusters would claim one name. So it
is refused as long as anybody knows better.

    what the others say                                   verdict
    ────────────────────────────────────────────────────  ─────────────────────────────────────────────────
    one belongs to a cluster that has a leader            refuse: join that one
    one was rebuilt already from this cluster             refuse: start this one, it will join
    one has data of this cluster that go further          refuse: recover there (or insist)
    those with data, and this one, are a majority         refuse: start them, nothing is lost (or insist)
    otherwise                                             go on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudless.core.recovery.ranking import Survivor, best_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """What one other coordinator answered. `has_data`: of this very cluster; `survivor` if its log could be read."""

    node_id: str
    address: str
    has_leader: bool = False
    has_data: bool = False
    supersedes: bool = False
    survivor: Survivor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """`refusal` is "" if nothing stands against it; `hint` is the cure; `insistable`: a person may know better."""

    refusal: str = ""
    hint: str = ""
    insistable: bool = False


def judge_recovery(own: Survivor, voters: Sequence[str], neighbours: Sequence[Neighbour]) -> Outlook:
    """Return what stands against rebuilding from `own`; `voters` are all node ids known, its own among them."""
    for neighbour in neighbours:
        if neighbour.supersedes:
            return Outlook(
                refusal=f"{neighbour.node_id} was rebuilt from this cluster already",
                hint=f"start {own.node_id}: it puts its old data aside and joins",
            )
        if neighbour.has_leader:
            return Outlook(
                refusal=f"{neighbour.node_id} belongs to a cluster that has a leader: nothing is lost",
                hint=f"start {own.node_id} as usual",
            )
    found = [own, *(neighbour.survivor for neighbour in neighbours if neighbour.survivor is not None)]
    best = best_of(found)
    assert best is not None
    if best.position > own.position:
        return Outlook(
            refusal=f"the log of {best.node_id} ends at term {best.log_term}, index {best.log_index}; that of "
            f"{own.node_id} at term {own.log_term}, index {own.log_index}",
            hint=f"recover on {best.node_id} instead: it has writes that {own.node_id} never had",
            insistable=True,
        )
    everyone = {own.node_id, *voters}
    alive = everyone & {own.node_id, *(neighbour.node_id for neighbour in neighbours if neighbour.has_data)}
    if len(alive) > len(everyone) // 2 and len(everyone) > 1:
        return Outlook(
            refusal=f"{', '.join(sorted(alive))} have their data: a majority of {', '.join(sorted(everyone))}",
            hint="start them: they go on by themselves, and the rest is replaced by ordinary joins",
            insistable=True,
        )
    return Outlook()
