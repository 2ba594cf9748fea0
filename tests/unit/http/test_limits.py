"""Who sends or reads too much, too slowly or not at all costs no more than a bound, and holds nobody else up."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cloudless.adapters.http import server
from cloudless.rpc.v1 import workload_pb2
from tests.unit.http.serving import serving

DEADLINE_S = 10.0


async def test_a_small_body_that_unpacks_to_a_large_one_is_refused() -> None:
    async with serving() as served:
        packed = gzip.compress(b"#" * (8 << 20))
        assert len(packed) < 10_000
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/yaml"}
        status, problem, _ = await served.ask("PUT", "/v1/workloads", data=packed, headers=headers)
        assert (status, problem["code"]) == (413, "too-large")


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_MAX_S", 0.1)
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"PUT /v1/workloads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        async with asyncio.timeout(DEADLINE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_stream_that_nobody_reads_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TAKE_MAX_S", 0.1)
    async with serving() as served:
        told = 0
        ended = asyncio.Event()

        async def read_logs(request: Any, context: Any) -> AsyncIterator[Any]:
            nonlocal told
            try:
                while True:
                    told += 1
                    yield workload_pb2.ReadLogsResponse(data=b"x" * 60_000)
            finally:
                ended.set()

        served.handlers["ReadLogs"] = read_logs
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(b"GET /v1/tasks/t1/logs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
            while served.server.connection_count > 0:  # broken off, though nothing was read
                await asyncio.sleep(0.01)
        assert told < 1_000, "what nobody reads is not made"
        assert (await served.ask("GET", "/v1/nodes"))[0] == 200
        writer.close()


async def test_what_is_no_http_ends_its_connection_and_no_other() -> None:
    async with serving() as served:
        for garbage in (
            b"\x16\x03\x01\x00\x00\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(garbage)
            async with asyncio.timeout(DEADLINE_S):
                assert b" 400 " in await reader.readline()
            writer.close()
        assert (await served.ask("GET", "/v1/nodes"))[0] == 200
