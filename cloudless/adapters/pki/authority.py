"""Certificate authorities: make them, seal them, sign with them.

A CA certificate is good for ten years, may sign no further CAs (path length 0) and says its cluster in a URI. What it
signs has exactly the names that the caller gives, whatever was asked for: an identity's certificate has one URI and the
server names that follow from it; a certificate for etcd has the addresses it serves at, for etcd checks those.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudless.adapters.pki.certificate import pin_of, read_certificates, to_pem, validity_of
from cloudless.adapters.pki.request import new_key
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.core.identity.names import Identity, server_names
from cloudless.core.identity.renewal import BACKDATED_MS, Validity, build_validity, find_lifetime_s
from cloudless.core.model import AuthorityPhase, AuthorityPurpose, AuthorityRecord
from cloudless.errors import BadCredentials

AUTHORITY_LIFETIME_S = 3650 * 86_400
LEAF_LIFETIME_S = 86_400
LEAF_LIFETIME_MIN_S = 60
LEAF_LIFETIME_MAX_S = 90 * 86_400
ORGANISATION = "cloudless"
_ID_OF = {
    AuthorityPurpose.CLUSTER: "cluster",
    AuthorityPurpose.ETCD_PEERS: "etcd-peers",
    AuthorityPurpose.ETCD_CLIENTS: "etcd-clients",
}


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A CA that can sign: its record, opened."""

    record: AuthorityRecord
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Authority({self.record.id})"

    def sign_identity(
        self, identity: Identity, key: ec.EllipticCurvePublicKey, now_ms: int, stale_s: float = 0.0
    ) -> x509.Certificate:
        """Return a certificate that says: the holder of `key` is `identity`. `stale_s`: the age of the own state."""
        names = [x509.DNSName(name) for name in server_names(identity)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.serves:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        validity = self._validity(now_ms, stale_s)
        return self._sign(identity.name, [x509.UniformResourceIdentifier(identity.uri), *names], usages, key, validity)

    def sign_etcd_server(
        self, identity: Identity, hosts: Iterable[str], key: ec.EllipticCurvePublicKey, now_ms: int
    ) -> x509.Certificate:
        """Return a certificate for etcd at `hosts` (addresses and names). etcd's gateway also dials with it."""
        names = [_to_name(host) for host in sorted({*hosts, "localhost", "127.0.0.1", "::1"})]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._sign(
            "", [x509.UniformResourceIdentifier(identity.uri), *names], usages, key, self._validity(now_ms)
        )

    def sign_etcd_client(self, identity: Identity, key: ec.EllipticCurvePublicKey, now_ms: int) -> x509.Certificate:
        """Return a certificate for dialling etcd.

        It names no address: etcd compares those of a client's certificate with where the client dials from, which
        is any address of the machine.
        """
        uri = x509.UniformResourceIdentifier(identity.uri)
        return self._sign("", [uri], [ExtendedKeyUsageOID.CLIENT_AUTH], key, self._validity(now_ms))

    def chain_pem(self, certificate: x509.Certificate) -> str:
        """Return the certificate followed by this CA's own, which lets a joiner find the CA that its token pins."""
        return to_pem((certificate, self.certificate))

    def _validity(self, now_ms: int, stale_s: float = 0.0) -> Validity:
        """Return a leaf's validity, never longer than the CA's own."""
        made = build_validity(now_ms, find_lifetime_s(self.record.leaf_lifetime_s, stale_s))
        own = validity_of(self.certificate)
        return Validity(max(made.not_before_ms, own.not_before_ms), min(made.not_after_ms, own.not_after_ms))

    def _sign(
        self,
        common_name: str,
        names: list[x509.GeneralName],
        usages: list[x509.ObjectIdentifier],
        key: ec.EllipticCurvePublicKey,
        validity: Validity,
    ) -> x509.Certificate:
        signer = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        return (
            _builder(_name(common_name), self.certificate.subject, key, validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def new_authority(
    purpose: AuthorityPurpose,
    cluster_id: str,
    cluster_key: ClusterKey,
    now_ms: int,
    *,
    generation: int = 1,
    phase: AuthorityPhase = AuthorityPhase.ISSUING,
    leaf_lifetime_s: int = LEAF_LIFETIME_S,
) -> Authority:
    """Make a CA, its key sealed in its record."""
    authority_id = f"{_ID_OF[purpose]}-{generation}"
    key = new_key()
    validity = Validity(now_ms - BACKDATED_MS, now_ms + AUTHORITY_LIFETIME_S * 1000)
    subject = _name(f"{authority_id} CA of {cluster_id}"[:64])
    certificate = (
        _builder(subject, subject, key.public_key(), validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{cluster_id}")]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    record = AuthorityRecord(
        id=authority_id,
        purpose=purpose,
        generation=generation,
        phase=phase,
        phase_since_ms=now_ms,
        certificate_pem=to_pem([certificate]),
        sealed_key=cluster_key.seal(plain, _label(authority_id, pin_of(certificate))),
        sealed_with=cluster_key.name,
        pin=pin_of(certificate),
        not_after_ms=validity_of(certificate).not_after_ms,
        leaf_lifetime_s=leaf_lifetime_s,
        created_at_ms=now_ms,
    )
    return Authority(record, certificate, key)


def open_authority(record: AuthorityRecord, cluster_key: ClusterKey) -> Authority:
    """Unseal an authority's key. Raises BadCredentials."""
    certificate = read_certificates(record.certificate_pem, f"the certificate of {record.id}")[0]
    if record.sealed_with != cluster_key.name:
        raise BadCredentials(
            f"{record.id} is sealed with cluster key {record.sealed_with}; this coordinator has {cluster_key.name}",
            hint="it asks the others for it; if nobody has it, restore its data directory, or join again with an empty "
            "one and a coordinator token",
        )
    plain = cluster_key.unseal(record.sealed_key, _label(record.id, pin_of(certificate)))
    key = load_der_private_key(plain, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise BadCredentials(f"the key of {record.id} is not the one of its certificate")
    return Authority(record, certificate, key)


def reseal_authority(authority: Authority, cluster_key: ClusterKey) -> AuthorityRecord:
    """Return the record of an opened authority with its key sealed by another cluster key."""
    record = authority.record
    plain = authority.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = cluster_key.seal(plain, _label(record.id, record.pin))
    return replace(record, sealed_key=sealed, sealed_with=cluster_key.name)


def _label(authority_id: str, pin: str) -> str:
    return f"the key of authority {authority_id} with pin {pin}"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(validity.not_before_ms))
        .not_valid_after(_time(validity.not_after_ms))
    )


def _name(common_name: str) -> x509.Name:
    """Return a subject; its common name is for people, nothing is decided by it."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)]
    if common_name:
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(parts)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature, key_cert_sign=key_cert_sign, crl_sign=crl_sign, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _to_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def _time(at_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ms // 1000, datetime.UTC)
