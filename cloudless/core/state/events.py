"""Decoded changes, as the state machine takes them.

Decoding happens at the edge. A value that cannot be decoded, or does not belong under its key, comes
as `Malformed`: the machine quarantines it and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.keys import Key
from cloudless.core.model import Record


@dataclass(frozen=True, slots=True)
class Stored:
    """`record` was written under `key` at `mod_revision`."""

    key: str
    parsed: Key
    record: Record
    create_revision: int
    mod_revision: int
    fingerprint: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something unreadable was written under `key`; `reason` says what is wrong with it."""

    key: str
    reason: str
    create_revision: int
    mod_revision: int
    fingerprint: int


@dataclass(frozen=True, slots=True)
class Removed:
    """`key` was deleted at `mod_revision`."""

    key: str
    mod_revision: int


StateEvent = Stored | Malformed | Removed
