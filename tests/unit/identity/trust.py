"""Short ways to make the records of trust."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudless.core import keys
from cloudless.core.identity.names import kind_of
from cloudless.core.identity.tokens import hash_secret
from cloudless.core.model import AuthorityPhase, AuthorityPurpose, AuthorityRecord, IdentityRecord, Role, TokenRecord
from cloudless.testing.builders import TestCluster

NOW_MS = 1_800_000_000_000
SECRET = b"s" * 32
DAY_MS = 86_400_000


def build_token(token_id: str = "tokenaaaaa", **fields: Any) -> TokenRecord:
    """Return a token for one agent, good for an hour, whose secret is SECRET."""
    made = TokenRecord(
        id=token_id,
        secret_hash=hash_secret(token_id, SECRET),
        role=Role.AGENT,
        created_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 3_600_000,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def build_authority(generation: int = 1, **fields: Any) -> AuthorityRecord:
    """Return a CA of the cluster that signs, for certificates of a day."""
    made = AuthorityRecord(
        id=f"cluster-{generation}",
        purpose=AuthorityPurpose.CLUSTER,
        generation=generation,
        phase=AuthorityPhase.ISSUING,
        phase_since_ms=NOW_MS,
        certificate_pem="",
        sealed_key=b"",
        sealed_with="",
        pin="",
        not_after_ms=NOW_MS + 3650 * DAY_MS,
        leaf_lifetime_s=86_400,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def put_token(cluster: TestCluster, token: TokenRecord) -> None:
    cluster.put(keys.token(token.id), token)


def put_authority(cluster: TestCluster, authority: AuthorityRecord) -> None:
    cluster.put(keys.authority(authority.id), authority)


def put_identity(cluster: TestCluster, name: str, role: Role = Role.AGENT, **fields: Any) -> IdentityRecord:
    record = replace(IdentityRecord(name=name, role=role, key_hashes=("key",)), **fields)  # type: ignore[arg-type]
    cluster.put(keys.identity(kind_of(role).value, name), record)
    return record
