"""Certificates for etcd, as the files its command line names.

    <path>/etcd.key               the one key of all of them
    <path>/peer.pem               this member, to other members that dial it
    <path>/peer-client.pem        this member, when it dials others: names no address, for etcd would compare
    <path>/peer-roots.pem         CAs of members
    <path>/server.pem             this member, to its coordinator; its own gateway dials with it too
    <path>/client.pem             this coordinator, to its member
    <path>/client-roots.pem       CAs of coordinators as clients, and of members as their servers

A coordinator holds the CA keys and signs these itself, at each start and again at half of their life. etcd reads
certificates anew for every connection, so replacing the files is enough; the lists of roots it reads once, at its
start: after a CA was added, restart it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudless.adapters.pki.certificate import validity_of
from cloudless.adapters.pki.durable import make_private_directory, read_private, write_private
from cloudless.adapters.pki.request import key_to_pem, new_key, read_key
from cloudless.adapters.pki.vault import Holdings
from cloudless.core.identity.names import Identity
from cloudless.core.identity.renewal import renew_at_ms
from cloudless.core.model import AuthorityPurpose

PEERS, CLIENTS = AuthorityPurpose.ETCD_PEERS, AuthorityPurpose.ETCD_CLIENTS


@dataclass(frozen=True, slots=True)
class Written:
    """What a writing came to: when to do it again, and whether etcd must be restarted to trust what it should."""

    renew_at_ms: int
    roots_changed: bool


@dataclass(frozen=True, slots=True, repr=False)
class EtcdClient:
    """What a coordinator shows to its own member (see `ports.Credentials`)."""

    key_pem: bytes
    chain_pem: bytes
    roots_pem: bytes

    @classmethod
    def read(cls, files: EtcdFiles, last: EtcdClient | None = None) -> EtcdClient:
        """Return what is on disk now; `last` itself while that is the same. Raises OSError."""
        now = cls(files.key.read_bytes(), files.client.read_bytes(), files.client_roots.read_bytes())
        return last if last is not None and last == now else now


class EtcdFiles:
    """The files of one member."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path / "etcd.key"
        self.peer, self.peer_client, self.peer_roots = (
            path / name for name in ("peer.pem", "peer-client.pem", "peer-roots.pem")
        )
        self.server, self.client, self.client_roots = (
            path / name for name in ("server.pem", "client.pem", "client-roots.pem")
        )

    def write(self, holdings: Holdings, identity: Identity, hosts: Iterable[str], now_ms: int) -> Written:
        """Sign and write all of them for a member at `hosts`. Raises BadCredentials."""
        make_private_directory(self.path)
        held = read_private(self.key)
        key = read_key(held, str(self.key)) if held is not None else new_key()
        if held is None:
            write_private(self.key, key_to_pem(key).encode())
        peers, clients = holdings.open_issuing(PEERS), holdings.open_issuing(CLIENTS)
        hosts, public = sorted(set(hosts)), key.public_key()
        changed = False
        for path, purpose in ((self.peer_roots, PEERS), (self.client_roots, CLIENTS)):
            content = holdings.roots_pem(purpose).encode()
            before = read_private(path)
            if before != content:
                write_private(path, content)
                # In another order, as when another one signs from now on, they are the same to etcd.
                changed |= before is not None and _each(before) != _each(content)
        peer = peers.sign_etcd_server(identity, hosts, public, now_ms)
        write_private(self.peer, peers.chain_pem(peer).encode())
        write_private(self.peer_client, peers.chain_pem(peers.sign_etcd_client(identity, public, now_ms)).encode())
        server = clients.sign_etcd_server(identity, hosts, public, now_ms)
        write_private(self.server, clients.chain_pem(server).encode())
        write_private(self.client, clients.chain_pem(clients.sign_etcd_client(identity, public, now_ms)).encode())
        due_ms = min(renew_at_ms(validity_of(made), identity.uri) for made in (peer, server))
        return Written(due_ms, changed)


def _each(roots_pem: bytes) -> frozenset[bytes]:
    """Return the single certificates of a list."""
    return frozenset(text.strip() for text in roots_pem.split(b"-----END CERTIFICATE-----"))
