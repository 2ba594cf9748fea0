"""Every door of a cluster that asks for a certificate, and what happens to one that is shown there.

A door is asked by plain sockets and OpenSSL: with TLS 1.3 a client's own handshake is over before the server has judged
its certificate, so only an answer proves that somebody was let in.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cloudless.adapters.pki.authority import open_authority
from cloudless.adapters.pki.certificate import read_certificates, to_pem
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.pinning import fetch_chain
from cloudless.adapters.pki.request import key_to_pem, new_key, read_key
from cloudless.adapters.pki.self_signing import coordinator_identity
from cloudless.adapters.pki.vault import Holdings, Vault
from cloudless.core.model import AuthorityPurpose
from tests.integration.cluster import LocalCluster
from tests.integration.trusted import identity_dir

ASKED_S = 3.0
DAY_S = 86_400
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class Door:
    """Where certificates of one authority are asked for. `alpn`: what is spoken there."""

    what: str
    address: str
    purpose: AuthorityPurpose
    alpn: str
    path: str = ""

    @property
    def greeting(self) -> bytes:
        return f"GET {self.path} HTTP/1.1\r\nHost: door\r\n\r\n".encode() if self.path else _HTTP2


def doors_of(cluster: LocalCluster) -> list[Door]:
    """Return every door of every process. The one for enrolment asks for nothing, so it is none."""
    return list(_doors(cluster))


def _doors(cluster: LocalCluster) -> Iterator[Door]:
    own, peers, clients = AuthorityPurpose.CLUSTER, AuthorityPurpose.ETCD_PEERS, AuthorityPurpose.ETCD_CLIENTS
    for process in cluster.processes.values():
        name = process.name
        yield Door(f"API of {name}", process.address(), own, "h2")
        yield Door(f"metrics of {name}", process.address("metrics"), own, "", "/metrics")
        if process.role == "coordinator":
            yield Door(f"HTTP of {name}", process.address("http"), own, "", "/readyz")
            yield Door(f"etcd of {name}", process.address("etcd"), clients, "h2")
            yield Door(f"etcd's peers at {name}", process.address("raft"), peers, "", "/version")


@dataclass(frozen=True, slots=True)
class Visit:
    """A connection that was answered, and by which one may come again without showing anything."""

    context: ssl.SSLContext
    session: ssl.SSLSession | None


class Shown:
    """What can be shown at doors: a chain and its key in one file."""

    def __init__(self, file: Path, chain_pem: str, key_pem: str) -> None:
        file.parent.mkdir(exist_ok=True)
        file.touch(0o600)
        file.write_text(key_pem + chain_pem)
        self.file = file

    def opens(self, door: Door, before: Visit | None = None) -> Visit | None:
        """Return the visit if the door answers who shows this, else None; `before` is resumed if the door lets us."""
        host, _, port = door.address.rpartition(":")
        context = before.context if before else self._context(door.alpn)
        session = before.session if before else None
        try:
            with (
                socket.create_connection((host, int(port)), ASKED_S) as plain,
                context.wrap_socket(plain, session=session) as secured,
            ):
                secured.sendall(door.greeting)
                answer = secured.recv(4096)
                # 403 is how a door over HTTP says that a certificate is needed.
                return Visit(context, secured.session) if answer and b" 403 " not in answer[:20] else None
        except (ssl.SSLError, ConnectionError):
            return None

    def _context(self, alpn: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.file)
        if alpn:
            context.set_alpn_protocols([alpn])
        return context


def holdings_of(cluster: LocalCluster) -> Holdings:
    """Return the authorities as a coordinator keeps them now."""
    held = Vault(identity_dir(cluster.coordinators[0])).load()
    assert held is not None
    return held


def sign_for_a_day(cluster: LocalCluster, holdings: Holdings, home: Path) -> dict[AuthorityPurpose, Shown]:
    """Return a certificate of each authority, for the first coordinator and the key it has on record.

    Good for a day whatever the cluster's own are: what refuses it later is the authority's end, not its own.
    """
    name = cluster.coordinators[0].name
    identity = coordinator_identity(holdings, name)
    own = IdentityDir(identity_dir(cluster.coordinators[0])).load()
    assert own is not None
    made = {}
    for purpose in AuthorityPurpose:
        key = read_key(own.key_pem) if purpose is AuthorityPurpose.CLUSTER else new_key()
        record = replace(holdings.get_issuing(purpose), leaf_lifetime_s=DAY_S)
        authority = open_authority(record, holdings.cluster_key)
        sign = authority.sign_identity if purpose is AuthorityPurpose.CLUSTER else authority.sign_etcd_client
        leaf: x509.Certificate = sign(identity, _public(key), int(time.time() * 1000))
        made[purpose] = Shown(home / f"{record.id}.pem", to_pem([leaf]) + record.certificate_pem, key_to_pem(key))
    return made


def serials_shown(cluster: LocalCluster) -> dict[str, int]:
    """Return the serial number of the certificate that each server shows to who comes now."""

    async def ask() -> dict[str, int]:
        addresses = {door.what: door.address for door in doors_of(cluster)}
        addresses |= {f"enrolment at {one.name}": one.address("enrol") for one in cluster.coordinators}
        return {what: (await fetch_chain(address))[0].serial_number for what, address in addresses.items()}

    return asyncio.run(ask())


def serials_kept(cluster: LocalCluster) -> dict[str, int]:
    """Return the serial number of every certificate that a process has for itself."""
    found = {}
    for process in cluster.processes.values():
        home = identity_dir(process)
        for file in (home / "identity.pem", *sorted((home / "etcd").glob("*.pem"))):
            if not file.name.endswith("roots.pem"):
                with suppress(FileNotFoundError):
                    pem = file.read_bytes()
                    (leaf, *_) = read_certificates(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
                    found[f"{file.name} of {process.name}"] = leaf.serial_number
    return found


def _public(key: ec.EllipticCurvePrivateKey) -> ec.EllipticCurvePublicKey:
    return key.public_key()
