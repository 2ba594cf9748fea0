"""Credentials kept as PEM files, read again when they change: whoever renews a certificate only writes files.

Three files belong together: a private key, the certificate chain made out to it, and the authorities that sign the
other parties'. They are replaced one by one, each by a rename, so for a moment a key may stand beside the certificate
of the one before; such a pair is not taken, the last good one stays in use.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from cloudless.errors import BadSettings, Problem
from etcd.flags import TlsFiles


@dataclass(frozen=True, slots=True)
class Pem:
    """Credentials as read (see `ports.Credentials`)."""

    key: bytes
    chain: bytes
    roots: bytes


@dataclass(frozen=True, slots=True)
class PemFiles:
    """Where one party's credentials are."""

    key: Path
    chain: Path
    roots: Path

    @classmethod
    def of(cls, directory: Path, name: str = "node", roots: str = "ca") -> PemFiles:
        """Return `name`.key, `name`.pem and `roots`.pem in `directory`."""
        return cls(directory / f"{name}.key", directory / f"{name}.pem", directory / f"{roots}.pem")

    def for_etcd(self) -> TlsFiles:
        return TlsFiles(cert_file=str(self.chain), key_file=str(self.key), ca_file=str(self.roots))

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Return what changes whenever one of the files does."""
        return tuple((found.st_mtime_ns, found.st_ino) for found in (f.stat() for f in self._all()))

    def read(self) -> Pem:
        """Return what the files hold. Raises BadSettings if they cannot be read or do not belong together."""
        try:
            pem = Pem(self.key.read_bytes(), self.chain.read_bytes(), self.roots.read_bytes())
            build_server_context(self)
        except (OSError, ssl.SSLError) as error:
            names = ", ".join(str(file) for file in self._all())
            raise BadSettings([Problem(names, f"are no key, certificate and authorities: {error}")]) from error
        return pem

    def _all(self) -> tuple[Path, Path, Path]:
        return self.key, self.chain, self.roots


class FileCredentials:
    """A `CredentialSource` over files; returns the same object until they change."""

    def __init__(self, files: PemFiles) -> None:
        """Read the files once. Raises BadSettings."""
        self.files = files
        self._held = files.read()
        self._stamp = files.stamp()

    def __call__(self) -> Pem:
        try:
            stamp = self.files.stamp()
            if stamp != self._stamp:
                self._held, self._stamp = self.files.read(), stamp
        except (OSError, BadSettings) as error:
            logger.debug("renewed credentials cannot be used yet: {}", error)
        return self._held


def build_server_context(files: PemFiles) -> ssl.SSLContext:
    """Return a server's TLS context that asks callers for a certificate and takes those without one too.

    Whoever shows one that the authorities did not sign gets no connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    show(context, files)
    return context


def show(context: ssl.SSLContext, files: PemFiles) -> None:
    """Make handshakes from now on use what the files hold now; authorities are added to those known before."""
    context.load_cert_chain(files.chain, files.key)
    context.load_verify_locations(files.roots)
