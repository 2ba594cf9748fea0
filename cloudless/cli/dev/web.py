"""The smallest HTTP client that can tell whether a replica answers: one GET, one connection, one deadline."""

from __future__ import annotations

import asyncio
import ssl

from cloudless.core.identity.names import ANY_COORDINATOR


async def get(
    host: str, port: int, path: str = "/", timeout_s: float = 2.0, tls: ssl.SSLContext | None = None
) -> tuple[int, str]:
    """Return (status, body). Raises OSError, TimeoutError, or ValueError for what is not HTTP."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, server_hostname=ANY_COORDINATOR if tls else None
        )
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read(-1)
        finally:
            writer.close()
    head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise ValueError(f"not HTTP: {head[:40]!r}")
    return int(words[1]), body


async def read_metric(host: str, port: int, name: str, tls: ssl.SSLContext | None = None) -> float | None:
    """Return the first sample of metric `name`, or None if it is not served."""
    try:
        _, body = await get(host, port, "/metrics", tls=tls)
    except (OSError, TimeoutError, ValueError):
        return None
    for line in body.splitlines():
        head, _, value = line.rpartition(" ")
        if head == name or head.startswith(name + "{"):
            return float(value)
    return None
