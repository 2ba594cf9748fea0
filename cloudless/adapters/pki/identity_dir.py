"""Where a process keeps who it is.

    <path>/identity.pem    private key, certificate and its CA's certificate: one file, so that they change together
    <path>/roots.pem       the CAs to trust
    <path>/next.key        a key that has no certificate yet

A new key is on disk before it is shown to anybody: whoever crashes between being let in and hearing of it asks again
with the same key and spends no second use of its token. Directory 0700, files 0600.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from cloudless.adapters.pki.certificate import read_certificates
from cloudless.adapters.pki.credentials import Credentials, build_credentials
from cloudless.adapters.pki.durable import make_private_directory, read_private, remove_durably, write_private
from cloudless.adapters.pki.request import key_to_pem, new_key, read_key
from cloudless.errors import BadCredentials

_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


class IdentityDir:
    """One identity on disk; made when it is absent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity_file, self.roots_file = path / "identity.pem", path / "roots.pem"
        self._next_key_file = path / "next.key"

    def load(self) -> Credentials | None:
        """Return who this is, None before it was let in. Raises BadCredentials."""
        held, roots = read_private(self.identity_file), read_private(self.roots_file)
        if held is None:
            return None
        at = held.find(_BEGIN_CERTIFICATE)
        if at < 0 or roots is None:
            raise BadCredentials(
                f"{self.identity_file if at < 0 else self.roots_file} is incomplete",
                hint=f"remove {self.path} and enrol again with a new token",
            )
        return build_credentials(held[at:], held[:at], roots)

    def prepare_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key to ask a certificate for: the one of an earlier try, or a new one."""
        make_private_directory(self.path)
        held = read_private(self._next_key_file)
        if held is not None:
            try:
                return read_key(held, str(self._next_key_file))
            except BadCredentials:
                pass  # nobody has seen a certificate for it: another one is as good
        key = new_key()
        write_private(self._next_key_file, key_to_pem(key).encode())
        return key

    def store(self, credentials: Credentials) -> None:
        """Keep credentials. The roots go first: a certificate is never there without its CA."""
        make_private_directory(self.path)
        write_private(self.roots_file, credentials.roots_pem)
        write_private(self.identity_file, _newline(credentials.key_pem) + credentials.chain_pem)
        remove_durably(self._next_key_file)

    def store_roots(self, roots_pem: bytes) -> None:
        """Keep the CAs to trust from now on. Raises BadCredentials for what is no list of certificates."""
        read_certificates(roots_pem, "the list of trusted CAs")
        write_private(self.roots_file, roots_pem)

    def forget(self) -> None:
        """Be nobody again."""
        for file in (self.identity_file, self._next_key_file, self.roots_file):
            if self.path.is_dir():
                remove_durably(file)


def _newline(pem: bytes) -> bytes:
    return pem if pem.endswith(b"\n") else pem + b"\n"
