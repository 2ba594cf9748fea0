"""A page is read with the caller's credentials where there is TLS, and what is no page is an error, not an entry."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from cloudless.adapters.http.exchange import Answer
from cloudless.adapters.http.server import HttpServer
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.server_context import ServerContext
from cloudless.adapters.pki.vault import found
from cloudless.cli.doctor.pages import fetch_text
from tests.integration.etcd_fixture import free_ports

NOW_MS = time.time_ns() // 1_000_000
ROUTES = {"/metrics": lambda query: Answer(200, "up 1\n" * 100)}


async def test_it_shows_the_callers_certificate_and_reads_so_much_and_no_more(tmp_path: Path) -> None:
    holdings = found("ours", NOW_MS)
    server_dir = IdentityDir(tmp_path / "server")
    sign_own(holdings, "c1", server_dir, NOW_MS)
    caller = sign_own(holdings, "c2", IdentityDir(tmp_path / "caller"), NOW_MS)
    stranger = sign_own(found("theirs", NOW_MS), "c2", IdentityDir(tmp_path / "stranger"), NOW_MS)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = HttpServer(address, ROUTES, tls=ServerContext(server_dir, ssl.CERT_OPTIONAL).context)
    await server.start()
    try:
        text = await asyncio.to_thread(fetch_text, address, "/metrics", 5.0, 1000, caller)
        assert text == "up 1\n" * 100
        assert await asyncio.to_thread(fetch_text, address, "/metrics", 5.0, 7, caller) == "up 1\nup"
        with pytest.raises(ValueError, match="404"):
            await asyncio.to_thread(fetch_text, address, "/nothing", 5.0, 1000, caller)
        for refused in (None, stranger):
            with pytest.raises((OSError, ValueError)):
                await asyncio.to_thread(fetch_text, address, "/metrics", 5.0, 1000, refused)
    finally:
        await server.stop()


async def test_without_tls_it_is_plain() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = HttpServer(address, ROUTES)
    await server.start()
    try:
        assert (await asyncio.to_thread(fetch_text, address, "/metrics", 5.0, 1000)).startswith("up 1")
    finally:
        await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(fetch_text, address, "/metrics", 5.0, 1000)
