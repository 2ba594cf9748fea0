"""Identities, cluster keys and etcd's certificates on disk: private, whole, and checked when they are read."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cloudless.adapters.pki.authority import new_authority, reseal_authority
from cloudless.adapters.pki.credentials import Credentials, build_credentials
from cloudless.adapters.pki.durable import write_private
from cloudless.adapters.pki.etcd_files import EtcdFiles
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.request import key_hash_of, key_to_pem, new_key
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.adapters.pki.vault import Holdings, Vault, found, read_founding_file, to_founding_file
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.renewal import Freshness
from cloudless.core.model import AuthorityPhase, AuthorityPurpose
from cloudless.errors import BadCredentials
from tests.unit.pki.openssl import needs_openssl, run

CLUSTER_ID = "0123456789abcdef"
NOW_MS = int(time.time() * 1000)
HOLDINGS = found(CLUSTER_ID, NOW_MS)
A1 = Identity(CLUSTER_ID, IdentityKind.AGENT, "a1")


def build(directory: IdentityDir, holdings: Holdings = HOLDINGS) -> Credentials:
    """Return credentials for the key that the directory has prepared."""
    key = directory.prepare_key()
    authority = holdings.open_issuing(AuthorityPurpose.CLUSTER)
    chain = authority.chain_pem(authority.sign_identity(A1, key.public_key(), NOW_MS))
    return build_credentials(chain, key_to_pem(key), holdings.roots_pem(AuthorityPurpose.CLUSTER))


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_an_identity_is_kept_private_and_read_back(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    before = os.umask(0)
    request.addfinalizer(lambda: os.umask(before))
    directory = IdentityDir(tmp_path / "pki" / "identity")
    assert directory.load() is None
    made = build(directory)
    directory.store(made)
    assert directory.load() == made
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert modes(tmp_path) == {0o600}
    assert sorted(path.name for path in directory.path.iterdir()) == ["identity.pem", "roots.pem"]
    directory.forget()
    assert directory.load() is None


def test_credentials_know_whose_they_are_and_when_they_are_due(tmp_path: Path) -> None:
    made = build(IdentityDir(tmp_path / "id"))
    assert made.identity == A1
    assert made.freshness(NOW_MS) is Freshness.FRESH
    assert made.freshness(made.renew_at_ms) is Freshness.DUE
    assert made.freshness(NOW_MS + 86_400_000) is Freshness.EXPIRED
    assert made.days_left(NOW_MS) == pytest.approx(1, abs=0.01)
    assert "PRIVATE" not in repr(made)


def test_a_key_is_the_same_until_it_has_a_certificate(tmp_path: Path) -> None:
    directory = IdentityDir(tmp_path / "id")
    first = key_hash_of(directory.prepare_key())
    assert key_hash_of(directory.prepare_key()) == first
    made = build(directory)
    assert made.key_hash == first
    directory.store(made)
    assert key_hash_of(directory.prepare_key()) != first
    assert directory.load() == made  # until the next is stored


def test_a_prepared_key_that_is_unreadable_is_made_anew(tmp_path: Path) -> None:
    directory = IdentityDir(tmp_path / "id")
    directory.prepare_key()
    write_private(directory.path / "next.key", b"half a ke")
    directory.store(build(directory))
    assert directory.load() is not None


@pytest.mark.parametrize("file", ["identity.pem", "roots.pem"])
@pytest.mark.parametrize("what", ["emptied", "cut", "of another", "open to others", "gone"])
def test_an_identity_that_is_not_whole_is_refused_with_a_reason(tmp_path: Path, file: str, what: str) -> None:
    directory, other = IdentityDir(tmp_path / "a"), IdentityDir(tmp_path / "b")
    directory.store(build(directory))
    other.store(build(other, found(CLUSTER_ID, NOW_MS)))
    path = directory.path / file
    content = path.read_bytes()
    match what:
        case "emptied":
            write_private(path, b"")
        case "cut":
            write_private(path, content[: len(content) // 2])
        case "of another":
            write_private(path, (other.path / file).read_bytes())
        case "open to others":
            path.chmod(0o644)
        case "gone":
            path.unlink()
    if file == "identity.pem" and what == "gone":
        assert directory.load() is None
        return
    with pytest.raises(BadCredentials) as refused:
        directory.load()
    assert "PRIVATE" not in str(refused.value)


def test_a_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    made = build(IdentityDir(tmp_path / "id"))
    with pytest.raises(BadCredentials, match="not of this key"):
        build_credentials(made.chain_pem, key_to_pem(new_key()), made.roots_pem)


def test_new_roots_are_kept_and_nonsense_is_not(tmp_path: Path) -> None:
    directory = IdentityDir(tmp_path / "id")
    made = build(directory)
    directory.store(made)
    both = made.roots_pem + found(CLUSTER_ID, NOW_MS).roots_pem(AuthorityPurpose.CLUSTER).encode()
    directory.store_roots(both)
    assert directory.load() == replace(made, roots_pem=both)
    with pytest.raises(BadCredentials):
        directory.store_roots(b"nonsense")


def test_a_crash_while_writing_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_private(path, b"old")

    def crash(handle: int) -> None:
        raise OSError("the machine lost power")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="lost power"):
            write_private(path, b"new")
    assert path.read_bytes() == b"old"
    write_private(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


# --- the vault ----------------------------------------------------------------------------------


def test_the_vault_keeps_what_it_is_given(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault")
    assert vault.load() is None
    assert not vault.path.exists()
    vault.keep(HOLDINGS)
    held = vault.load()
    assert held is not None
    assert (held.cluster_id, held.records) == (HOLDINGS.cluster_id, HOLDINGS.records)
    assert held.cluster_key.raw == HOLDINGS.cluster_key.raw
    assert modes(tmp_path) == {0o600}


def test_no_private_key_lies_open_in_the_cache(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.keep(HOLDINGS)
    assert HOLDINGS.cluster_key.raw.hex() not in (tmp_path / "authorities.json").read_text()
    assert "PRIVATE" not in (tmp_path / "authorities.json").read_text()


def test_several_cluster_keys_are_kept_while_one_replaces_another(tmp_path: Path) -> None:
    vault, new = Vault(tmp_path), ClusterKey.new()
    vault.keep(replace(HOLDINGS, other_keys=(new,)))
    held = vault.load()
    assert held is not None
    assert [key.name for key in held.keys] == [HOLDINGS.cluster_key.name, new.name]
    resealed = tuple(reseal_authority(held.open(record), new) for record in held.records)
    vault.keep(Holdings(HOLDINGS.cluster_id, new, HOLDINGS.records, (HOLDINGS.cluster_key,)))  # died between the files
    half = vault.load()
    assert half is not None
    assert all(half.open(record) for record in half.records)
    vault.keep(Holdings(HOLDINGS.cluster_id, new, resealed, (HOLDINGS.cluster_key,)))
    vault.keep(Holdings(HOLDINGS.cluster_id, new, resealed))
    after = vault.load()
    assert after is not None
    assert [key.name for key in after.keys] == [new.name]
    assert all(after.open(record).record.sealed_with == new.name for record in after.records)
    with pytest.raises(BadCredentials):
        HOLDINGS.open(resealed[0])


@pytest.mark.parametrize("file", ["cluster.key", "authorities.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", None])
def test_a_vault_that_is_not_whole_is_refused(tmp_path: Path, file: str, content: bytes | None) -> None:
    vault = Vault(tmp_path / "v")
    vault.keep(HOLDINGS)
    if content is None:
        (vault.path / file).unlink()
    else:
        write_private(vault.path / file, content)
    with pytest.raises(BadCredentials):
        vault.load()


def test_a_vault_of_a_newer_version_says_so(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "v")
    vault.keep(HOLDINGS)
    plain = json.loads((vault.path / "authorities.json").read_text())
    write_private(vault.path / "authorities.json", json.dumps({**plain, "format": 2}).encode())
    with pytest.raises(BadCredentials, match="format 2"):
        vault.load()


def test_founders_share_one_file() -> None:
    held = read_founding_file(to_founding_file(HOLDINGS))
    assert held.records == HOLDINGS.records
    assert held.open_issuing(AuthorityPurpose.ETCD_PEERS).record.id == "etcd-peers-1"
    for nonsense in (b"", b"{}", b"\xff"):
        with pytest.raises(BadCredentials):
            read_founding_file(nonsense)


# --- etcd's files -------------------------------------------------------------------------------


@needs_openssl
def test_etcd_gets_certificates_that_openssl_accepts(tmp_path: Path) -> None:
    files = EtcdFiles(tmp_path / "etcd")
    identity = Identity(CLUSTER_ID, IdentityKind.COORDINATOR, "c1")
    written = files.write(HOLDINGS, identity, ["10.0.0.1"], NOW_MS)
    assert not written.roots_changed
    assert NOW_MS < written.renew_at_ms <= NOW_MS + 43_200_000
    assert modes(tmp_path) == {0o600}
    for roots, leaf, use in (
        (files.peer_roots, files.peer, "sslserver"),
        (files.peer_roots, files.peer, "sslclient"),
        (files.peer_roots, files.peer_client, "sslclient"),
        (files.client_roots, files.server, "sslserver"),
        (files.client_roots, files.server, "sslclient"),
        (files.client_roots, files.client, "sslclient"),
    ):
        assert run("verify", "-x509_strict", "-purpose", use, "-CAfile", roots, leaf).returncode == 0
    assert run("verify", "-CAfile", files.client_roots, files.peer).returncode != 0


def test_etcds_key_stays_and_its_certificates_follow_the_authorities(tmp_path: Path) -> None:
    files = EtcdFiles(tmp_path / "etcd")
    identity = Identity(CLUSTER_ID, IdentityKind.COORDINATOR, "c1")
    files.write(HOLDINGS, identity, ["10.0.0.1"], NOW_MS)
    key, certificate = files.key.read_bytes(), files.peer.read_bytes()
    assert not files.write(HOLDINGS, identity, ["10.0.0.2"], NOW_MS).roots_changed
    assert files.key.read_bytes() == key
    assert files.peer.read_bytes() != certificate
    assert files.write(found(CLUSTER_ID, NOW_MS), identity, ["10.0.0.2"], NOW_MS).roots_changed


def test_the_same_roots_in_another_order_need_no_restart(tmp_path: Path) -> None:
    """Which one signs comes first; when that changes nobody has another one to trust."""
    files = EtcdFiles(tmp_path / "etcd")
    identity = Identity(CLUSTER_ID, IdentityKind.COORDINATOR, "c1")

    new = [
        new_authority(
            purpose, CLUSTER_ID, HOLDINGS.cluster_key, NOW_MS, generation=2, phase=AuthorityPhase.DISTRIBUTING
        ).record
        for purpose in AuthorityPurpose
    ]
    files.write(HOLDINGS, identity, ["10.0.0.1"], NOW_MS)
    learned = replace(HOLDINGS, records=(*HOLDINGS.records, *new))
    assert files.write(learned, identity, ["10.0.0.1"], NOW_MS).roots_changed
    phases = {1: AuthorityPhase.RETIRING, 2: AuthorityPhase.ISSUING}
    switched = replace(learned, records=tuple(replace(r, phase=phases[r.generation]) for r in learned.records))
    assert switched.roots_pem(AuthorityPurpose.ETCD_PEERS) != learned.roots_pem(AuthorityPurpose.ETCD_PEERS)
    assert not files.write(switched, identity, ["10.0.0.1"], NOW_MS).roots_changed
    rest = replace(switched, records=tuple(r for r in switched.records if r.generation == 2))
    assert files.write(rest, identity, ["10.0.0.1"], NOW_MS).roots_changed
