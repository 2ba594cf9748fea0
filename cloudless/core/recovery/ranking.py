"""Which of several surviving logs to rebuild from: Raft's own order, the term of the last entry, then its index.

A log that is further in this order holds every entry of the others that can have been acknowledged: it is the one
that would have won an election among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Survivor:
    """One member's log: where it ends, and whose it is."""

    log_term: int
    log_index: int
    node_id: str

    @property
    def position(self) -> tuple[int, int]:
        return self.log_term, self.log_index


def best_of(survivors: Iterable[Survivor]) -> Survivor | None:
    """Return the survivor that is furthest; of equals, the first by name."""
    ranked = sorted(survivors, key=lambda survivor: (-survivor.log_term, -survivor.log_index, survivor.node_id))
    return ranked[0] if ranked else None
