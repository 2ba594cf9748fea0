"""What the cluster has said of its coordinators' addresses, kept so that it outlives the seeds.

The cluster names all who belong to it, by id, with the API address of those whose address it knows now (who is
down says nothing of itself). Whoever listens keeps the address it knew of one that is down, and forgets one that is no
longer named: it was removed. What was not confirmed for `AGE_MAX_MS` is forgotten too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

KNOWN_MAX = 32
"""A cluster has at most seven voters; the rest is room for joiners, and a bound against a list gone wild."""
AGE_MAX_MS = 30 * 24 * 3_600_000
CONFIRM_EVERY_MS = 3_600_000
"""How old a confirmation may be before it is written down anew: what did not change costs no disk write."""


@dataclass(frozen=True, slots=True)
class Known:
    """One coordinator: where its API was when the cluster last said so (wall clock)."""

    id: str
    address: str
    confirmed_ms: int = 0


def follow(known: Iterable[Known], told: Mapping[str, str], now_ms: int) -> tuple[Known, ...]:
    """Return what to know after the cluster named `told`, id → address, "" for one whose address it does not know.

    An empty list teaches nothing: no cluster is without coordinators.
    """
    before = {one.id: one for one in known}
    if not told:
        return tuple(sorted(before.values(), key=lambda one: one.id))
    after = []
    for id, address in told.items():
        held = before.get(id)
        if held is None or (address and address != held.address):
            if address:
                after.append(Known(id, address, now_ms))
        elif now_ms - held.confirmed_ms >= CONFIRM_EVERY_MS or held.confirmed_ms > now_ms:
            after.append(replace(held, confirmed_ms=now_ms))
        else:
            after.append(held)
    return bound(after, now_ms)


def bound(known: Iterable[Known], now_ms: int) -> tuple[Known, ...]:
    """Return what of `known` is young enough, the most recently confirmed if there are too many."""
    young = [one for one in known if now_ms - one.confirmed_ms <= AGE_MAX_MS]
    newest = sorted(young, key=lambda one: (-one.confirmed_ms, one.id))[:KNOWN_MAX]
    return tuple(sorted(newest, key=lambda one: one.id))


def find_retired(before: Iterable[Known], after: Iterable[Known]) -> frozenset[str]:
    """Return the addresses that belonged to coordinators which are gone, and to no one that is left."""
    left = tuple(after)
    ids, addresses = {one.id for one in left}, {one.address for one in left}
    return frozenset(one.address for one in before if one.id not in ids and one.address not in addresses)
