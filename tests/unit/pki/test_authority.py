"""Certificates carry exactly the names, uses and times they should, as `openssl` sees them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloudless.adapters.pki.authority import new_authority, open_authority
from cloudless.adapters.pki.certificate import find_issuer, pin_of, read_certificates, read_identity, read_peer, to_pem
from cloudless.adapters.pki.request import build_request, key_hash_of, new_key, read_request
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.adapters.pki.vault import found
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.model import AuthorityPurpose
from cloudless.errors import BadCredentials, InvalidSpec
from tests.unit.pki.openssl import needs_openssl, show, verify

CLUSTER_ID = "0123456789abcdef"
NOW_MS = int(time.time() * 1000)
HOLDINGS = found(CLUSTER_ID, NOW_MS)
CA = HOLDINGS.open_issuing(AuthorityPurpose.CLUSTER)
PEERS = HOLDINGS.open_issuing(AuthorityPurpose.ETCD_PEERS)
KEY = new_key()
C1 = Identity(CLUSTER_ID, IdentityKind.COORDINATOR, "c1")
A1 = Identity(CLUSTER_ID, IdentityKind.AGENT, "a..1")
ANN = Identity(CLUSTER_ID, IdentityKind.PERSON, "ann")


def leaf(identity: Identity, now_ms: int = NOW_MS) -> str:
    return to_pem([CA.sign_identity(identity, KEY.public_key(), now_ms)])


@needs_openssl
def test_openssl_accepts_each_certificate_for_its_use_and_no_other(tmp_path: Path) -> None:
    roots = CA.record.certificate_pem
    for identity in (C1, A1):
        assert verify(leaf(identity), roots, tmp_path, "-purpose", "sslserver")
        assert verify(leaf(identity), roots, tmp_path, "-purpose", "sslclient")
    assert verify(leaf(ANN), roots, tmp_path, "-purpose", "sslclient")
    assert not verify(leaf(ANN), roots, tmp_path, "-purpose", "sslserver")
    assert verify(leaf(C1), roots, tmp_path, "-verify_hostname", "c1.coordinator.cloudless")
    assert verify(leaf(C1), roots, tmp_path, "-verify_hostname", "coordinator.cloudless")
    assert not verify(leaf(C1), roots, tmp_path, "-verify_hostname", "c2.coordinator.cloudless")
    assert not verify(leaf(A1), roots, tmp_path, "-verify_hostname", "coordinator.cloudless")


@needs_openssl
def test_no_ca_vouches_for_anothers_certificates(tmp_path: Path) -> None:
    assert not verify(leaf(C1), PEERS.record.certificate_pem, tmp_path)
    assert not verify(leaf(C1), found(CLUSTER_ID, NOW_MS).roots_pem(AuthorityPurpose.CLUSTER), tmp_path)


@needs_openssl
def test_openssl_reads_names_uses_and_lifetime() -> None:
    text = show(leaf(C1))
    assert f"URI:spiffe://{CLUSTER_ID}/coordinator/c1, DNS:c1.coordinator.cloudless, DNS:coordinator.cloudless" in text
    assert "CA:FALSE" in text
    assert "ecdsa-with-SHA256" in text
    assert "NIST CURVE: P-256" in text
    assert "Digital Signature" in text
    assert len(re.findall("URI:", text)) == 1
    authority = show(CA.record.certificate_pem)
    assert "CA:TRUE, pathlen:0" in authority
    assert "Certificate Sign" in authority


@needs_openssl
def test_a_certificate_signs_no_other(tmp_path: Path) -> None:
    middle = read_certificates(leaf(C1))[0]
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(middle.subject)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(middle.not_valid_before_utc)
        .not_valid_after(middle.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(C1.uri)]), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    assert find_issuer(forged, [middle]) is None
    assert not verify(to_pem([forged]), CA.record.certificate_pem + leaf(C1), tmp_path, "-partial_chain")


@needs_openssl
def test_etcd_certificates_name_the_addresses_served_and_clients_none(tmp_path: Path) -> None:
    server = to_pem([PEERS.sign_etcd_server(C1, ["10.1.2.3", "c1.example", "[fd00::1]"], KEY.public_key(), NOW_MS)])
    roots = PEERS.record.certificate_pem
    for use in ("sslserver", "sslclient"):
        assert verify(server, roots, tmp_path, "-purpose", use, "-verify_ip", "10.1.2.3")
    for address in ("127.0.0.1", "::1", "fd00::1"):
        assert verify(server, roots, tmp_path, "-verify_ip", address)
    assert verify(server, roots, tmp_path, "-verify_hostname", "c1.example")
    client = to_pem([PEERS.sign_etcd_client(C1, KEY.public_key(), NOW_MS)])
    assert verify(client, roots, tmp_path, "-purpose", "sslclient")
    assert not verify(client, roots, tmp_path, "-purpose", "sslserver")
    assert "DNS:" not in show(client)
    assert "IP Address" not in show(client)


def test_lifetimes_are_what_was_asked_and_end_with_the_ca() -> None:
    made = CA.sign_identity(C1, KEY.public_key(), NOW_MS)
    assert int(made.not_valid_after_utc.timestamp()) == NOW_MS // 1000 + 86_400
    assert made.not_valid_before_utc >= CA.certificate.not_valid_before_utc
    late_ms = CA.record.not_after_ms - 3_600_000
    assert CA.sign_identity(C1, KEY.public_key(), late_ms).not_valid_after_utc == CA.certificate.not_valid_after_utc
    short = found(CLUSTER_ID, NOW_MS, leaf_lifetime_s=60).open_issuing(AuthorityPurpose.CLUSTER)
    made = short.sign_identity(C1, KEY.public_key(), NOW_MS + 3_600_000)
    assert (made.not_valid_after_utc - made.not_valid_before_utc).total_seconds() == 66


def test_what_a_certificate_says_is_read_back() -> None:
    peer = read_peer(leaf(A1).encode())
    assert peer.identity == A1
    assert peer.key_hash == key_hash_of(KEY)
    assert pin_of(CA.certificate) == CA.record.pin


def test_a_certificate_with_other_names_than_one_of_ours_names_nobody() -> None:
    etcd = PEERS.sign_etcd_server(C1, [], KEY.public_key(), NOW_MS)
    assert read_identity(etcd) == C1
    for certificate in (CA.certificate, PEERS.certificate):
        with pytest.raises(BadCredentials):
            read_identity(certificate)


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"])
def test_bytes_that_are_no_certificate_are_a_typed_error(text: str) -> None:
    with pytest.raises(BadCredentials):
        read_certificates(text)


def test_hostile_sizes_are_refused() -> None:
    with pytest.raises(BadCredentials):
        read_certificates(leaf(C1) * 9)
    with pytest.raises(BadCredentials):
        read_certificates("x" * 100_000)


# --- requests -----------------------------------------------------------------------------------


def test_a_request_carries_the_key_and_nothing_else() -> None:
    pem = build_request(KEY)
    assert read_request(pem) == KEY.public_key()
    request = x509.load_pem_x509_csr(pem.encode())
    assert not list(request.subject)
    assert not list(request.extensions)


def csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ANN.uri)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_names_in_a_request_are_not_looked_at() -> None:
    made = CA.sign_identity(C1, read_request(csr(KEY)), NOW_MS)
    assert read_identity(made) == C1


def test_a_request_by_another_key_than_its_own_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(build_request(KEY).encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()
    with pytest.raises(InvalidSpec, match="csr_pem"):
        read_request(broken)


@pytest.mark.parametrize(
    "pem",
    [
        "", "nonsense", "x" * 10_000,
        csr(ec.generate_private_key(ec.SECP384R1())), csr(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "nonsense", "long", "p384", "rsa"],
)  # fmt: skip
def test_other_keys_and_other_bytes_are_refused(pem: str) -> None:
    with pytest.raises(InvalidSpec, match="csr_pem"):
        read_request(pem)


# --- sealing ------------------------------------------------------------------------------------


def test_a_sealed_authority_opens_with_its_cluster_key_only() -> None:
    key = ClusterKey.new()
    authority = new_authority(AuthorityPurpose.CLUSTER, CLUSTER_ID, key, NOW_MS)
    assert open_authority(authority.record, key).certificate == authority.certificate
    with pytest.raises(BadCredentials, match="sealed with cluster key"):
        open_authority(authority.record, ClusterKey.new())


def test_a_sealed_key_cannot_be_changed_or_put_in_anothers_place() -> None:
    key = ClusterKey.new()
    sealed = key.seal(b"secret", "this")
    assert key.unseal(sealed, "this") == b"secret"
    assert sealed != key.seal(b"secret", "this")
    assert b"secret" not in sealed
    for changed in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"", sealed[:12]):
        with pytest.raises(BadCredentials):
            key.unseal(changed, "this")
    with pytest.raises(BadCredentials):
        key.unseal(sealed, "that")


def test_secrets_do_not_show() -> None:
    key = ClusterKey.new()
    authority = new_authority(AuthorityPurpose.CLUSTER, CLUSTER_ID, key, NOW_MS)
    assert key.raw.hex() not in repr(key)
    assert repr(authority) == "Authority(cluster-1)"
    assert NameOID.COMMON_NAME in {part.oid for part in authority.certificate.subject}
