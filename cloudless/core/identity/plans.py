"""Changes to tokens, identities and authorities that somebody asked for, decided from the state."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import replace

from cloudless.core import keys
from cloudless.core.identity.enrolment import is_disowned
from cloudless.core.identity.names import kind_of
from cloudless.core.identity.tokens import TTL_MAX_S, USES_MAX
from cloudless.core.keys import NAME_PATTERN
from cloudless.core.model import AuthorityRecord, ClusterRecord, IdentityRecord, Role, TokenRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import Enrolment, Token, View
from cloudless.errors import Conflict, Denied, NotFound, Problem

TOKENS_MAX = 1_000
NAMES_MAX = 100
DESCRIPTION_LENGTH_MAX = 200
TOKEN_KEPT_MS = 86_400_000
"""Tokens that let nobody in any more are shown this long after they have expired."""
REVOKED_KEPT_MS = 180 * 86_400_000
"""Revoked identities are remembered longer than any certificate is good for (90 days)."""


def plan_bootstrap(view: View, cluster: ClusterRecord, authorities: Iterable[AuthorityRecord]) -> Change | None:
    """Plan to write the first authorities and, if it has none yet, the cluster's name; None if they are there."""
    if view.authorities or any(key.startswith(keys.AUTHORITIES) for key in view.quarantined):
        return None
    records = sorted(authorities, key=lambda record: record.id)
    puts = [PutRecord(keys.authority(record.id), record) for record in records]
    if view.cluster is None:
        puts.append(PutRecord(keys.CLUSTER, cluster))
    return Change(
        puts=tuple(puts),
        preconditions=tuple(Precondition(put.key, 0) for put in puts),
        reason=f"found the authorities of cluster {cluster.id}",
    )


def plan_own_identity(view: View, name: str, key_hash: str, cluster_keys: Iterable[str], now_ms: int) -> Change | None:
    """Plan a coordinator's own record; None if it says so already, or says that the coordinator was revoked.

    Coordinators sign for themselves, so their records follow their keys instead of preceding them. `cluster_keys` are
    the names of those it holds.
    """
    kind = kind_of(Role.COORDINATOR).value
    key = keys.identity(kind, name)
    known = view.identities.get((kind, name))
    if key in view.quarantined or (known and known.record.revoked_at_ms):
        return None
    record, reason = IdentityRecord(name=name, role=Role.COORDINATOR), f"coordinator {name} records its cluster keys"
    if known is not None and key_hash in known.record.key_hashes:
        record = known.record
    else:
        reason = f"coordinator {name} records its key"
        record = replace(record, key_hashes=(key_hash,), enrolled_at_ms=now_ms, enrolled_by="itself")
    record = replace(record, cluster_keys=tuple(sorted(cluster_keys)))
    if known is not None and record == known.record:
        return None
    return Change(
        puts=(PutRecord(key, record),),
        preconditions=(Precondition(key, known.mod_revision if known else 0),),
        reason=reason,
    )


def check_token_lists(names: Sized, namespaces: Sized) -> list[Problem]:
    """Return which lists of a wish are too long to be looked at one by one."""
    lists = {"names": len(names), "namespaces": len(namespaces)}
    too_long = {field: count for field, count in lists.items() if count > NAMES_MAX}
    return [Problem(field, f"has {count} entries; at most {NAMES_MAX}") for field, count in too_long.items()]


def check_token(record: TokenRecord) -> list[Problem]:
    """Return every fault of a token that somebody wants made."""
    problems = []
    ttl_s = (record.expires_at_ms - record.created_at_ms) / 1000
    if not 1 <= ttl_s <= TTL_MAX_S:
        problems.append(Problem("ttl_s", f"must be from 1 to {TTL_MAX_S} seconds (30 days)"))
    if not 1 <= record.uses_total <= USES_MAX:
        problems.append(Problem("uses", f"must be from 1 to {USES_MAX}"))
    if too_many := check_token_lists(record.names, record.namespaces):
        return problems + too_many
    for name in record.names:
        if not NAME_PATTERN.fullmatch(name[:-1].rstrip("-.") if name.endswith("*") else name):
            problems.append(Problem("names", f"{name[:70]!r} is neither an id nor the beginning of one with `*`"))
    for namespace in record.namespaces:
        if not NAME_PATTERN.fullmatch(namespace):
            problems.append(Problem("namespaces", f"{namespace[:70]!r} is not the name of a namespace"))
    if record.namespaces and record.role in (Role.COORDINATOR, Role.AGENT, Role.ADMIN):
        problems.append(Problem("namespaces", f"cannot bind the role {record.role.value.lower()}"))
    if len(record.description) > DESCRIPTION_LENGTH_MAX:
        problems.append(Problem("description", f"at most {DESCRIPTION_LENGTH_MAX} characters"))
    return problems


def plan_token(view: View, record: TokenRecord) -> Change:
    """Plan a new token. Raises Conflict if there are too many."""
    if len(view.tokens) >= TOKENS_MAX:
        raise Conflict(f"there are {TOKENS_MAX} tokens already", hint="revoke some: `cloudless token revoke`")
    key = keys.token(record.id)
    return Change(
        puts=(PutRecord(key, record),),
        preconditions=(Precondition(key, 0),),
        reason=f"token {record.id} for {record.role.value.lower()}",
    )


def plan_token_revocation(view: View, token_id: str, now_ms: int) -> tuple[Token, Change | None]:
    """Plan to make a token useless at once. Raises NotFound."""
    token = view.tokens.get(token_id)
    if token is None:
        raise NotFound(f"there is no token {token_id}", hint="see cloudless token list")
    if token.record.revoked_at_ms:
        return token, None
    key = keys.token(token_id)
    change = Change(
        puts=(PutRecord(key, replace(token.record, revoked_at_ms=now_ms)),),
        preconditions=(Precondition(key, token.mod_revision),),
        reason=f"token {token_id} is revoked",
    )
    return token, change


def plan_identity_revocation(
    view: View, kind: str, name: str, reason: str, now_ms: int
) -> tuple[Enrolment, Change | None]:
    """Plan to lock somebody out at once, whatever certificate it holds. Raises NotFound, Denied.

    The tokens that it made let nobody in from then on: by one of them it could come back. The last admin cannot be
    revoked: nobody could let another one in.
    """
    known = view.identities.get((kind, name))
    if known is None:
        raise NotFound(f"there is no {kind} {name} enrolled", hint="see cloudless identity list")
    if known.record.revoked_at_ms:
        return known, None
    if known.record.role is Role.ADMIN and len(_admins(view)) == 1:
        raise Denied(
            f"{name} is the only admin", hint="let another admin in first: cloudless token create --role admin"
        )
    key = keys.identity(kind, name)
    change = Change(
        puts=(PutRecord(key, replace(known.record, revoked_at_ms=now_ms, revoked_reason=reason)),),
        preconditions=(Precondition(key, known.mod_revision),),
        reason=f"{kind}/{name} is revoked: {reason or 'no reason given'}",
    )
    return known, change


def plan_disowned_tokens(view: View, now_ms: int) -> tuple[Change, ...]:
    """Plan to revoke the tokens of who was revoked, for good: also when the same name is let in anew."""
    changes = []
    for token_id, token in sorted(view.tokens.items()):
        if is_disowned(view, token.record) and not token.record.revoked_at_ms:
            _, change = plan_token_revocation(view, token_id, now_ms)
            changes.append(change)
    return tuple(change for change in changes if change is not None)


def plan_token_reap(view: View, now_ms: int) -> tuple[Change, ...]:
    """Plan to forget tokens that have been useless for a day."""
    over = [
        token
        for token_id, token in sorted(view.tokens.items())
        if now_ms - (token.record.revoked_at_ms or token.record.expires_at_ms) > TOKEN_KEPT_MS
    ]
    return tuple(
        Change(
            deletes=(keys.token(token.record.id),),
            preconditions=(Precondition(keys.token(token.record.id), token.mod_revision),),
            reason=f"forget token {token.record.id}",
        )
        for token in over
    )


def plan_identity_reap(view: View, now_ms: int) -> tuple[Change, ...]:
    """Plan to forget identities that were revoked long ago: every certificate they ever had has run out."""
    changes = []
    for (kind, name), known in sorted(view.identities.items()):
        revoked_at_ms = known.record.revoked_at_ms
        if revoked_at_ms and now_ms - revoked_at_ms > REVOKED_KEPT_MS:
            key = keys.identity(kind, name)
            changes.append(
                Change(
                    deletes=(key,),
                    preconditions=(Precondition(key, known.mod_revision),),
                    reason=f"forget {kind}/{name}, revoked long ago",
                )
            )
    return tuple(changes)


def _admins(view: View) -> list[str]:
    return [
        name
        for (_, name), known in sorted(view.identities.items())
        if known.record.role is Role.ADMIN and not known.record.revoked_at_ms
    ]
