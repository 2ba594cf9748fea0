"""Encrypt a stream in chunks: read with bounded memory, and no chunk can be changed, moved or left out unnoticed.

    key     scrypt(passphrase or content of a key file, salt): 256 bit, another one for every file
    chunk   AES-256-GCM; nonce = 7 random bytes of the file, 4 bytes counter, 1 byte "this is the last"
            associated data = SHA-256 of the file's header, so the manifest is sealed with the content

That is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): a chunk in another place, a missing last
chunk and one more after it all fail to open. `check` in the header tells a wrong key from a damaged file.

An unencrypted stream has the same form with nothing sealed: only the hashes in the manifest protect it, against
accidents and not against people.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cloudless.errors import CorruptBackup, InvalidSpec, Problem, WrongKey

AES_GCM = "aes-256-gcm"
NONE = "none"
SECRET_LENGTH_MIN = 12
# 32 MiB and a tenth of a second per guess.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 15, 8, 1
# A header comes from anywhere: what it asks for must not exhaust this machine (256 MiB).
_SCRYPT_N_MAX, _SCRYPT_R_MAX, _SCRYPT_P_MAX = 1 << 18, 8, 4
_CHECKED = b"cloudless backup key"


class Sealer(Protocol):
    """Turns chunk after chunk into what is stored, or back. Chunks must come in order; the last is told apart."""

    def __call__(self, chunk: bytes, *, last: bool) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How a file is sealed, as its header says it. All but `cipher` are empty where nothing is sealed."""

    cipher: str
    salt: bytes = b""
    nonce_prefix: bytes = b""
    check: bytes = b""
    n: int = 0
    r: int = 0
    p: int = 0

    @property
    def encrypted(self) -> bool:
        return self.cipher != NONE

    def to_document(self) -> dict[str, Any]:
        if not self.encrypted:
            return {"cipher": NONE}
        kdf = {"name": "scrypt", "salt": self.salt.hex(), "n": self.n, "r": self.r, "p": self.p}
        return {"cipher": self.cipher, "kdf": kdf, "nonce_prefix": self.nonce_prefix.hex(), "check": self.check.hex()}


def parse_sealing(document: Any) -> Sealing:
    """Return the sealing that a header's plain values stand for. Raises CorruptBackup."""
    try:
        if document["cipher"] == NONE:
            return Sealing(cipher=NONE)
        kdf: Mapping[str, Any] = document["kdf"]
        sealing = Sealing(
            cipher=document["cipher"], salt=bytes.fromhex(kdf["salt"]),
            n=int(kdf["n"]), r=int(kdf["r"]), p=int(kdf["p"]),
            nonce_prefix=bytes.fromhex(document["nonce_prefix"]), check=bytes.fromhex(document["check"]),
        )  # fmt: skip
        known = sealing.cipher == AES_GCM and kdf["name"] == "scrypt"
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptBackup(f"the backup does not say how it is encrypted: {error!r}") from error
    sane = len(sealing.salt) >= 16 and len(sealing.nonce_prefix) == 7 and len(sealing.check) == 32
    cheap = sealing.n <= _SCRYPT_N_MAX and sealing.r <= _SCRYPT_R_MAX and sealing.p <= _SCRYPT_P_MAX
    if not (known and sane and cheap):
        raise CorruptBackup(
            "the backup is encrypted in a way that this version does not know",
            hint="use the version of cloudless that made it",
        )
    return sealing


def clean_secret(raw: bytes) -> bytes:
    """Return a passphrase or the content of a key file without the newline an editor left. Raises InvalidSpec."""
    secret = raw.strip(b"\r\n")
    if len(secret) < SECRET_LENGTH_MIN:
        raise InvalidSpec(
            [Problem("key", f"must be at least {SECRET_LENGTH_MIN} characters long, not {len(secret)}")],
            hint="make a key file with `openssl rand -base64 32`, and keep a copy of it apart from the backups",
        )
    return secret


def new_sealing(secret: bytes | None) -> tuple[Sealing, bytes]:
    """Return a fresh sealing under `secret` (None: unencrypted), and its key."""
    if secret is None:
        return Sealing(cipher=NONE), b""
    salt = secrets.token_bytes(16)
    sealing = Sealing(cipher=AES_GCM, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    key = _derive(secret, sealing)
    return Sealing(
        cipher=AES_GCM, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P,
        nonce_prefix=secrets.token_bytes(7), check=_check(key),
    ), key  # fmt: skip


def open_sealing(sealing: Sealing, secret: bytes | None) -> bytes:
    """Return the key of a sealed file. Raises WrongKey."""
    if not sealing.encrypted:
        return b""
    if secret is None:
        raise WrongKey("the backup is encrypted", hint="give its key with --key-file or --passphrase-file")
    key = _derive(secret, sealing)
    if not hmac.compare_digest(_check(key), sealing.check):
        raise WrongKey("this is not the key of the backup", hint="each backup keeps the key it was made with")
    return key


def build_sealer(sealing: Sealing, key: bytes, header_sha256: bytes) -> Sealer:
    """Return what seals the chunks of one file, in order."""
    return _Chunks(sealing, key, header_sha256, opens=False) if sealing.encrypted else _as_it_is


def build_opener(sealing: Sealing, key: bytes, header_sha256: bytes) -> Sealer:
    """Return what opens them again; it raises CorruptBackup for one that is not as it was written."""
    return _Chunks(sealing, key, header_sha256, opens=True) if sealing.encrypted else _as_it_is


def _as_it_is(chunk: bytes, *, last: bool) -> bytes:
    return chunk


class _Chunks:
    def __init__(self, sealing: Sealing, key: bytes, header_sha256: bytes, *, opens: bool) -> None:
        # Only here: the import costs a tenth of a second, and unencrypted backups need none of it.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._invalid: type[Exception] = InvalidTag
        self._transform = AESGCM(key).decrypt if opens else AESGCM(key).encrypt
        self._prefix, self._header, self._count = sealing.nonce_prefix, header_sha256, 0

    def __call__(self, chunk: bytes, *, last: bool) -> bytes:
        nonce = self._prefix + self._count.to_bytes(4, "big") + bytes([last])
        self._count += 1
        try:
            return self._transform(nonce, chunk, self._header)
        except self._invalid as error:
            raise CorruptBackup(
                f"chunk {self._count} of the backup was changed, or is not where it belongs", hint="use another backup"
            ) from error


def _derive(secret: bytes, sealing: Sealing) -> bytes:
    memory = 128 * sealing.n * sealing.r * sealing.p + (16 << 20)
    try:
        return hashlib.scrypt(secret, salt=sealing.salt, n=sealing.n, r=sealing.r, p=sealing.p, maxmem=memory, dklen=32)
    except ValueError as error:  # parameters that scrypt itself refuses
        raise CorruptBackup(f"the backup does not say how its key is made: {error}") from error


def _check(key: bytes) -> bytes:
    return hmac.digest(key, _CHECKED, "sha256")
