"""What a process shows to others and trusts them by: one value, checked when it is made.

The transport needs the PEM texts; the rest of the program whose they are and when they are due. A value never changes:
renewal makes a new one.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.adapters.pki.certificate import find_issuer, pin_of, read_certificates, read_identity, validity_of
from cloudless.adapters.pki.request import key_hash_of, read_key
from cloudless.core.identity.names import Identity
from cloudless.core.identity.renewal import Freshness, Validity, days_left, judge_freshness, renew_at_ms
from cloudless.errors import BadCredentials


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """An identity with its key: certificate chain, private key and trusted roots as PEM."""

    identity: Identity
    chain_pem: bytes
    key_pem: bytes
    roots_pem: bytes
    key_hash: str
    validity: Validity

    def __repr__(self) -> str:
        return f"Credentials({self.identity})"

    @property
    def renew_at_ms(self) -> int:
        return renew_at_ms(self.validity, self.identity.uri)

    def freshness(self, now_ms: int) -> Freshness:
        return judge_freshness(self.validity, self.identity.uri, now_ms)

    def days_left(self, now_ms: int) -> float:
        return days_left(self.validity, now_ms)


def build_credentials(chain_pem: bytes | str, key_pem: bytes | str, roots_pem: bytes | str) -> Credentials:
    """Return credentials whose parts belong together. Raises BadCredentials.

    The certificate must be of the key and signed by a trusted root; that it has expired is no fault here, for it
    still says who its holder was.
    """
    chain, roots = read_certificates(chain_pem), read_certificates(roots_pem, "the list of trusted CAs")
    leaf, key = chain[0], read_key(key_pem)
    if pin_of(leaf) != key_hash_of(key):
        raise BadCredentials("the certificate is not of this key", hint=_HINT)
    if find_issuer(leaf, roots) is None:
        raise BadCredentials("the certificate is signed by none of the trusted CAs", hint=_HINT)
    return Credentials(
        read_identity(leaf), _bytes(chain_pem), _bytes(key_pem), _bytes(roots_pem), key_hash_of(key), validity_of(leaf)
    )


def _bytes(pem: bytes | str) -> bytes:
    return pem.encode() if isinstance(pem, str) else pem


_HINT = "remove the identity and enrol again with a new token"
