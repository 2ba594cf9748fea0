"""What this coordinator proves itself by, to whom: callers and other coordinators, etcd's peers, etcd's clients.

Three authorities, so that a certificate for one door opens no other: agents and people never reach etcd. Without TLS
all of it is absent, and every connection is plain.

::

    identity/   node.key       node.pem       ca.pem          this coordinator, to people, agents and coordinators
                etcd-peer.key  etcd-peer.pem  etcd-peer-ca.pem   its member, to the other members
                etcd.key       etcd.pem       etcd-ca.pem        its member to this coordinator, and the other way
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.pemfiles import FileCredentials, PemFiles, build_server_context, show
from cloudless.settings import CoordinatorSettings
from etcd.flags import TlsFiles


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """The files of one member's doors."""

    client: TlsFiles
    peer: TlsFiles


@dataclass(frozen=True, slots=True)
class Identity:
    """One coordinator's credentials; all None without TLS."""

    api: FileCredentials | None = None
    etcd_client: FileCredentials | None = None
    etcd: EtcdTls | None = None
    http: ssl.SSLContext | None = None

    @property
    def dialler(self) -> Dialler:
        return Dialler(self.api)

    def etcd_url(self, address: str) -> str:
        """Return the URL of a member's door at `host:port`."""
        return f"{'https' if self.etcd else 'http'}://{address}"

    def refresh(self) -> None:
        """Take up what was renewed where a server does not look by itself."""
        if self.http is not None and self.api is not None:
            self.api()  # raises nothing: a pair that does not fit yet is not taken
            with contextlib.suppress(OSError, ssl.SSLError):
                show(self.http, self.api.files)


PLAIN = Identity()


def load_identity(settings: CoordinatorSettings) -> Identity:
    """Read this coordinator's credentials. Raises BadSettings if a file is missing or does not fit its neighbours."""
    if not settings.tls:
        return PLAIN
    own = PemFiles.of(settings.identity_dir)
    api = PemFiles(settings.tls_key or own.key, settings.tls_cert or own.chain, settings.tls_ca or own.roots)
    client = PemFiles.of(settings.identity_dir, "etcd", "etcd-ca")
    peer = PemFiles.of(settings.identity_dir, "etcd-peer", "etcd-peer-ca")
    peer.read()
    return Identity(
        api=FileCredentials(api),
        etcd_client=FileCredentials(client),
        etcd=EtcdTls(client=client.for_etcd(), peer=peer.for_etcd()),
        http=build_server_context(api),
    )
