"""A man in the middle: ends TLS as a coordinator with a CA of its own, passes everything on, and writes all of it down.

What reached it in plain text is in `heard`: if that holds a secret, somebody has told it to a stranger.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path

from cloudless.adapters.pki.request import key_to_pem, new_key
from cloudless.adapters.pki.self_signing import coordinator_identity
from cloudless.adapters.pki.vault import found
from cloudless.core.model import AuthorityPurpose

_CHUNK = 65_536


class Impostor:
    """One on loopback; lives on the event loop it is started on. `roots_pem` is the CA that it is of."""

    def __init__(self, target: str, home: Path) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._context, self.roots_pem = _pretend(home)
        self._server: asyncio.Server
        self._serving: set[asyncio.Task[None]] = set()
        self.address = ""
        self.heard = bytearray()
        self.shook_hands = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def close(self) -> None:
        self._server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.shook_hands += 1
        own = asyncio.current_task()
        assert own is not None
        self._serving.add(own)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port, ssl=_careless())
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer, note=True))
                both.create_task(self._pump(far_reader, writer, note=False))
        except* OSError:
            pass
        finally:
            self._serving.discard(own)
            with contextlib.suppress(OSError):
                writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        while data := await reader.read(_CHUNK):
            if note:
                self.heard += data
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has closed")


def _pretend(home: Path) -> tuple[ssl.SSLContext, bytes]:
    """Return what to listen with as a coordinator of a cluster that nobody founded, and its CA."""
    now_ms = int(time.time() * 1000)
    holdings = found("0" * 32, now_ms)
    authority, key = holdings.open_issuing(AuthorityPurpose.CLUSTER), new_key()
    leaf = authority.sign_identity(coordinator_identity(holdings, "coordinator-1"), key.public_key(), now_ms)
    home.mkdir(mode=0o700)
    file = home / "impostor.pem"
    file.write_text(key_to_pem(key) + authority.chain_pem(leaf))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    return context, holdings.roots_pem(AuthorityPurpose.CLUSTER).encode()


def _careless() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
