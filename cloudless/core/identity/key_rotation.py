"""Replacing the cluster key, under which the authorities' keys lie in the state: for when somebody else has it.

    phase          sealed with   who takes the next step
    wanted         the old key   the leader makes a key, keeps it on disk, then says its name here
    distributing   the old key   every coordinator fetches the new one and says so in its own identity record; when all
                                 that are up have it, and a majority of the voters, the leader seals everything anew
    done           the new key   who was away fetches it on its return; the old one is dropped after `KEPT_MS`

The key itself is never in the state: one who has the old key may have a copy of that, too. It travels from coordinator
to coordinator, over a connection on which the one that asks has proven a key that is on record and not revoked.

Level-triggered, like the replacement of a CA: whoever leads looks at what is there. A new key that is lost with its
only holder before it was handed out has sealed nothing yet, and the next leader makes another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from cloudless.core import keys
from cloudless.core.identity.names import IdentityKind
from cloudless.core.keys import Kind
from cloudless.core.model import AuthorityRecord, KeyPhase, KeyRotationRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import Enrolment, View
from cloudless.errors import Conflict, Unavailable

PATIENCE_MS = 60_000
"""A coordinator that is up but cannot fetch the key is waited for this long; it fetches it later."""
MAKE_ANEW_AFTER_S = 20.0
"""A leader that finds the new key nowhere for this long makes another."""
KEPT_MS = 900_000
"""The old key stays on disk this long after nothing is sealed with it: answers remembered for ten minutes are."""

_COORDINATOR = IdentityKind.COORDINATOR.value


class KeyStep(Enum):
    """What the leader has to do now."""

    NOTHING = "nothing"
    MAKE = "make"
    RESEAL = "reseal"


def find_key_rotation(view: View) -> KeyRotationRecord | None:
    """Return how far the last replacement is, None if there never was one."""
    record = next((entry.record for entry in view.held(Kind.KEY_ROTATION).values()), None)
    return record if isinstance(record, KeyRotationRecord) else None


def is_key_rotating(view: View) -> bool:
    found = find_key_rotation(view)
    return found is not None and found.phase is not KeyPhase.DONE


def find_standing(view: View, coordinator_id: str) -> Enrolment | None:
    """Return a coordinator's record, None for one that has none or was revoked."""
    known = view.identities.get((_COORDINATOR, coordinator_id))
    return None if known is None or known.record.revoked_at_ms else known


def wanted_keys(view: View) -> frozenset[str]:
    """Return the names of the keys that every coordinator should hold."""
    found = find_key_rotation(view)
    sealing = {held.record.sealed_with for _, held in sorted(view.authorities.items())}
    return frozenset(sealing | ({found.key} if found is not None else set())) - {""}


def outworn_keys(view: View, held: Iterable[str], now_ms: int) -> frozenset[str]:
    """Return which of the keys held are needed by nothing any more."""
    found = find_key_rotation(view)
    unreadable = any(key.startswith(keys.AUTHORITIES) for key in view.quarantined)
    if found is None or found.phase is not KeyPhase.DONE or now_ms - found.phase_since_ms < KEPT_MS or unreadable:
        return frozenset()
    return frozenset(held) - wanted_keys(view)


def find_lacking(view: View, among: Iterable[str]) -> list[str]:
    """Return who of these coordinators should have the newest key and does not say so."""
    found = find_key_rotation(view)
    if found is None or not found.key:
        return []
    return [name for name in sorted(set(among)) if (one := find_standing(view, name)) and not _holds(one, found.key)]


def check_members_trusted(view: View, members: Iterable[str]) -> None:
    """Raise Conflict while a revoked coordinator has a member: it sees every write, and makes its own."""
    for name in sorted(set(members)):
        if _is_revoked(view, name):
            raise Conflict(
                f"{name} was revoked and still has a member of etcd, which sees everything",
                hint=f"first: cloudless cluster remove {name}",
            )


def plan_key_rotation_start(view: View, now_ms: int) -> Change:
    """Plan to have the cluster key replaced. Raises Conflict while it is, Unavailable before there is one."""
    if not view.authorities:
        raise Unavailable("the cluster has no key yet", hint="without TLS it never has one")
    if is_key_rotating(view):
        raise Conflict("the cluster key is being replaced already", hint="see `cloudless ca key`; wait for its end")
    return _put(view, KeyRotationRecord(phase=KeyPhase.WANTED, phase_since_ms=now_ms), "replace the cluster key")


def decide_key_step(
    view: View, own_id: str, own_keys: Collection[str], voters: Iterable[str], now_ms: int, missing_s: float
) -> KeyStep:
    """Return what the leader `own_id` has to do. `missing_s`: for how long it has not found the new key anywhere."""
    found = find_key_rotation(view)
    if found is None or found.phase is KeyPhase.DONE or find_standing(view, own_id) is None:
        return KeyStep.NOTHING
    if found.phase is KeyPhase.WANTED:
        return KeyStep.MAKE
    if found.key not in own_keys:
        return KeyStep.MAKE if missing_s >= MAKE_ANEW_AFTER_S else KeyStep.NOTHING
    return KeyStep.RESEAL if _is_handed_out(view, found, voters, now_ms) else KeyStep.NOTHING


def plan_announcement(view: View, name: str, now_ms: int) -> Change:
    """Plan to have everybody fetch the key `name`, which its maker has on disk."""
    record = KeyRotationRecord(phase=KeyPhase.DISTRIBUTING, phase_since_ms=now_ms, key=name)
    return _put(view, record, f"hand out the cluster key {name}")


def plan_resealing(view: View, resealed: Iterable[AuthorityRecord], name: str, now_ms: int) -> Change:
    """Plan to put all authorities, sealed with the key `name`, in place of what they were: all of them, or none."""
    records = sorted(resealed, key=lambda record: record.id)
    assert [record.id for record in records] == sorted(view.authorities), "all of them at once"
    assert {record.sealed_with for record in records} == {name}, "with the new key"
    done = _put(
        view,
        KeyRotationRecord(phase=KeyPhase.DONE, phase_since_ms=now_ms, key=name),
        f"everything is sealed with the cluster key {name}",
    )
    return Change(
        puts=(*done.puts, *(PutRecord(keys.authority(record.id), record) for record in records)),
        preconditions=(
            *done.preconditions,
            *(Precondition(keys.authority(one.id), view.authorities[one.id].mod_revision) for one in records),
        ),
        reason=done.reason,
    )


def unmoved(view: View) -> Precondition:
    """Return the condition that no replacement of the key begins or ends meanwhile."""
    entry = view.held(Kind.KEY_ROTATION).get(())
    return Precondition(keys.KEY_ROTATION, entry.mod_revision if entry else 0)


def _put(view: View, record: KeyRotationRecord, reason: str) -> Change:
    return Change(puts=(PutRecord(keys.KEY_ROTATION, record),), preconditions=(unmoved(view),), reason=reason)


def _is_handed_out(view: View, found: KeyRotationRecord, voters: Iterable[str], now_ms: int) -> bool:
    entitled = [name for name in sorted(set(voters)) if not _is_revoked(view, name)]  # on record yet or not
    holders = [name for name in entitled if (one := find_standing(view, name)) and _holds(one, found.key)]
    if 2 * len(holders) <= len(entitled):
        return False
    return not find_lacking(view, view.coordinators) or now_ms - found.phase_since_ms >= PATIENCE_MS


def _is_revoked(view: View, name: str) -> bool:
    known = view.identities.get((_COORDINATOR, name))
    return known is not None and known.record.revoked_at_ms > 0


def _holds(known: Enrolment, name: str) -> bool:
    return name in known.record.cluster_keys
