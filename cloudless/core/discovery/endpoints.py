"""Addresses to dial, and in which order: priorities first, chance by weight among equals (RFC 2782).

Whoever has no SRV records has one priority and equal weights: a plain shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

# A record of weight 0 shall be chosen seldom, not never (RFC 2782).
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address (`host:port`). Lower `priority` first; `weight` is the share among equal priorities."""

    address: str
    priority: int = 0
    weight: int = 1


def order_endpoints(endpoints: Iterable[Endpoint], draw: Callable[[], float]) -> list[Endpoint]:
    """Return them in the order of trying; `draw` gives numbers from 0 up to 1, one is used for each."""
    # Exponential keys: the smallest of -ln(u)/w is drawn with probability w over the sum; u**(1/w) orders alike.
    keyed = [(one.priority, -((1.0 - draw()) ** (1.0 / max(one.weight, _LEAST_WEIGHT))), one) for one in endpoints]
    return [one for _, _, one in sorted(keyed, key=lambda item: item[:2])]


def merge_endpoints(seeds: Iterable[Endpoint], learned: Iterable[str]) -> list[Endpoint]:
    """Return seeds and learned addresses, each address once, with the seeds' word on priority.

    Learned ones that no seed names count among the seeds' best: a cluster's own word is as good as a record.
    """
    merged: dict[str, Endpoint] = {}
    for one in seeds:
        held = merged.get(one.address)
        if held is None or one.priority < held.priority:
            merged[one.address] = one
    best = min((one.priority for one in merged.values()), default=0)
    for address in learned:
        merged.setdefault(address, Endpoint(address, best))
    return list(merged.values())
