"""What this coordinator proves itself by, to whom: callers and other coordinators, etcd's peers, etcd's clients.

Three authorities, so that a certificate for one door opens no other: agents and people never reach etcd. A coordinator
holds the authorities' keys and signs its own certificates, at each start and again at half of their life, so it needs
nobody's help to return. Its first holdings come from a founding file that all founders were given, or it makes them
itself when it is told to begin a cluster.

Without TLS all of it is absent, and every connection is plain.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from loguru import logger

from cloudless.adapters.enrolment import ENROL_RETRY_PAUSE_S, Waiting, enrol, read_token
from cloudless.adapters.grpc.channel import INSECURE, Dialler
from cloudless.adapters.pki.credentials import build_credentials
from cloudless.adapters.pki.etcd_files import EtcdFiles
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.request import key_to_pem, new_key
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.adapters.pki.vault import Holdings, Vault, found, read_founding_file
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.model import AuthorityPurpose, AuthorityRecord
from cloudless.errors import BadCredentials, Unavailable
from cloudless.ports import CredentialSource
from cloudless.rpc import codec
from cloudless.settings import CoordinatorSettings
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
    def dialler(self) -> Dialler:
        return Dialler(self.api) if self.api else INSECURE

    @property
    def etcd_scheme(self) -> str:
        return "https" if self.etcd else "http"

    def etcd_url(self, address: str) -> str:
        """Return the URL of a member's door at `host:port`."""
        return f"{self.etcd_scheme}://{address}"

    def renew(self, now_ms: int, holdings: Holdings) -> bool:
        """Sign anew what is due, by the authorities of now; return whether etcd must restart to trust them."""
        return False


class SignedCredentials(OwnCredentials):
    """The credentials of a coordinator with TLS, signed by itself with what it holds."""

    def __init__(self, settings: CoordinatorSettings, holdings: Holdings, now_ms: int) -> None:
        """Sign everything. Raises BadCredentials."""
        self._directory = IdentityDir(settings.identity_dir)
        self._etcd_files = EtcdFiles(settings.identity_dir / "etcd")
        self._hosts = _hosts(settings)
        self.holdings, self.cluster_id = holdings, holdings.cluster_id
        self._who = Identity(self.cluster_id, IdentityKind.COORDINATOR, settings.node_id)
        self._key = new_key()
        self._sign(now_ms)
        self.api, self.etcd_client = (lambda: self._own), (lambda: self._etcd_own)
        self.etcd = _etcd_tls(self._etcd_files)
        self.http = self._build_http_context()

    def renew(self, now_ms: int, holdings: Holdings) -> bool:
        if now_ms < self._due_ms and holdings.records == self.holdings.records:
            return False
        self.holdings = holdings
        roots_changed = self._sign(now_ms)
        assert self.http is not None
        self._show(self.http)
        logger.debug("certificates renewed")
        return roots_changed

    def _sign(self, now_ms: int) -> bool:
        """Make all certificates anew; return whether etcd must restart for them."""
        authority = self.holdings.open_issuing(AuthorityPurpose.CLUSTER)
        certificate = authority.sign_identity(self._who, self._key.public_key(), now_ms)
        self._own = build_credentials(
            authority.chain_pem(certificate), key_to_pem(self._key), self.holdings.roots_pem(AuthorityPurpose.CLUSTER)
        )
        self._directory.store(self._own)
        written = self._etcd_files.write(self.holdings, self._who, self._hosts, now_ms)
        self._etcd_own = _EtcdClient.read(self._etcd_files)
        self._due_ms = min(self._own.renew_at_ms, written.renew_at_ms)
        return written.roots_changed

    def _build_http_context(self) -> ssl.SSLContext:
        """Return a server's context that asks callers for a certificate and takes those without one too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        self._show(context)
        return context

    def _show(self, context: ssl.SSLContext) -> None:
        """Make handshakes from now on use the credentials of now; authorities are added to those known before."""
        context.load_cert_chain(self._directory.identity_file)
        context.load_verify_locations(self._directory.roots_file)


@dataclass(frozen=True, slots=True)
class _EtcdClient:
    """What a coordinator shows to its own member (see `ports.Credentials`)."""

    key_pem: bytes
    chain_pem: bytes
    roots_pem: bytes

    @classmethod
    def read(cls, files: EtcdFiles) -> _EtcdClient:
        return cls(files.key.read_bytes(), files.client.read_bytes(), files.client_roots.read_bytes())


async def load_credentials(settings: CoordinatorSettings, now_ms: int) -> OwnCredentials:
    """Return this coordinator's credentials; one that joins by a token asks for what it takes, as long as it takes.

    Raises BadCredentials, and what the cluster refuses the token by.
    """
    if not settings.tls:
        return OwnCredentials()
    vault = Vault(settings.identity_dir)
    holdings = vault.load()
    if holdings is None:
        holdings = await _first_holdings(settings, now_ms)
        vault.keep(holdings)
    return SignedCredentials(settings, holdings, now_ms)


async def _first_holdings(settings: CoordinatorSettings, now_ms: int) -> Holdings:
    """Return what a coordinator without any begins with."""
    token = read_token(settings.join_token, settings.join_token_file)
    if settings.founding_file is not None:
        return _read_founding_file(settings.founding_file)
    if token:
        return await _join(settings, token)
    if settings.bootstrap:
        return found(uuid4().hex, now_ms)
    raise BadCredentials(
        f"this coordinator has nothing to prove itself by in {settings.identity_dir}",
        hint="to join a cluster set CLOUDLESS_JOIN_TOKEN (cloudless token create coordinator); to found one together "
        "give all founders the same CLOUDLESS_FOUNDING_FILE (cloudless cluster found)",
    )


def _read_founding_file(file: Path) -> Holdings:
    try:
        return read_founding_file(file.read_bytes())
    except OSError as error:
        raise BadCredentials(
            f"the founding file {file} cannot be read: {error.strerror}",
            hint="make one with `cloudless cluster found` and give the same to all founders",
        ) from error


async def _join(settings: CoordinatorSettings, token: str) -> Holdings:
    """Enrol, as long as it takes, and return what the cluster hands over to a coordinator."""
    directory, waiting = IdentityDir(settings.identity_dir), Waiting("for an identity")
    while True:
        try:
            enrolled = await enrol(settings.enrol_addresses, token, settings.node_id, directory, role="COORDINATOR")
            break
        except Unavailable as error:
            waiting.say(error)
            await asyncio.sleep(ENROL_RETRY_PAUSE_S)
    logger.info("enrolled as {}", enrolled.credentials.identity)
    if enrolled.handover is None:
        raise BadCredentials("the cluster handed over nothing to sign with", hint="is the token one for a coordinator?")
    records = [codec.from_message(one, AuthorityRecord) for one in enrolled.handover.authorities]
    key = ClusterKey(bytes(enrolled.handover.cluster_key))
    return Holdings(enrolled.credentials.identity.cluster_id, key, tuple(records))


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
    return sorted({host for host in hosts if host not in ("", "0.0.0.0", "::")})
