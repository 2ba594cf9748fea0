"""A listening server follows its identity: it shows the newest certificate, and trusts no CA that was dropped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.server_context import ServerContext
from cloudless.adapters.pki.vault import Holdings, found
from cloudless.core.identity.names import ANY_COORDINATOR

NOW_MS = time.time_ns() // 1_000_000


def keep(holdings: Holdings, directory: Path, name: str) -> IdentityDir:
    kept = IdentityDir(directory)
    kept.forget()
    sign_own(holdings, name, kept, NOW_MS)
    return kept


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert")
        writer.write(b"known" if shown else b"nobody")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, roots: IdentityDir, own: IdentityDir | None, name: str | None) -> bytes:
    context = ssl.create_default_context(cafile=str(roots.roots_file))
    context.check_hostname = name is not None
    if own is not None:
        context.load_cert_chain(own.identity_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name or "")
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def ask_or_fail(port: int, roots: IdentityDir, own: IdentityDir, name: str | None) -> bytes:
    """With TLS 1.3 the caller is refused only after its own handshake: by an alert, or an end."""
    try:
        return await ask(port, roots, own, name)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("name", [ANY_COORDINATOR, None])
async def test_a_dropped_authority_is_not_trusted_from_the_next_handshake_on(tmp_path: Path, name: str | None) -> None:
    old, new = found("ours", NOW_MS), found("ours", NOW_MS)
    server = keep(old, tmp_path / "server", "c1")
    before, after = keep(old, tmp_path / "before", "c2"), keep(new, tmp_path / "after", "c2")
    followed = ServerContext(server, ssl.CERT_OPTIONAL)
    async with serving(followed.context) as port:
        assert await ask(port, before, before, name) == b"known"
        assert await ask(port, before, None, name) == b"nobody"
        keep(new, tmp_path / "server", "c1")
        followed.renew()
        assert await ask(port, after, after, name) == b"known"
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(port, before, before, name)  # the certificate shown is another CA's
        assert await ask_or_fail(port, after, before, name) == b""  # and so is the caller's own


async def test_what_cannot_be_read_leaves_the_server_as_it_was(tmp_path: Path) -> None:
    server = keep(found("ours", NOW_MS), tmp_path / "server", "c1")
    trusted = keep(found("ours", NOW_MS), tmp_path / "copy", "c1")
    trusted.roots_file.write_bytes(server.roots_file.read_bytes())
    followed = ServerContext(server, ssl.CERT_OPTIONAL)
    server.identity_file.write_text("no certificate")
    with pytest.raises(ssl.SSLError, match="PEM"):
        followed.renew()
    async with serving(followed.context) as port:
        assert await ask(port, trusted, None, ANY_COORDINATOR) == b"nobody"


async def test_nobody_comes_again_by_a_session_of_before(tmp_path: Path) -> None:
    """A resumed session would skip what is asked of certificates, and so outlive its authority."""
    old, new = found("ours", NOW_MS), found("ours", NOW_MS)
    server, before = keep(old, tmp_path / "server", "c1"), keep(old, tmp_path / "before", "c2")
    followed = ServerContext(server, ssl.CERT_REQUIRED)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(before.identity_file)

    def visit(port: int, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), 5) as plain,
                context.wrap_socket(plain, session=session) as secured,
            ):
                return secured.recv(100), secured.session
        except (ssl.SSLError, ConnectionError):
            return b"", None

    async with serving(followed.context) as port:
        answer, session = await asyncio.to_thread(visit, port, None)
        assert answer == b"known"
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # where resuming cannot be turned off
        assert (await asyncio.to_thread(visit, port, None))[0] == b""
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        keep(new, tmp_path / "server", "c1")
        followed.renew()
        assert (await asyncio.to_thread(visit, port, session))[0] == b""
