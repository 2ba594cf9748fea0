"""Secrets at rest: AES-256-GCM under the cluster key.

Every coordinator holds the cluster key in its data directory; the replicated state holds CA keys sealed by it. Whoever
reads the store or a backup without that key has nothing to sign with. Each sealed value is bound to what it is (its
label is authenticated), so that one cannot be put in another's place.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloudless.errors import BadCredentials

KEY_BYTES = 32
NONCE_BYTES = 12


class ClusterKey:
    """256 random bits that coordinators share. Its `repr` does not show them."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise BadCredentials(f"a cluster key has {KEY_BYTES} bytes, not {len(raw)}")
        self.raw = raw

    @classmethod
    def new(cls) -> ClusterKey:
        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def name(self) -> str:
        """What sealed values say they are sealed with; tells nothing of the key."""
        return hashlib.sha256(b"cloudless cluster key\0" + self.raw).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"ClusterKey({self.name})"

    def seal(self, plain: bytes, label: str) -> bytes:
        """Return `plain` encrypted, to be opened under the same label only."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self.raw).encrypt(nonce, plain, label.encode())

    def unseal(self, sealed: bytes, label: str) -> bytes:
        """Return what was sealed. Raises BadCredentials if it was changed, or sealed otherwise."""
        try:
            return AESGCM(self.raw).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], label.encode())
        except (InvalidTag, ValueError) as error:
            raise BadCredentials(
                f"what is sealed as {label} cannot be opened with cluster key {self.name}",
                hint="was the data directory copied from another cluster? Join again with an empty one",
            ) from error
