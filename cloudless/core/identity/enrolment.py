"""Letting somebody in: what one use of a token changes, decided from the state and written in one transaction.

The token's use and the new identity are one change, and it holds only while both records are as they were seen. Two
coordinators that are shown the same last use at once therefore let one in; the other decides again, and finds the
token used up.

    identity of that name     token names it exactly     token leaves it open
    none                      let in                     let in
    same key, same token      let in, no use spent       let in, no use spent (the answer was lost)
    another key, or revoked   let in, old key is out     refused: a token for any agent must not take over a known one
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloudless.core import keys
from cloudless.core.identity.names import Identity, kind_of
from cloudless.core.identity.tokens import TokenVerdict, allows_name, judge_token, names_exactly
from cloudless.core.model import IdentityRecord, Role, TokenRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import Enrolment, View
from cloudless.errors import Conflict, Denied, Unauthenticated

PERSON_ABSENCE_MAX_MS = 30 * 86_400_000
"""A person whose certificate ran out longer ago needs a new token; machines may return after any time."""
KEYS_MAX = 2
"""The key in use and the one before: who has just changed keys may still be on a connection made with the old one."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A wish to be let in as `name`, with a token and a key that the asker has proven to hold.

    `role` None: whatever the token is for.
    """

    token_id: str
    presented_hash: str
    name: str
    key_hash: str
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Who was let in. `change` is None if it was let in before and only asks for its certificate again."""

    record: IdentityRecord
    change: Change | None


def plan_enrolment(view: View, ask: Ask, now_ms: int) -> Admission:
    """Decide what letting the asker in changes. Raises Unauthenticated, Denied, Conflict."""
    token = view.tokens.get(ask.token_id)
    verdict = judge_token(token.record if token else None, ask.presented_hash, ask.role, ask.name, now_ms)
    if token is None or verdict not in (TokenVerdict.GOOD, TokenVerdict.SPENT):
        raise _refusal(verdict, token.record if token else None, ask)
    if is_disowned(view, token.record):
        raise Denied(
            f"token {token.record.id} was made by {token.record.created_by}, who was revoked",
            hint="create a new one: `cloudless token create`",
        )
    kind = kind_of(token.record.role).value
    key = keys.identity(kind, ask.name)
    known = view.identities.get((kind, ask.name))
    if known is not None and _is_repeated(known.record, ask):
        return Admission(known.record, None)
    if verdict is TokenVerdict.SPENT:
        raise _refusal(verdict, token.record, ask)
    if key in view.quarantined:
        raise Conflict(f"the record of {kind}/{ask.name} cannot be read", hint="see `cloudless cluster status`")
    if known is not None and not names_exactly(token.record, ask.name):
        raise _taken(known, ask)
    record = IdentityRecord(
        name=ask.name,
        role=token.record.role,
        namespaces=token.record.namespaces,
        key_hashes=(ask.key_hash,),
        enrolled_at_ms=now_ms,
        enrolled_by=token.record.id,
    )
    change = Change(
        puts=(
            PutRecord(keys.token(token.record.id), replace(token.record, uses_left=token.record.uses_left - 1)),
            PutRecord(key, record),
        ),
        preconditions=(
            Precondition(keys.token(token.record.id), token.mod_revision),
            Precondition(key, known.mod_revision if known else 0),
        ),
        reason=f"{kind}/{ask.name} enrols with token {token.record.id}",
    )
    return Admission(record, change)


def is_disowned(view: View, token: TokenRecord) -> bool:
    """Return whether a token was made by somebody who is revoked now: it would be a way back in."""
    kind, _, name = token.created_by.partition("/")
    maker = view.identities.get((kind, name))
    return maker is not None and maker.record.revoked_at_ms > 0


def plan_renewal(view: View, identity: Identity, presented_hash: str, key_hash: str) -> Admission:
    """Decide whether `identity`, shown to hold the key `presented_hash`, gets a certificate for the key `key_hash`.

    Nothing is written while the key stays the same, so certificates can be renewed while the store takes no writes.
    Raises Denied.
    """
    known = view.identities.get((identity.kind.value, identity.name))
    key = keys.identity(identity.kind.value, identity.name)
    if known is None or known.record.revoked_at_ms:
        raise Denied(f"{identity.subject} {'was revoked' if known else 'is not enrolled'}", hint=_way_back(identity))
    record = known.record
    if presented_hash not in record.key_hashes:
        raise Denied(f"{identity.subject} has enrolled with another key since", hint=_way_back(identity))
    if key_hash == presented_hash:
        return Admission(record, None)
    record = replace(record, key_hashes=tuple(dict.fromkeys((key_hash, presented_hash)))[:KEYS_MAX])
    change = Change(
        puts=(PutRecord(key, record),),
        preconditions=(Precondition(key, known.mod_revision),),
        reason=f"{identity.subject} changes its key",
    )
    return Admission(record, change)


def judge_absence(identity: Identity, not_after_ms: int, now_ms: int) -> None:
    """Refuse a person whose certificate ran out too long ago. Raises Denied."""
    if not identity.serves and now_ms - not_after_ms > PERSON_ABSENCE_MAX_MS:
        raise Denied(f"the certificate of {identity.subject} ran out too long ago", hint="log in with a new token")


def _way_back(identity: Identity) -> str:
    if not identity.serves:
        return "log in with a new token"
    command = f"cloudless token create --role {identity.kind.value} --name {identity.name}"
    return f"start it with a token that names it: `{command}`"


def _is_repeated(record: IdentityRecord, ask: Ask) -> bool:
    """Whether the same asker comes again because it never heard the answer."""
    return record.enrolled_by == ask.token_id and ask.key_hash in record.key_hashes and not record.revoked_at_ms


def _taken(known: Enrolment, ask: Ask) -> Conflict:
    kind = kind_of(known.record.role).value
    state = "was revoked" if known.record.revoked_at_ms else "is enrolled with another key"
    return Conflict(
        f"{kind}/{ask.name} {state}",
        hint=f"to let it in anew: `cloudless token create --role {known.record.role.value.lower()} --name {ask.name}`",
    )


def _refusal(verdict: TokenVerdict, token: TokenRecord | None, ask: Ask) -> Denied | Unauthenticated:
    if verdict is TokenVerdict.UNKNOWN or token is None:
        return Unauthenticated(TokenVerdict.UNKNOWN.value, hint="see `cloudless token list`, or create a new one")
    if verdict is TokenVerdict.WRONG_ROLE:
        return Denied(f"token {token.id} is for the role {token.role.value.lower()}")
    if verdict is TokenVerdict.WRONG_NAME or not allows_name(token, ask.name):
        return Denied(f"token {token.id} is for {', '.join(token.names)}, not for {ask.name}")
    return Denied(f"{verdict.value} ({token.id})", hint="create a new one: `cloudless token create`")
