"""Ask one member, over its own HTTP gateway, whether it answers. A process that exists may be stopped or stuck.

The question is the maintenance status: it is answered from the member's own state, by learners and after a quorum
was lost too, but only after the request has passed etcd's HTTP server and its gRPC server. A member that has just
started answers nothing until it has found a quorum once.
Each question is a connection of its own, so a frozen member costs one timeout and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from etcd.flags import TlsFiles

_REQUEST = (
    "POST /v3/maintenance/status HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    "Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
)


async def answers(url: str, tls: TlsFiles | None, timeout_s: float) -> bool:
    """Return whether the member at `url` gives its status within `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(url, tls)
    except (TimeoutError, OSError, ssl.SSLError):
        return False


async def _ask(url: str, tls: TlsFiles | None) -> bool:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=_ssl_context(tls))
    try:
        writer.write(_REQUEST.format(host=parts.netloc).encode("ascii"))
        status_line = await reader.readline()
        return status_line.split()[1:2] == [b"200"]
    finally:
        # Not close(): under TLS that waits for the peer's farewell, which a frozen one never sends.
        writer.transport.abort()


def _ssl_context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    return context
