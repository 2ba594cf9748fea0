"""What the state holds about the members: the autopilot's settings and status, who asks to join, who was given up."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import AutopilotRecord, AutopilotStatus, JoinRecord, ReplacementRecord
from cloudless.core.state import View


@dataclass(frozen=True, slots=True)
class Asking:
    """A coordinator that asks to join; the queue is in the order of `create_revision`."""

    record: JoinRecord
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    record: ReplacementRecord
    mod_revision: int


def autopilot_of(view: View) -> AutopilotRecord:
    """Return what operators want of the autopilot; the defaults if they said nothing."""
    record = next((entry.record for entry in view.held(Kind.AUTOPILOT).values()), None)
    return record if isinstance(record, AutopilotRecord) else AutopilotRecord()


def autopilot_status_of(view: View) -> AutopilotStatus:
    """Return what the leader said last; nothing if none said anything yet."""
    record = next((entry.record for entry in view.held(Kind.AUTOPILOT_STATUS).values()), None)
    return record if isinstance(record, AutopilotStatus) else AutopilotStatus()


def joins_of(view: View) -> dict[str, Asking]:
    """Return who asks to join, by id."""
    return {
        entry.record.id: Asking(entry.record, entry.create_revision, entry.mod_revision)
        for entry in view.held(Kind.JOIN).values()
        if isinstance(entry.record, JoinRecord)
    }


def replacements_of(view: View) -> dict[str, GivenUp]:
    """Return who was given up, by the id of the coordinator that is gone."""
    return {
        entry.record.id: GivenUp(entry.record, entry.mod_revision)
        for entry in view.held(Kind.REPLACEMENT).values()
        if isinstance(entry.record, ReplacementRecord)
    }


def revision_of(view: View, key: str) -> int:
    """Return the mod revision of the object under `key` if it is one of these, 0 if it does not exist."""
    parsed = keys.parse(key)
    entry = view.held(parsed.kind).get(parsed.parts) if parsed else None
    return entry.mod_revision if entry else 0
