"""How an identity is written: one URI in a certificate, and a server name that follows from it.

    spiffe://<cluster>/coordinator/<id>     spiffe://<cluster>/agent/<id>     spiffe://<cluster>/person/<name>

A certificate carries exactly one such URI, put there by whoever signs, never taken from the request. A client of
gRPC insists on checking a DNS name, and addresses may all change, so who serves also carries a name made from the
identity: `<id>.coordinator.cloudless`, `<id>.agent.cloudless`. Every coordinator answers to `coordinator.cloudless`
too, for those who do not care which one they reached. These names are never looked up; a client names the one it
expects.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum

from cloudless.core.keys import NAME_PATTERN
from cloudless.core.model import Role

SUFFIX = "cloudless"
ANY_COORDINATOR = f"coordinator.{SUFFIX}"
"""The name every coordinator's certificate carries."""


class IdentityKind(Enum):
    """The value is the word in URIs and keys."""

    COORDINATOR = "coordinator"
    AGENT = "agent"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody of one cluster."""

    cluster_id: str
    kind: IdentityKind
    name: str

    @property
    def uri(self) -> str:
        return f"spiffe://{self.cluster_id}/{self.kind.value}/{self.name}"

    @property
    def subject(self) -> str:
        """What events and logs call it."""
        return f"{self.kind.value}/{self.name}"

    @property
    def serves(self) -> bool:
        """Whether others dial it."""
        return self.kind is not IdentityKind.PERSON

    def __str__(self) -> str:
        return self.uri


_URI = re.compile(r"spiffe://([a-z0-9][a-z0-9.-]{0,254})/(coordinator|agent|person)/([a-z0-9.-]{1,63})")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_MADE = re.compile(r"id-[0-9a-f]{48}")


def kind_of(role: Role) -> IdentityKind:
    """Return what kind of identity has this role."""
    match role:
        case Role.COORDINATOR:
            return IdentityKind.COORDINATOR
        case Role.AGENT:
            return IdentityKind.AGENT
        case _:
            return IdentityKind.PERSON


def find_identity(uri: str) -> Identity | None:
    """Return the identity a URI names, None if it is not exactly one of ours."""
    match = _URI.fullmatch(uri)
    if match is None or not NAME_PATTERN.fullmatch(match[3]):
        return None
    return Identity(match[1], IdentityKind(match[2]), match[3])


def server_name(kind: IdentityKind, name: str) -> str:
    """Return the DNS name that the certificate of a coordinator or agent carries and its clients expect.

    An id may hold dots in places where a host name may not (`a..b`, `a.-b`); such ids, and ids that look like the
    replacement, are replaced by one label made of their hash, so that two ids never share a name.
    """
    legal = all(_LABEL.fullmatch(label) for label in name.split("."))
    label = name if legal and not _MADE.fullmatch(name) else f"id-{hashlib.sha256(name.encode()).hexdigest()[:48]}"
    return f"{label}.{kind.value}.{SUFFIX}"


def server_names(identity: Identity) -> tuple[str, ...]:
    """Return all DNS names of an identity's certificate; none for people, who serve nothing."""
    if not identity.serves:
        return ()
    own = server_name(identity.kind, identity.name)
    return (own, ANY_COORDINATOR) if identity.kind is IdentityKind.COORDINATOR else (own,)
