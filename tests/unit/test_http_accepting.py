"""An HTTP server with TLS keeps answering while others stand in its door and say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cloudless.adapters.http import accepting
from cloudless.adapters.http.exchange import Answer
from cloudless.adapters.http.server import HttpServer
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.server_context import ServerContext
from cloudless.adapters.pki.vault import found
from cloudless.errors import PortInUse

NOW_MS = time.time_ns() // 1_000_000
DEADLINE_S = 10.0


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Serve /livez with TLS; yield the port and what to ask with."""
    directory = IdentityDir(tmp_path / "server")
    sign_own(found("ours", NOW_MS), "c1", directory, NOW_MS)
    tls = ServerContext(directory, ssl.CERT_OPTIONAL).context
    port = free_port()
    server = HttpServer(f"127.0.0.1:{port}", {"/livez": lambda query: Answer(200, "ok\n")}, tls=tls, open=("/livez",))
    await server.start()
    client = ssl.create_default_context(cafile=str(directory.roots_file))
    client.check_hostname = False
    try:
        yield port, client
    finally:
        await server.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask(port: int, tls: ssl.SSLContext) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"https://127.0.0.1:{port}/livez", ssl=tls) as answer:
        return answer.status


async def stand(port: int, count: int) -> list[asyncio.StreamWriter]:
    return [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(count)]


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read() == b""
    except ConnectionError:
        return True


async def test_who_asks_is_answered_and_a_handshake_that_does_not_end_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_MAX_S", 0.3)
    async with serving(tmp_path) as (port, tls):
        assert await ask(port, tls) == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_closed(reader)
        writer.close()


async def test_beyond_the_limit_of_one_address_newcomers_are_closed_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, _):
        standing = await stand(port, accepting.FROM_ONE_ADDRESS_MAX)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_closed(reader)
        for one in (writer, *standing):
            one.close()


async def test_the_oldest_handshake_makes_way_for_who_comes_after_it_had_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HURRIED_S", 0.0)
    async with serving(tmp_path) as (port, tls):
        standing = await stand(port, accepting.FROM_ONE_ADDRESS_MAX)
        assert await ask(port, tls) == 200
        for one in standing:
            one.close()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, _):
        with pytest.raises(PortInUse, match=str(port)):
            await HttpServer(f"127.0.0.1:{port}", {}).start()
