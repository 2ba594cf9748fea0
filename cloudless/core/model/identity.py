"""Who may take part: certificate authorities, join tokens, and everyone who was let in.

Three kinds of record. An authority is a CA with its private key sealed; a token lets somebody enrol; an
identity is somebody who did. What a certificate says is only *who* somebody is; what they may do stands in
their identity record, so that a role taken away or an identity revoked counts at the next call and not when a
certificate runs out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.model.evolving import Evolving


class Role(Enum):
    """What somebody is. The last three are people, each allowed all that the one before is.

    VIEWER    sees workloads, nodes, events
    OPERATOR  changes workloads and nodes
    ADMIN     changes the cluster itself: members, tokens, authorities, backups
    """

    COORDINATOR = "COORDINATOR"
    AGENT = "AGENT"
    VIEWER = "VIEWER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


class AuthorityPurpose(Enum):
    """What a CA signs for. Separate CAs, so that no certificate of one use opens another door.

    CLUSTER       coordinators, agents and people, to each other
    ETCD_PEERS    etcd members to each other
    ETCD_CLIENTS  etcd's clients, which are coordinators only
    """

    CLUSTER = "CLUSTER"
    ETCD_PEERS = "ETCD_PEERS"
    ETCD_CLIENTS = "ETCD_CLIENTS"


class AuthorityPhase(Enum):
    """Where a CA is in its life; see `cloudless.core.identity.rotation`.

    DISTRIBUTING  trusted, so that everyone knows it before it signs anything
    ISSUING       trusted, and signs; one of each purpose
    RETIRING      trusted until the last certificate it signed has run out, then deleted
    """

    DISTRIBUTING = "DISTRIBUTING"
    ISSUING = "ISSUING"
    RETIRING = "RETIRING"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityRecord(Evolving):
    """A CA. `sealed_key` is its private key, encrypted by the cluster key whose name is `sealed_with`.

    `pin` is the hash of its public key, which join tokens carry. `leaf_lifetime_s` is how long the certificates
    it signs are good for; written here so that all coordinators issue alike and a rotation knows how long to wait.
    """

    id: str
    purpose: AuthorityPurpose
    generation: int
    phase: AuthorityPhase
    phase_since_ms: int
    certificate_pem: str
    sealed_key: bytes
    sealed_with: str
    pin: str
    not_after_ms: int
    leaf_lifetime_s: int
    created_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord(Evolving):
    """A join token without its secret. `secret_hash` is the hex SHA-256 of id and secret.

    `names` limits whom it lets in: exact ids, or beginnings that end in `*`; empty: any. `namespaces` goes to the
    identity of a person; empty: all. `pin` is the CA the token's text names.
    """

    id: str
    secret_hash: str
    role: Role
    names: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    uses_total: int = 1
    uses_left: int = 1
    created_at_ms: int = 0
    created_by: str = ""
    expires_at_ms: int = 0
    revoked_at_ms: int = 0
    pin: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRecord(Evolving):
    """Somebody who was let in. `key_hashes` are their public keys, newest first: any other key is somebody else.

    `enrolled_by` is the id of the token that was used, or who vouched. `namespaces` binds a person; empty: all.
    `cluster_keys` are the names of the cluster keys that a coordinator holds, as it says itself.
    """

    name: str
    role: Role
    namespaces: tuple[str, ...] = ()
    key_hashes: tuple[str, ...] = ()
    enrolled_at_ms: int = 0
    enrolled_by: str = ""
    revoked_at_ms: int = 0
    revoked_reason: str = ""
    cluster_keys: tuple[str, ...] = ()


class KeyPhase(Enum):
    """Where a replacement of the cluster key is; see `cloudless.core.identity.key_rotation`.

    WANTED        the leader is to make a key
    DISTRIBUTING  it is made; coordinators fetch it, and nothing is sealed with it
    DONE          everything is sealed with it
    """

    WANTED = "WANTED"
    DISTRIBUTING = "DISTRIBUTING"
    DONE = "DONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotationRecord(Evolving):
    """The last replacement of the cluster key. `key` is the new one's name, "" while it is WANTED."""

    phase: KeyPhase
    phase_since_ms: int
    key: str = ""
