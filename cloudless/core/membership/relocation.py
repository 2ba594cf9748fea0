"""When the members of a cluster come back at other addresses, all at once, and nobody has a quorum to write that down.

etcd finds its peers by the addresses in its own data, so members that have all moved never find each other again. The
coordinators do: by the API addresses that they are given. Once a majority of the voters of the last known list has
met, each with the member id and the cluster id that the list has for it, their etcds are started with a relay that
leads from each old address to the new one; the quorum they form then writes the new addresses down, and the relay ends.

::

    who was met                                        a coordinator that comes back does
    ─────────────────────────────────────────────────  ──────────────────────────────────────────────────
    somebody who serves (there is a quorum)            asks it to change the list: nothing special
    fewer than a majority of the voters                waits, and says for whom
    a majority, all at their old addresses             nothing special
    a majority, some of them elsewhere                 relays from the old addresses to the new

Nothing can be lost by it: which members make a quorum is unchanged, only the way to them is found. Whoever has other
ids than the list is a stranger, whatever its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloudless.core.membership.quorum import quorum_of


@dataclass(frozen=True, slots=True)
class Seat:
    """A member as it was last seen in the list. `member_id` is hexadecimal, `address` is host:port."""

    member_id: str
    address: str
    learner: bool = False


@dataclass(frozen=True, slots=True)
class Met:
    """A coordinator that answered now. `serves`: it belongs to a cluster that works."""

    node_id: str
    member_id: str
    cluster_id: str
    address: str
    serves: bool = False


@dataclass(frozen=True, slots=True)
class Relocation:
    """`routes`: from the old address of each member that moved to its new one; empty: nothing to relay."""

    routes: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


def plan_relocation(own: Met, seats: Mapping[str, Seat], met: Sequence[Met]) -> Relocation:
    """Decide whether to start with a relay. `seats` are the members last known, this one included, by node id."""
    if any(one.serves for one in met):
        return Relocation(reason="others serve: they change the member list")
    known = [one for one in (own, *met) if _is_known(one, seats, own.cluster_id)]
    here = {one.node_id: one.address for one in known}
    voters = sorted(node_id for node_id, seat in seats.items() if not seat.learner)
    missing = [node_id for node_id in voters if node_id not in here]
    if not voters or len(voters) - len(missing) < quorum_of(len(voters)):
        return Relocation(reason=f"waiting to meet a majority of the voters; not met: {', '.join(missing) or 'any'}")
    routes = {seats[id].address: address for id, address in here.items() if seats[id].address != address}
    if set(routes) & set(here.values()):
        return Relocation(reason="an address that one member had is another's now: move in two steps")
    return Relocation(routes, "" if routes else "everybody who was met is where it was")


def _is_known(one: Met, seats: Mapping[str, Seat], cluster_id: str) -> bool:
    seat = seats.get(one.node_id)
    return seat is not None and one.member_id == seat.member_id and one.cluster_id == cluster_id != ""
