"""IdentityService, the side of who wants in: certificates for a token, for an old certificate, for the caller.

Whoever has no identity yet may try only so often. What signs is asked for before a token's use is spent, so that a
coordinator that cannot sign spends none. No answer that the store remembers holds a secret or a certificate: a repeated
request gets a certificate signed anew, for the same key.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from cloudless.adapters.pki.certificate import find_issuer, hash_key, read_certificates, read_identity, read_peer
from cloudless.adapters.pki.request import read_request
from cloudless.coordinator.api.access import Access, Decided, deadline_s, with_puts
from cloudless.coordinator.api.caller import find_presence
from cloudless.coordinator.audit import Auditor
from cloudless.coordinator.guard import place_of
from cloudless.coordinator.issuing import Issuer
from cloudless.core.identity.enrolment import Ask, judge_absence, plan_enrolment, plan_renewal
from cloudless.core.identity.names import Identity, kind_of
from cloudless.core.identity.pacing import Pace
from cloudless.core.identity.rotation import find_rotations
from cloudless.core.identity.tokens import Token, find_token
from cloudless.core.keys import NAME_PATTERN
from cloudless.core.model import AuthorityPurpose, Role
from cloudless.core.state import View
from cloudless.errors import (
    BadCredentials,
    Denied,
    InvalidSpec,
    Problem,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UserError,
)
from cloudless.rpc import codec
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

FRESH_TIMEOUT_S = 1.0
"""How long a renewal waits for the newest state before it goes by what is at hand: it must work without a quorum."""
_WIRE_ROLES = {getattr(objects_pb2, f"ROLE_{role.name}"): role for role in Role}


class Enrolment:
    """GetCa, Enrol, Reenrol, Renew, WhoAmI."""

    def __init__(self, access: Access, issuer: Issuer, auditor: Auditor) -> None:
        self._access, self._issuer, self._auditor = access, issuer, auditor
        self._pace = Pace()

    async def GetCa(self, request: pb.GetCaRequest, context: Any) -> pb.GetCaResponse:
        return pb.GetCaResponse(
            header=self._access.header(),
            roots_pem=self._issuer.roots_pem(AuthorityPurpose.CLUSTER),
            authorities=build_authorities(self._access.view),
        )

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        self._take_turn(context)
        token, role = _check_enrolment(request)
        key = read_request(request.csr_pem)
        self._issuer.get_authority()
        ask = Ask(token.id, token.secret_hash, request.name, hash_key(key), role)

        def decide(view: View) -> Decided:
            admission = plan_enrolment(view, ask, self._access.clock.wall_ms())
            answer = {"role": admission.record.role.name}
            if admission.change is None:
                return Decided(None, answer)
            subject = f"{kind_of(admission.record.role).value}/{ask.name}"
            event = self._access.event("Enrolled", subject, f"with token {token.id}")
            return Decided(with_puts(admission.change, event), answer)

        content = hashlib.sha256(repr(("enrol", ask)).encode()).digest()
        try:
            written = await self._access.write(request.options, content, decide, context)
        except UserError as error:
            why = f"{ask.name} with token {token.id}: {error.message}"
            self._auditor.refused(f"address/{place_of(context)}", "", "IdentityService/Enrol", why)
            raise
        self._pace.give_back(place_of(context))
        granted = Role[written.answer["role"]]
        identity = Identity(self._issuer.cluster_id, kind_of(granted), ask.name)
        return pb.EnrolResponse(
            header=self._access.header(written.revision),
            issued=self._issue(identity, key),
            role=to_wire_role(granted),
            handover=self._issuer.build_handover() if granted is Role.COORDINATOR else None,
        )

    async def Reenrol(self, request: pb.ReenrolRequest, context: Any) -> pb.ReenrolResponse:
        """The proof is the key, which the records know; the old certificate only says whose it is.

        So a machine may come back after its CA has been replaced. A person's certificate must also show, by a CA still
        known, that it did not run out too long ago.
        """
        self._take_turn(context)
        key = read_request(request.csr_pem)
        try:
            certificate = read_certificates(request.certificate_pem)[0]
            identity, peer = read_identity(certificate), read_peer(request.certificate_pem.encode())
        except (BadCredentials, UnicodeEncodeError) as error:
            raise InvalidSpec([Problem("certificate_pem", "is not the certificate of an identity")]) from error
        try:
            if identity.cluster_id != self._issuer.cluster_id:
                raise Unauthenticated(f"{identity} belongs to another cluster than {self._issuer.cluster_id}")
            roots = read_certificates(self._issuer.roots_pem(AuthorityPurpose.CLUSTER))
            if not identity.serves and find_issuer(certificate, roots) is None:
                raise Unauthenticated("the old certificate is of a CA that is gone", hint="log in with a new token")
            judge_absence(identity, peer.validity.not_after_ms, self._access.clock.wall_ms())
            await self._freshen(context)
            plan_renewal(self._access.view, identity, hash_key(key), hash_key(key))
        except (Denied, Unauthenticated) as error:
            self._auditor.refused(
                f"address/{place_of(context)}", identity.subject, "IdentityService/Reenrol", error.message
            )
            raise
        self._pace.give_back(place_of(context))
        return pb.ReenrolResponse(header=self._access.header(), issued=self._issue(identity, key))

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewResponse:
        presence = find_presence()
        if presence is None:
            raise Unauthenticated("only who shows a certificate can renew it", hint="this coordinator runs without TLS")
        key, peer = read_request(request.csr_pem), presence.peer
        key_hash = hash_key(key)
        await self._freshen(context)
        revision = 0
        if plan_renewal(self._access.view, peer.identity, peer.key_hash, key_hash).change is not None:

            def decide(view: View) -> Decided:
                change = plan_renewal(view, peer.identity, peer.key_hash, key_hash).change
                if change is None:
                    return Decided(None, {})
                event = self._access.event("KeyChanged", peer.identity.subject, f"key {key_hash[:16]}")
                return Decided(with_puts(change, event), {})

            content = repr(("renew", peer.identity.uri, peer.key_hash, key_hash)).encode()
            revision = (await self._access.write(request.options, content, decide, context)).revision
        return pb.RenewResponse(header=self._access.header(revision), issued=self._issue(peer.identity, key))

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:
        presence = find_presence()
        if presence is None:
            return pb.WhoAmIResponse(header=self._access.header())
        caller = presence.caller
        return pb.WhoAmIResponse(
            header=self._access.header(),
            name=caller.name,
            role=to_wire_role(caller.role),
            namespaces=caller.namespaces,
        )

    def _issue(self, identity: Identity, key: EllipticCurvePublicKey) -> pb.Issued:
        return self._issuer.issue(identity, key, self._access.replica.staleness_s)

    def _take_turn(self, context: Any) -> None:
        if not self._pace.take(place_of(context), self._access.clock.monotonic_s()):
            raise RateLimited("too many tries without an identity", hint="wait some seconds, then try again")

    async def _freshen(self, context: Any) -> None:
        """Wait a little for the newest state."""
        try:
            await self._access.replica.linearize(timeout_s=min(FRESH_TIMEOUT_S, deadline_s(context)))
        except Unavailable:
            if not self._access.replica.loaded.is_set():
                raise


def build_authorities(view: View) -> list[pb.Authority]:
    """Return all authorities as people and nodes may see them."""
    next_at_ms = {
        name: rotation.next_at_ms for rotation in find_rotations(view) for name in (rotation.old_id, rotation.new_id)
    }
    shown = []
    for _, held in sorted(view.authorities.items()):
        record = codec.to_message(held.record, objects_pb2.AuthorityRecord)
        shown.append(
            pb.Authority(
                id=record.id,
                purpose=record.purpose,
                phase=record.phase,
                phase_since_ms=record.phase_since_ms,
                certificate_pem=record.certificate_pem,
                pin=record.pin,
                not_after_ms=record.not_after_ms,
                leaf_lifetime_s=record.leaf_lifetime_s,
                next_phase_at_ms=next_at_ms.get(record.id, 0),
            )
        )
    return shown


def find_role(wire: int, field: str = "role") -> Role | None:
    """Return the role of a request, None if it names none. Raises InvalidSpec."""
    if wire and wire not in _WIRE_ROLES:
        raise InvalidSpec([Problem(field, "must be coordinator, agent, viewer, operator or admin")])
    return _WIRE_ROLES.get(wire)


def to_wire_role(role: Role) -> Any:
    return getattr(objects_pb2, f"ROLE_{role.name}")


def _check_enrolment(request: pb.EnrolRequest) -> tuple[Token, Role | None]:
    """Return what a request shows. Raises InvalidSpec, which never quotes the token."""
    problems = []
    token = find_token(request.token)
    if token is None:
        problems.append(Problem("token", "is not a join token: it has four parts, begins with cl1. and must be whole"))
    if not NAME_PATTERN.fullmatch(request.name):
        problems.append(Problem("name", "must be 1 to 63 of a-z, 0-9, '-' and '.'"))
    if token is None or problems:
        raise InvalidSpec(problems)
    return token, find_role(request.role)
