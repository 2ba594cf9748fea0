"""One question to a server: what counts as an answer, and that neither size nor silence of an answer matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from cloudless.adapters.http.asking import DRAIN_S, ask_http, ask_tcp

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HOST = "127.0.0.1"


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(once, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(*parts: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()

    return serve


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhello", ""),
        (b"HTTP/1.0 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "GET /healthz answered 404"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "GET /healthz answered 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "GET /healthz: the answer is not HTTP"),
        (b"HTTP/1.1 oops\r\n\r\n", "GET /healthz: the answer is not HTTP"),
        (b"x" * 1_000_000, "GET /healthz: the answer is not HTTP"),
        (b"", "GET /healthz: the connection was closed"),
    ],
)
async def test_only_the_status_of_an_answer_counts(answer: bytes, wrong: str) -> None:
    async with serving(answering(answer)) as port:
        assert await ask_http(HOST, port, "/healthz") == wrong


async def test_the_question_is_a_plain_get_on_one_connection() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n")

    async with serving(serve) as port:
        assert await ask_http(HOST, port, "/a?b=c") == ""
    assert len(asked) == 1
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"GET /a?b=c HTTP/1.1"
    assert {f"Host: {HOST}:{port}".encode(), b"Connection: close"} <= {*lines}


async def test_an_endless_answer_is_read_a_little() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with serving(serve) as port:
        assert await ask_http(HOST, port, "/") == ""
        await asyncio.sleep(0)
    assert sent < 20_000_000, "what the sockets hold, and no more"


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await reader.read()

    async with serving(serve) as port:
        began = time.monotonic()
        assert await ask_http(HOST, port, "/") == ""
        assert time.monotonic() - began < DRAIN_S + 1.0


async def test_a_connection_that_opens_is_enough_for_tcp() -> None:
    async with serving(answering()) as port:
        assert await ask_tcp(HOST, port) == ""
    assert await ask_tcp(HOST, port) == f"no connection to port {port}: connection refused"
    assert await ask_http(HOST, port, "/") == f"no connection to port {port}: connection refused"
