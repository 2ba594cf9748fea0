"""Check that a member's ports are free before etcd is started, so that the error can name who has them.

The test binds as etcd does (SO_REUSEADDR, no SO_REUSEPORT) and lets go at once; another process can still be
quicker, and etcd then stops with its own message.
"""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

from cloudless.adapters.member import procfs
from cloudless.errors import PortInUse, StartupError


def require_free(url: str, purpose: str) -> None:
    """Raise PortInUse, naming port and owner, if the address of `url` is taken; StartupError if it is not ours."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # Two sockets may bind one port with SO_REUSEADDR; only one may listen.
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(port, purpose) from error
        raise StartupError(
            f"cannot listen on {url} for {purpose}: {error.strerror or error}",
            hint="listen on an address that this host has",
        ) from error


def _taken(port: int, purpose: str) -> PortInUse:
    owner = procfs.listener_of(port)
    name = f"pid {owner} ({' '.join(procfs.argv_of(owner))[:80]})" if owner else "another process"
    return PortInUse(f"port {port} for {purpose} is in use by {name}", hint="stop that process or choose another port")
