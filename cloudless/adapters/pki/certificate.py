"""Read certificates: whose, until when, by which key; and whether a chain holds together.

Everything from outside goes through `read_certificates`, which raises one typed error whatever the bytes are.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudless.core.identity.names import Identity, find_identity
from cloudless.core.identity.renewal import Validity
from cloudless.errors import BadCredentials

PEM_BYTES_MAX = 64 << 10
CHAIN_MAX = 8


@dataclass(frozen=True, slots=True)
class Peer:
    """What a certificate says of its holder."""

    identity: Identity
    key_hash: str
    validity: Validity
    serial: str


def read_certificates(pem: bytes | str, what: str = "the certificate") -> list[x509.Certificate]:
    """Return the certificates of a PEM text, at least one. Raises BadCredentials."""
    raw = pem.encode("ascii", "replace") if isinstance(pem, str) else pem
    if len(raw) > PEM_BYTES_MAX:
        raise BadCredentials(f"{what} is larger than {PEM_BYTES_MAX >> 10} KiB")
    try:
        found = x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise BadCredentials(f"{what} is not a PEM certificate") from error
    if len(found) > CHAIN_MAX:
        raise BadCredentials(f"{what} holds more than {CHAIN_MAX} certificates")
    return found


def to_pem(certificates: Iterable[x509.Certificate]) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def hash_key(key: CertificatePublicKeyTypes) -> str:
    """Return the hex SHA-256 of a public key (its SubjectPublicKeyInfo): a pin, or the name of an identity's key."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def pin_of(certificate: x509.Certificate) -> str:
    return hash_key(certificate.public_key())


def validity_of(certificate: x509.Certificate) -> Validity:
    return Validity(
        int(certificate.not_valid_before_utc.timestamp() * 1000),
        int(certificate.not_valid_after_utc.timestamp() * 1000),
    )


def read_identity(certificate: x509.Certificate) -> Identity:
    """Return whose certificate it is. Raises BadCredentials unless it names exactly one identity by URI."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise BadCredentials("the certificate names no identity") from error
    identity = find_identity(uris[0]) if len(uris) == 1 else None
    if identity is None:
        raise BadCredentials("the certificate does not name exactly one identity of a cluster")
    return identity


@functools.lru_cache(maxsize=4096)
def read_peer(pem: bytes) -> Peer:
    """Return who presents `pem`, a certificate that the transport has verified. Raises BadCredentials.

    Remembered, because every call on a connection brings the same bytes.
    """
    certificate = read_certificates(pem)[0]
    return Peer(
        read_identity(certificate), pin_of(certificate), validity_of(certificate), f"{certificate.serial_number:x}"
    )


def find_issuer(certificate: x509.Certificate, roots: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """Return the root whose key signed `certificate`, whatever the time; None if none did.

    A root must be allowed to sign: a leaf passed off as a CA signs nothing.
    """
    for root in roots:
        if not _is_authority(root):
            continue
        try:
            certificate.verify_directly_issued_by(root)
            return root
        except (ValueError, TypeError, InvalidSignature):
            continue
    return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
