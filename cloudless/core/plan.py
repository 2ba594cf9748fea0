"""What a decision wants written: a `Plan` of `Change`s, each all-or-nothing, none of them done yet.

A plan names the revision of the view it was made from. Each change lists the revisions of the objects
it relies on (`Precondition`); the store refuses the change if one has moved, and the planner decides
again from a newer view. Applying a plan twice is therefore harmless.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model import Record


@dataclass(frozen=True, slots=True)
class Precondition:
    """`key` must still be at `mod_revision`; 0 means it must not exist."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class PutRecord:
    """Store `record` under `key`, bound to `lease_id` (0: kept until deleted)."""

    key: str
    record: Record
    lease_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Writes that happen together or not at all.

    `reason` is why, in words a person can read; it goes to the log.
    """

    puts: tuple[PutRecord, ...] = ()
    deletes: tuple[str, ...] = ()
    preconditions: tuple[Precondition, ...] = ()
    reason: str = ""

    def keys(self) -> frozenset[str]:
        """Return the keys this change writes."""
        return frozenset(put.key for put in self.puts) | frozenset(self.deletes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Changes decided from the view at `revision`. They are independent of each other and may share a transaction."""

    revision: int
    changes: tuple[Change, ...] = ()
