"""Replacing a CA while everything runs: both are trusted until nobody needs the old one.

    phase           new CA          old CA       lasts
    distributing    trusted         signs        until everybody who will come back has renewed, and so learned of it
    issuing         signs           trusted      until every certificate the old one signed has run out
    done            signs           deleted

Either wait is one lifetime of a certificate, counted from the phase's beginning, plus a margin for clocks and for a
signature that was under way. Who signs from an old state signs for less (`renewal.find_lifetime_s`). A certificate is
renewed at half of its life, and each renewal brings all trusted CAs: after one lifetime whoever still has a valid
certificate has renewed. A machine that was off all the while re-enrols.

`plan_rotation` is level-triggered: asked again and again by the leader, it takes the step that is due, or none. Each
step is one change, so that at any moment exactly one CA of each purpose signs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cloudless.core import keys
from cloudless.core.identity.key_rotation import is_key_rotating, unmoved
from cloudless.core.identity.renewal import margin_ms
from cloudless.core.model import AuthorityPhase, AuthorityPurpose, AuthorityRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import Authority, View
from cloudless.errors import Conflict, Unavailable

RENEW_AUTHORITY_BEFORE_MS = 365 * 86_400_000
"""A CA is replaced by itself when it has a year left."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """A CA being replaced, for people: which phase, and when the next is due."""

    purpose: AuthorityPurpose
    old_id: str
    new_id: str
    phase: AuthorityPhase
    next_at_ms: int


def authorities_of(view: View, purpose: AuthorityPurpose) -> list[Authority]:
    """Return the authorities of one purpose, oldest first."""
    found = [held for held in view.authorities.values() if held.record.purpose is purpose]
    return sorted(found, key=lambda held: held.record.generation)


def get_issuing(view: View, purpose: AuthorityPurpose) -> AuthorityRecord:
    """Return the authority that signs for `purpose`. Raises Unavailable before there is one."""
    for held in reversed(authorities_of(view, purpose)):
        if held.record.phase is AuthorityPhase.ISSUING:
            return held.record
    raise Unavailable("the cluster has no certificate authority yet", hint="try again in a moment")


def trusted_records(records: Iterable[AuthorityRecord], purpose: AuthorityPurpose) -> list[AuthorityRecord]:
    """Return the authorities to trust for `purpose`, the one that signs first."""
    found = [record for record in records if record.purpose is purpose]
    return sorted(found, key=lambda record: (record.phase is not AuthorityPhase.ISSUING, -record.generation))


def next_generation(view: View, purpose: AuthorityPurpose) -> int:
    """Return the generation a new authority of `purpose` gets.

    Raises Conflict while one is being replaced, and Unavailable before there is a first one: what is distributed
    instead of it would keep it out, and then nobody would ever sign.
    """
    held = authorities_of(view, purpose)
    if not held:
        raise Unavailable("the cluster has no certificate authority yet", hint="try again in a moment")
    if len(held) > 1:
        raise Conflict(
            f"the CA {held[0].record.id} is being replaced already", hint="see `cloudless ca status`; wait for its end"
        )
    return held[0].record.generation + 1


def plan_rotation_start(view: View, fresh: Iterable[AuthorityRecord]) -> Change:
    """Plan to make new authorities known, before they sign anything. Raises Conflict, Unavailable.

    Never while the cluster key is replaced: a new CA sealed with the old key would be open to whoever has that.
    """
    if is_key_rotating(view):
        raise Conflict("the cluster key is being replaced", hint="see `cloudless ca key`; wait for its end")
    puts, preconditions = [], [unmoved(view)]
    for record in sorted(fresh, key=lambda record: record.id):
        if record.generation != next_generation(view, record.purpose):
            raise Conflict(f"{record.id} is not the next generation", hint="ask again")
        puts.append(PutRecord(keys.authority(record.id), record))
        preconditions.append(Precondition(keys.authority(record.id), 0))
        preconditions += [
            Precondition(keys.authority(held.record.id), held.mod_revision)
            for held in authorities_of(view, record.purpose)
        ]
    names = ", ".join(put.key.rpartition("/")[2] for put in puts)
    return Change(puts=tuple(puts), preconditions=tuple(preconditions), reason=f"distribute the new CA {names}")


def plan_rotation(
    view: View, now_ms: int, *, hurry: bool = False, purposes: Iterable[AuthorityPurpose] = AuthorityPurpose
) -> tuple[Change, ...]:
    """Plan the steps that are due; `hurry` takes the next ones at once, whoever may be locked out by it.

    A CA that may have leaked is such a reason: nodes that did not learn of the new one re-enrol.
    """
    changes = (_plan_step(view, purpose, now_ms, hurry) for purpose in purposes)
    return tuple(change for change in changes if change is not None)


def find_rotations(view: View) -> list[Rotation]:
    """Return what is being replaced."""
    found = []
    for purpose in AuthorityPurpose:
        held = [authority.record for authority in authorities_of(view, purpose)]
        if len(held) > 1:
            old, new = held[0], held[-1]
            waits = old if old.phase is AuthorityPhase.RETIRING else new
            found.append(Rotation(purpose, old.id, new.id, new.phase, waits.phase_since_ms + wait_ms(old)))
    return found


def wait_ms(old: AuthorityRecord) -> int:
    """Return how long either phase of replacing `old` lasts."""
    return old.leaf_lifetime_s * 1000 + margin_ms(old.leaf_lifetime_s)


def outworn(view: View, now_ms: int) -> list[AuthorityPurpose]:
    """Return the purposes whose CA should be replaced because it runs out within a year."""
    found = []
    for purpose in AuthorityPurpose:
        held = authorities_of(view, purpose)
        if len(held) == 1 and held[0].record.not_after_ms - now_ms < RENEW_AUTHORITY_BEFORE_MS:
            found.append(purpose)
    return found


def _plan_step(view: View, purpose: AuthorityPurpose, now_ms: int, hurry: bool) -> Change | None:
    held = authorities_of(view, purpose)
    if len(held) < 2:
        return None
    old, new = held[0], held[-1]
    if new.record.phase is AuthorityPhase.DISTRIBUTING:
        due = hurry or now_ms >= new.record.phase_since_ms + wait_ms(old.record)
        return _switch(held, now_ms) if due else None
    retiring = [authority for authority in held if authority.record.phase is AuthorityPhase.RETIRING]
    over = [a for a in retiring if hurry or now_ms >= a.record.phase_since_ms + wait_ms(a.record)]
    if not over:
        return None
    return Change(
        deletes=tuple(keys.authority(authority.record.id) for authority in over),
        preconditions=_unmoved(held),
        reason=f"the CA {', '.join(authority.record.id for authority in over)} is trusted no longer",
    )


def _switch(held: list[Authority], now_ms: int) -> Change:
    new = held[-1].record
    puts = [PutRecord(keys.authority(new.id), replace(new, phase=AuthorityPhase.ISSUING, phase_since_ms=now_ms))]
    for authority in held[:-1]:
        retired = replace(authority.record, phase=AuthorityPhase.RETIRING, phase_since_ms=now_ms)
        puts.append(PutRecord(keys.authority(retired.id), retired))
    return Change(puts=tuple(puts), preconditions=_unmoved(held), reason=f"the CA {new.id} signs from now on")


def _unmoved(held: list[Authority]) -> tuple[Precondition, ...]:
    return tuple(Precondition(keys.authority(authority.record.id), authority.mod_revision) for authority in held)
