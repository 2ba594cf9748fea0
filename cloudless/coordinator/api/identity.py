"""IdentityService: tokens, identities and authorities, for admins. Getting in is in `enrolment`.

A token's text is shown once. The store keeps a hash of its secret; beside it, for the ten minutes that an answer is
remembered, the text sealed under the cluster key, so that a request whose answer was lost can be repeated on any
coordinator and still makes one token.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from cloudless.adapters.pki.authority import LEAF_LIFETIME_MAX_S, LEAF_LIFETIME_MIN_S
from cloudless.coordinator.api.access import Access, Decided, content_of, with_puts
from cloudless.coordinator.api.caller import current_actor
from cloudless.coordinator.api.enrolment import build_authorities, find_role, to_wire_role
from cloudless.coordinator.issuing import Issuer
from cloudless.coordinator.trust_keeper import build_next_authorities
from cloudless.core.identity.names import IdentityKind
from cloudless.core.identity.plans import (
    check_token,
    check_token_lists,
    plan_identity_revocation,
    plan_token,
    plan_token_revocation,
)
from cloudless.core.identity.rotation import find_rotations, plan_rotation, plan_rotation_start
from cloudless.core.identity.tokens import ID_BYTES, SECRET_BYTES, TTL_DEFAULT_S, Token, token_id_from
from cloudless.core.model import AuthorityPurpose, TokenRecord
from cloudless.core.plan import Change
from cloudless.core.state import Token as HeldToken
from cloudless.core.state import View
from cloudless.errors import InvalidSpec, Problem
from cloudless.rpc import codec
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

REASON_LENGTH_MAX = 200
PURPOSES_MAX = 16
_WIRE_PURPOSES = {getattr(objects_pb2, f"AUTHORITY_PURPOSE_{purpose.name}"): purpose for purpose in AuthorityPurpose}


class IdentityAdmin:
    """Tokens, identities, authorities."""

    def __init__(self, access: Access, issuer: Issuer) -> None:
        self._access, self._issuer = access, issuer

    # --- tokens ---

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        authority, key = self._issuer.get_authority(), self._issuer.get_cluster_key()
        token = Token(
            token_id_from(secrets.token_bytes(ID_BYTES)), secrets.token_bytes(SECRET_BYTES), authority.record.pin
        )
        record = self._build_token(request, token)
        sealed = key.seal(token.text.encode(), _label(token.id)).hex()

        def decide(view: View) -> Decided:
            event = self._access.event("TokenCreated", f"token/{token.id}", _describe(record))
            answer = {"id": token.id, "sealed": sealed, "expires_at_ms": record.expires_at_ms}
            return Decided(with_puts(plan_token(view, record), event), answer)

        written = await self._access.write(request.options, content_of(request), decide, context)
        answer = written.answer
        text = self._issuer.unseal(bytes.fromhex(answer["sealed"]), _label(answer["id"])).decode()
        return pb.CreateTokenResponse(
            header=self._access.header(written.revision),
            token=text,
            id=answer["id"],
            expires_at_ms=answer["expires_at_ms"],
        )

    def _build_token(self, request: pb.CreateTokenRequest, token: Token) -> TokenRecord:
        if problems := check_token_lists(request.names, request.namespaces):
            raise InvalidSpec(problems)
        role = find_role(request.role)
        if role is None:
            raise InvalidSpec([Problem("role", "must be coordinator, agent, viewer, operator or admin")])
        now_ms = self._access.clock.wall_ms()
        record = TokenRecord(
            id=token.id,
            secret_hash=token.secret_hash,
            role=role,
            names=tuple(dict.fromkeys(request.names)),
            namespaces=tuple(dict.fromkeys(request.namespaces)),
            uses_total=request.uses or 1,
            uses_left=request.uses or 1,
            created_at_ms=now_ms,
            created_by=current_actor(),
            expires_at_ms=now_ms + (request.ttl_s or TTL_DEFAULT_S) * 1000,
            pin=token.pin,
            description=request.description,
        )
        if problems := check_token(record):
            raise InvalidSpec(problems)
        return record

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        view = await self._access.settle(request.read, context)
        pins = {held.record.pin for held in view.authorities.values()}
        shown = [_to_token(held, pins, self._access.clock.wall_ms()) for _, held in sorted(view.tokens.items())]
        shown.sort(key=lambda token: (token.created_at_ms, token.id))
        return pb.ListTokensResponse(
            header=self._access.header(), tokens=[token for token in shown if request.all or token.state == "good"]
        )

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        if not request.id:
            raise InvalidSpec([Problem("id", "must be given")])

        def decide(view: View) -> Decided:
            _, change = plan_token_revocation(view, request.id, self._access.clock.wall_ms())
            return self._told(change, "TokenRevoked", f"token/{request.id}", "lets nobody in any more")

        written = await self._access.write(request.options, content_of(request), decide, context)
        return pb.RevokeTokenResponse(header=self._access.header(written.revision))

    # --- identities ---

    async def ListIdentities(self, request: pb.ListIdentitiesRequest, context: Any) -> pb.ListIdentitiesResponse:
        if request.kind:
            _check_kind(request.kind)
        view = await self._access.settle(request.read, context)
        return pb.ListIdentitiesResponse(
            header=self._access.header(),
            identities=[
                pb.EnrolledIdentity(
                    record=codec.to_message(held.record, objects_pb2.IdentityRecord),
                    kind=kind,
                    revision=held.mod_revision,
                )
                for (kind, _), held in sorted(view.identities.items())
                if request.kind in ("", kind)
            ],
        )

    async def RevokeIdentity(self, request: pb.RevokeIdentityRequest, context: Any) -> pb.RevokeIdentityResponse:
        _check_kind(request.kind)
        if len(request.reason) > REASON_LENGTH_MAX:
            raise InvalidSpec([Problem("reason", f"at most {REASON_LENGTH_MAX} characters")])

        def decide(view: View) -> Decided:
            now_ms = self._access.clock.wall_ms()
            _, change = plan_identity_revocation(view, request.kind, request.name, request.reason, now_ms)
            subject = f"{request.kind}/{request.name}"
            return self._told(change, "IdentityRevoked", subject, request.reason or "no reason given")

        written = await self._access.write(request.options, content_of(request), decide, context)
        return pb.RevokeIdentityResponse(header=self._access.header(written.revision))

    # --- authorities ---

    async def RotateCa(self, request: pb.RotateCaRequest, context: Any) -> pb.RotateCaResponse:
        purposes = _check_rotation(request)
        self._issuer.get_cluster_key()

        def decide(view: View) -> Decided:
            now_ms = self._access.clock.wall_ms()
            if request.hurry and any(rotation.purpose in purposes for rotation in find_rotations(view)):
                change = _merge(plan_rotation(view, now_ms, hurry=True, purposes=purposes))
            else:
                fresh = build_next_authorities(self._issuer, view, purposes, now_ms, request.leaf_lifetime_s)
                change = plan_rotation_start(view, fresh)
            return self._told(change, "TrustChanged", "cluster/pki", change.reason if change else "")

        written = await self._access.write(request.options, content_of(request), decide, context)
        return pb.RotateCaResponse(
            header=self._access.header(written.revision), authorities=build_authorities(self._access.view)
        )

    def _told(self, change: Change | None, kind: str, subject: str, message: str) -> Decided:
        if change is None:
            return Decided(None, {})
        return Decided(with_puts(change, self._access.event(kind, subject, message)), {})


def _check_rotation(request: pb.RotateCaRequest) -> list[AuthorityPurpose]:
    problems = []
    unknown = any(purpose not in _WIRE_PURPOSES for purpose in request.purposes)
    if unknown or len(request.purposes) > PURPOSES_MAX:
        problems.append(Problem("purposes", "must be of cluster, etcd-peers and etcd-clients"))
    if request.leaf_lifetime_s and not LEAF_LIFETIME_MIN_S <= request.leaf_lifetime_s <= LEAF_LIFETIME_MAX_S:
        problems.append(Problem("leaf_lifetime_s", f"must be from {LEAF_LIFETIME_MIN_S} to {LEAF_LIFETIME_MAX_S}"))
    if problems:
        raise InvalidSpec(problems)
    return list(dict.fromkeys(_WIRE_PURPOSES[purpose] for purpose in request.purposes)) or list(AuthorityPurpose)


def _check_kind(kind: str) -> None:
    known = [known.value for known in IdentityKind]
    if kind not in known:
        raise InvalidSpec([Problem("kind", f"must be one of {', '.join(known)}")])


def _merge(changes: Sequence[Change]) -> Change | None:
    """Return changes of different objects as one."""
    if not changes:
        return None
    return Change(
        puts=tuple(put for change in changes for put in change.puts),
        deletes=tuple(key for change in changes for key in change.deletes),
        preconditions=tuple(precondition for change in changes for precondition in change.preconditions),
        reason="; ".join(change.reason for change in changes),
    )


def _to_token(held: HeldToken, pins: set[str], now_ms: int) -> pb.Token:
    record = held.record
    state = "good"
    if record.revoked_at_ms:
        state = "revoked"
    elif now_ms >= record.expires_at_ms:
        state = "expired"
    elif not record.uses_left:
        state = "spent"
    elif record.pin not in pins:
        state = "outdated"
    return pb.Token(
        id=record.id,
        role=to_wire_role(record.role),
        names=record.names,
        namespaces=record.namespaces,
        uses_total=record.uses_total,
        uses_left=record.uses_left,
        created_at_ms=record.created_at_ms,
        created_by=record.created_by,
        expires_at_ms=record.expires_at_ms,
        revoked_at_ms=record.revoked_at_ms,
        description=record.description,
        state=state,
        revision=held.mod_revision,
    )


def _describe(record: TokenRecord) -> str:
    whom = f" named {', '.join(record.names)}" if record.names else ""
    where = f" in {', '.join(record.namespaces)}" if record.namespaces else ""
    return f"lets {record.uses_total} {record.role.value.lower()}(s){whom}{where} in"


def _label(token_id: str) -> str:
    return f"the text of token {token_id}"
