"""What this coordinator proves itself by, to whom: callers and other coordinators, etcd's peers, etcd's clients.

Three authorities, so that a certificate for one door opens no other: agents and people never reach etcd. A coordinator
holds the authorities' keys and signs its own certificates, at each start and again at half of their life, so it needs
nobody's help to return. Its first holdings come from a founding file that all founders were given, or it makes them
itself when it is told to begin a cluster.

Without TLS all of it is absent, and every connection is plain.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from cloudless.adapters.discovery.doors import Doors
from cloudless.adapters.discovery.lookup import NetworkLookup
from cloudless.adapters.grpc.channel import INSECURE, Dialler
from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.etcd_files import EtcdClient, EtcdFiles
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import enrol_patiently
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.adapters.pki.server_context import ServerContext
from cloudless.adapters.pki.vault import Holdings, Vault, found, read_founding_file
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.own_identity import OwnIdentity
from cloudless.core.discovery.addresses import ANY_HOSTS
from cloudless.core.identity.names import Identity
from cloudless.core.model import AuthorityRecord, Role
from cloudless.core.setting_values import ENROL_PORT
from cloudless.core.state import Applied, View
from cloudless.errors import BadCredentials
from cloudless.ports import Clock, Credentials, CredentialSource
from cloudless.rpc import codec
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.settings import CoordinatorSettings, read_token
from etcd.flags import TlsFiles


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """The files of one member: of its door for clients, its door for peers, and what its coordinator dials it with."""

    client: TlsFiles
    peer: TlsFiles
    own: TlsFiles


class OwnCredentials:
    """One coordinator's credentials; this class itself is a coordinator without TLS, which has none."""

    api: CredentialSource | None = None
    etcd_client: CredentialSource | None = None
    etcd: EtcdTls | None = None
    http: ssl.SSLContext | None = None
    cluster_id = ""

    @property
    def certificate_ends_ms(self) -> int:
        """Until when this coordinator's own certificate is good, 0 without TLS."""
        return 0

    @property
    def dialler(self) -> Dialler:
        return Dialler(self.api) if self.api else INSECURE

    @property
    def etcd_scheme(self) -> str:
        return "https" if self.etcd else "http"

    def etcd_url(self, address: str) -> str:
        """Return the URL of a member's door at `host:port`."""
        return f"{self.etcd_scheme}://{address}"

    async def keep(self) -> None:
        """Sign anew whatever is due while this coordinator is no voter yet, until cancelled."""

    async def run(
        self, find_holdings: Callable[[], Holdings], view: View, committer: Committer, restart: Callable[[], None]
    ) -> None:
        """Sign anew whatever is due, until cancelled; `restart` is called when etcd must restart to trust a new CA."""

    def on_applied(self, applied: Applied) -> None:
        """Take notice of a change of state."""


class SignedCredentials(OwnCredentials):
    """The credentials of a coordinator with TLS, signed by itself with what it holds."""

    def __init__(self, settings: CoordinatorSettings, holdings: Holdings, clock: Clock) -> None:
        """Sign everything. Raises BadCredentials."""
        hosts = _hosts(settings)
        self.cluster_id, self._holdings = holdings.cluster_id, holdings
        self._directory = IdentityDir(settings.identity_dir)
        self._etcd_files = EtcdFiles(settings.identity_dir / "etcd")
        self._restart: Callable[[], None] = lambda: None
        self._own = OwnIdentity(
            settings.node_id,
            self._directory,
            self._etcd_files,
            lambda: hosts,
            clock,
            on_change=lambda credentials: self._http.renew(),
            on_etcd_roots=lambda: self._restart(),
        )
        self._own.sign(holdings)
        self._etcd_own = EtcdClient.read(self._etcd_files)
        self.api, self.etcd_client = (lambda: self._own.credentials), self._read_etcd_client
        self.etcd = _etcd_tls(self._etcd_files)
        self._http = ServerContext(self._directory, ssl.CERT_OPTIONAL)  # who shows none is told so where it matters
        self.http = self._http.context

    @property
    def certificate_ends_ms(self) -> int:
        return self._own.credentials.validity.not_after_ms

    async def keep(self) -> None:
        await self._own.keep(self._holdings)

    async def run(
        self, find_holdings: Callable[[], Holdings], view: View, committer: Committer, restart: Callable[[], None]
    ) -> None:
        self._restart = restart
        await self._own.run(find_holdings, view, committer)

    def on_applied(self, applied: Applied) -> None:
        self._own.on_applied(applied)

    def _read_etcd_client(self) -> Credentials:
        """Return what is on disk now; the same object while it is the same."""
        self._etcd_own = EtcdClient.read(self._etcd_files, self._etcd_own)
        return self._etcd_own


async def load_credentials(settings: CoordinatorSettings, clock: Clock) -> OwnCredentials:
    """Return this coordinator's credentials; one that joins by a token asks for what it takes, as long as it takes.

    Raises BadCredentials, and what the cluster refuses the token by.
    """
    if not settings.tls:
        return OwnCredentials()
    vault = Vault(settings.identity_dir)
    holdings = vault.load()
    if holdings is None:
        holdings = await _first_holdings(settings, vault, clock)
        vault.keep(holdings)
    return SignedCredentials(settings, holdings, clock)


async def _first_holdings(settings: CoordinatorSettings, vault: Vault, clock: Clock) -> Holdings:
    """Return what a coordinator without any begins with.

    A founding file that was deleted after the founding is no obstacle to one that lost everything and has a token.
    """
    may_join = bool(settings.join_token or settings.join_token_file)
    if settings.founding_file is not None and (settings.founding_file.exists() or not may_join):
        return _read_founding_file(settings.founding_file)
    token = read_token(settings.join_token, settings.join_token_file)
    if token:
        return await _join(settings, token, vault, clock)
    if settings.bootstrap:
        return found(uuid4().hex, clock.wall_ms())
    raise BadCredentials(
        f"this coordinator has nothing to prove itself by in {settings.identity_dir}",
        hint="to join a cluster set CLOUDLESS_JOIN_TOKEN (cloudless token create --role coordinator); to found one "
        "together give all founders the same CLOUDLESS_FOUNDING_FILE (cloudless cluster found)",
    )


def _read_founding_file(file: Path) -> Holdings:
    try:
        return read_founding_file(file.read_bytes())
    except OSError as error:
        raise BadCredentials(
            f"the founding file {file} cannot be read: {error.strerror}",
            hint="make one with `cloudless cluster found` and give the same to all founders; one that has lost its "
            "data joins the cluster that was founded with CLOUDLESS_JOIN_TOKEN",
        ) from error


async def _join(settings: CoordinatorSettings, token: str, vault: Vault, clock: Clock) -> Holdings:
    """Enrol, as long as it takes, and return what the cluster hands over to a coordinator.

    That is on disk before the identity is: who crashed between asks again with the same key, and gets both.
    """
    await enrol_patiently(
        IdentityDir(settings.identity_dir),
        token,
        settings.node_id,
        Role.COORDINATOR,
        Doors(
            settings.enrol_addresses, settings.join_addresses, ENROL_PORT, NetworkLookup(settings.dns_servers), clock
        ).find,
        ask_identity_service,
        clock,
        lambda handover, identity: vault.keep(_to_holdings(handover, identity)),
    )
    holdings = vault.load()
    if holdings is None:
        raise BadCredentials("the cluster handed over nothing to sign with", hint="is the token one for a coordinator?")
    return holdings


def _to_holdings(handover: pb.Handover, identity: Identity) -> Holdings:
    records = [codec.from_message(one, AuthorityRecord) for one in handover.authorities]
    return Holdings(identity.cluster_id, ClusterKey(bytes(handover.cluster_key)), tuple(records))


def _etcd_tls(files: EtcdFiles) -> EtcdTls:
    key, peers, clients = str(files.key), str(files.peer_roots), str(files.client_roots)
    return EtcdTls(
        client=TlsFiles(cert_file=str(files.server), key_file=key, ca_file=clients),
        peer=TlsFiles(cert_file=str(files.peer), key_file=key, ca_file=peers, client_cert_file=str(files.peer_client)),
        own=TlsFiles(cert_file=str(files.client), key_file=key, ca_file=clients),
    )


def _hosts(settings: CoordinatorSettings) -> list[str]:
    """Return where others may reach this coordinator's member."""
    addresses = (settings.raft_address, settings.raft_bind_address, settings.etcd_client_address)
    hosts = (address.rpartition(":")[0].strip("[]") for address in addresses)
    return sorted({host for host in hosts if host not in ANY_HOSTS})
