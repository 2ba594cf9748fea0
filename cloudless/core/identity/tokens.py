"""Join tokens: the one string that lets a new coordinator, agent or person in.

    cl1.<id>.<secret>.<pin>

`secret` is 256 random bits and `pin` the SHA-256 of the cluster CA's public key, both in base32. Whoever uses it
first compares the pin with the CA of the coordinator it reached, and sends the secret only to that cluster.

The cluster keeps a plain SHA-256 of id and secret. Slow hashes protect secrets that people chose; 256 random bits
cannot be guessed at any speed, and a slow hash would only let strangers keep the coordinators busy.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import Enum

from cloudless.core.model import Role, TokenRecord

SCHEME = "cl1"
SECRET_BYTES = 32
PIN_BYTES = 32
ID_PATTERN = re.compile(r"[a-z2-7]{10}")
ID_BYTES = 7
TTL_DEFAULT_S = 3600
TTL_MAX_S = 30 * 86_400
USES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Token:
    """A token in full. `pin` is hex, as elsewhere. Its text is a secret: `repr` does not show it."""

    id: str
    secret: bytes
    pin: str

    def __repr__(self) -> str:
        return f"Token(id={self.id!r})"

    @property
    def text(self) -> str:
        return ".".join((SCHEME, self.id, _encode(self.secret), _encode(bytes.fromhex(self.pin))))

    @property
    def secret_hash(self) -> str:
        return hash_secret(self.id, self.secret)


def token_id_from(random: bytes) -> str:
    """Return a token id made of `ID_BYTES` random bytes or more."""
    return _encode(random[:ID_BYTES])[:10]


def find_token(text: str) -> Token | None:
    """Return the token a text spells, None if it spells none. Spaces around it are forgiven."""
    parts = text.strip().lower().split(".")
    if len(parts) != 4 or parts[0] != SCHEME or not ID_PATTERN.fullmatch(parts[1]):
        return None
    secret, pin = _decode(parts[2]), _decode(parts[3])
    if secret is None or pin is None or len(secret) != SECRET_BYTES or len(pin) != PIN_BYTES:
        return None
    return Token(parts[1], secret, pin.hex())


def hash_secret(token_id: str, secret: bytes) -> str:
    """Return what the cluster keeps of a secret; the id is part of it, so that hashes cannot be exchanged."""
    return hashlib.sha256(b"cloudless join token\0" + token_id.encode() + b"\0" + secret).hexdigest()


class TokenVerdict(Enum):
    """The value is what a person is told; all but GOOD, SPENT and EXPIRED say the same to a stranger."""

    GOOD = "good"
    UNKNOWN = "no such token, or a wrong secret"
    REVOKED = "the token was revoked"
    EXPIRED = "the token has expired"
    SPENT = "the token is used up"
    WRONG_ROLE = "the token is for another role"
    WRONG_NAME = "the token is not for this name"


def judge_token(
    record: TokenRecord | None, presented_hash: str, role: Role | None, name: str, now_ms: int
) -> TokenVerdict:
    """Return whether a token lets `name` in as `role` (None: as whatever the token is for).

    The secret is compared first and in constant time: who does not have it learns nothing else.
    """
    expected = record.secret_hash if record is not None else "-" * 64
    if not hmac.compare_digest(expected.encode(), presented_hash.encode()) or record is None:
        return TokenVerdict.UNKNOWN
    if record.revoked_at_ms:
        return TokenVerdict.REVOKED
    if now_ms >= record.expires_at_ms:
        return TokenVerdict.EXPIRED
    if role is not None and role is not record.role:
        return TokenVerdict.WRONG_ROLE
    if not allows_name(record, name):
        return TokenVerdict.WRONG_NAME
    return TokenVerdict.GOOD if record.uses_left > 0 else TokenVerdict.SPENT


def allows_name(record: TokenRecord, name: str) -> bool:
    """Return whether a token may let `name` in: any, an exact id, or a beginning that ends in `*`."""
    return not record.names or any(_matches(pattern, name) for pattern in record.names)


def names_exactly(record: TokenRecord, name: str) -> bool:
    """Return whether whoever made the token meant this very one."""
    return name in record.names


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _encode(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _decode(text: str) -> bytes | None:
    if not re.fullmatch(r"[a-z2-7]+", text):
        return None
    try:
        raw = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except binascii.Error:
        return None
    return raw if _encode(raw) == text else None
