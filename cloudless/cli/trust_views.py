"""How tokens, identities and authorities look in tables and as plain values."""

from __future__ import annotations

from cloudless.cli.ages import format_age, format_span
from cloudless.cli.output import Column, Listing
from cloudless.cli.plain import enum_word, to_plain
from cloudless.cli.views import now_ms
from cloudless.rpc.v1.identity_pb2 import Authority, EnrolledIdentity, Token
from cloudless.rpc.v1.objects_pb2 import AuthorityPhase, AuthorityPurpose, Role


def _role(number: int) -> str:
    return enum_word(Role.DESCRIPTOR, number).lower()


def _left(at_ms: int) -> str:
    left_ms = at_ms - now_ms()
    return format_span(left_ms / 1000) if left_ms > 0 else "over"


TOKENS: Listing[Token] = Listing(
    kind="token",
    name=lambda t: t.id,
    plain=to_plain,
    columns=[
        Column("ID", lambda t: t.id),
        Column("ROLE", lambda t: _role(t.role)),
        Column("STATE", lambda t: t.state),
        Column("USES", lambda t: f"{t.uses_left}/{t.uses_total}"),
        Column("LEFT", lambda t: _left(t.expires_at_ms)),
        Column("NAMES", lambda t: ",".join(t.names) or "any"),
        Column("DESCRIPTION", lambda t: t.description or "-"),
        Column("BOUND TO", lambda t: ",".join(t.namespaces) or "-", wide=True),
        Column("AGE", lambda t: format_age(t.created_at_ms, now_ms()), wide=True),
        Column("BY", lambda t: t.created_by or "-", wide=True),
    ],
)


def _state(identity: EnrolledIdentity) -> str:
    return "revoked" if identity.record.revoked_at_ms else "enrolled"


IDENTITIES: Listing[EnrolledIdentity] = Listing(
    kind="identity",
    name=lambda i: f"{i.kind}/{i.record.name}",
    plain=to_plain,
    columns=[
        Column("KIND", lambda i: i.kind),
        Column("NAME", lambda i: i.record.name),
        Column("ROLE", lambda i: _role(i.record.role)),
        Column("STATE", _state),
        Column("BOUND TO", lambda i: ",".join(i.record.namespaces) or "-"),
        Column("ENROLLED", lambda i: format_age(i.record.enrolled_at_ms, now_ms())),
        Column("WITH", lambda i: i.record.enrolled_by or "-"),
        Column("REASON", lambda i: i.record.revoked_reason or "-", wide=True),
        Column("KEYS", lambda i: ",".join(key[:16] for key in i.record.key_hashes) or "-", wide=True),
    ],
)


def _next(authority: Authority) -> str:
    return _left(authority.next_phase_at_ms) if authority.next_phase_at_ms else "-"


AUTHORITIES: Listing[Authority] = Listing(
    kind="ca",
    name=lambda a: a.id,
    plain=to_plain,
    columns=[
        Column("ID", lambda a: a.id),
        Column("FOR", lambda a: enum_word(AuthorityPurpose.DESCRIPTOR, a.purpose).lower().replace("_", "-")),
        Column("PHASE", lambda a: enum_word(AuthorityPhase.DESCRIPTOR, a.phase).lower()),
        Column("NEXT PHASE", _next),
        Column("LEAVES", lambda a: format_span(a.leaf_lifetime_s)),
        Column("LEFT", lambda a: _left(a.not_after_ms)),
        Column("PIN", lambda a: a.pin[:16]),
        Column("FULL PIN", lambda a: a.pin, wide=True),
    ],
)
