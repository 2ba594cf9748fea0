"""A node's side of getting a certificate: a key that never leaves it, and a request that proves it is held.

Keys are ECDSA on P-256: small, quick to make (a node makes its own at the first start), and known to every TLS
library. A request carries nothing but the key; whose certificate it becomes is up to who signs.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cloudless.adapters.pki.certificate import hash_key
from cloudless.errors import BadCredentials, InvalidSpec, Problem

CSR_BYTES_MAX = 8 << 10


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def read_key(pem: bytes | str, what: str = "the private key") -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key of a PEM text. Raises BadCredentials, which never quotes what it read."""
    raw = pem.encode("ascii", "replace") if isinstance(pem, str) else pem
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCredentials(f"{what} cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadCredentials(f"{what} is not an ECDSA key on P-256")
    return key


def key_hash_of(key: ec.EllipticCurvePrivateKey) -> str:
    return hash_key(key.public_key())


def build_request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a certificate request for `key` as PEM."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def read_request(pem: str, field: str = "csr_pem") -> ec.EllipticCurvePublicKey:
    """Return the key of a request whose sender holds its private half. Raises InvalidSpec."""
    if len(pem) > CSR_BYTES_MAX:
        raise InvalidSpec([Problem(field, f"must be at most {CSR_BYTES_MAX} bytes")])
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii", "replace"))
        key, proven = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidSpec([Problem(field, "is not a PEM certificate request")]) from error
    if not proven:
        raise InvalidSpec([Problem(field, "is not signed by its own key")])
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidSpec([Problem(field, "must be for an ECDSA key on P-256")])
    return key
