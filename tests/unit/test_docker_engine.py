"""Calls to an engine that answers, refuses, hangs or is not there: bounded in time and threads.

The engine is scripted.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import docker  # noqa: F401 - so that no call's time goes into loading it
import pytest

from cloudless.adapters.docker.engine import Engine, EngineLimits
from cloudless.adapters.docker.faults import Refused, Unanswered
from cloudless.adapters.docker.stream import ask_stream, json_lines

LIMITS = EngineLimits(call_timeout_s=2.0, calls_max=3, probe_period_s=0.1, probe_timeout_s=1.0, retry_s=0.05)
DEADLINE_S = 10.0


class ScriptedEngine:
    """Answers requests by path; while `mute`, it takes them and says nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = f"unix://{path}"
        self.mute = False
        self.asked: list[str] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            self._server = None
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                self.asked.append(path)
                while self.mute:
                    await asyncio.sleep(0.01)
                self._answer(writer, path.partition("?")[0])
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, path: str) -> None:
        name = path.rpartition("/")[2]
        if name == "events":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(3):
                line = json.dumps({"number": number}).encode() + b"\n"
                writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            return
        status, document = {
            "version": (200, {"ApiVersion": "1.41"}),
            "_ping": (200, {}),
            "info": (200, {"Name": "scripted"}),
        }.get(name, (404, {"message": f"no such thing: {name}"}))
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedEngine]:
    with tempfile.TemporaryDirectory(prefix="cl-") as directory:  # a path short enough for a socket
        scripted = ScriptedEngine(Path(directory) / "engine.sock")
        await scripted.start()
        yield scripted
        scripted.mute = False
        await scripted.stop()


@pytest.fixture
def engine(scripted: ScriptedEngine) -> Engine:
    return Engine(scripted.host, LIMITS)


def info(client: Any) -> Any:
    return client.info()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def threads() -> int:
    return sum(thread.name == "docker" for thread in threading.enumerate())


async def test_an_answer_is_returned_and_a_refusal_has_its_status(engine: Engine) -> None:
    assert (await engine.call(info))["Name"] == "scripted"
    with pytest.raises(Refused, match="no such thing") as refused:
        await engine.call(lambda client: client.inspect_container("x"))
    assert refused.value.status == 404


async def test_what_is_no_fault_of_the_engine_is_not_called_one(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        await engine.call(lambda client: 1 // 0)


async def test_an_engine_that_is_not_there_is_said_so_at_once(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/none.sock", LIMITS)
    assert not await engine.is_listening()
    began_s = time.monotonic()
    with pytest.raises(Unanswered, match="cannot be reached: No such file"):
        await engine.call(info)
    assert not await engine.probe()
    assert time.monotonic() - began_s < DEADLINE_S / 2
    assert "cannot be reached" in engine.fault


async def test_a_hanging_engine_costs_bounded_time_and_threads_and_is_taken_up_again(
    engine: Engine, scripted: ScriptedEngine
) -> None:
    await engine.call(info)
    changes: list[str] = []
    engine.on_change.append(lambda: changes.append(engine.fault))
    running = asyncio.create_task(engine.run())
    scripted.mute = True
    began_s = time.monotonic()
    calls = [asyncio.create_task(engine.call(info)) for _ in range(20)]
    await asyncio.sleep(0)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, Unanswered) for outcome in outcomes)
    assert time.monotonic() - began_s < LIMITS.call_timeout_s + 2
    assert threads() <= LIMITS.calls_max + 1
    await until(lambda: engine.fault)
    asked = len(scripted.asked)
    for _ in range(5):
        with pytest.raises(Unanswered):
            await engine.call(info)
    assert not [path for path in scripted.asked[asked:] if path.endswith("/info")], "it is not asked while it hangs"
    scripted.mute = False
    await until(lambda: not engine.fault)
    assert (await engine.call(info))["Name"] == "scripted"
    assert len(changes) == 2
    assert changes[1] == ""
    running.cancel()
    await until(lambda: threads() == 0)


async def test_calls_under_way_fail_as_soon_as_the_engine_is_known_to_hang(scripted: ScriptedEngine) -> None:
    engine = Engine(scripted.host, EngineLimits(call_timeout_s=30.0, probe_period_s=0.05, probe_timeout_s=1.0))
    await engine.call(info)
    scripted.mute = True
    running = asyncio.create_task(engine.run())
    began_s = time.monotonic()
    with pytest.raises(Unanswered):
        await engine.call(info)
    assert time.monotonic() - began_s < DEADLINE_S
    running.cancel()


async def test_an_engine_that_comes_back_on_another_socket_is_connected_anew(
    engine: Engine, scripted: ScriptedEngine
) -> None:
    assert await engine.probe()
    await scripted.stop()
    assert not await engine.probe()
    await scripted.start()
    assert await engine.probe()
    assert (await engine.call(info))["Name"] == "scripted"


async def test_a_stream_is_read_item_by_item_and_its_thread_ends_with_its_reader(engine: Engine) -> None:
    async with engine.stream(lambda client: ask_stream(client, "GET", "/events", params={}), json_lines) as items:
        seen = []
        async for item in items:
            seen.append(item["number"])
            if len(seen) == 3:
                break
        assert seen == [0, 1, 2]
        assert threads() == 1
    await until(lambda: threads() == 0)


async def test_a_stream_that_never_opens_is_given_up(engine: Engine, scripted: ScriptedEngine) -> None:
    await engine.call(info)
    scripted.mute = True
    with pytest.raises(Unanswered):
        async with engine.stream(lambda client: ask_stream(client, "GET", "/events", params={}), json_lines):
            pytest.fail("it was never answered")
    scripted.mute = False
    await until(lambda: threads() == 0)


async def test_a_stream_that_is_refused_says_so(engine: Engine) -> None:
    with pytest.raises(Refused, match="no such thing"):
        async with engine.stream(lambda client: ask_stream(client, "GET", "/nothing", params={}), json_lines):
            pytest.fail("it was refused")


async def test_a_slow_reader_holds_the_thread_not_the_memory(engine: Engine) -> None:
    made: list[int] = []

    def endless(response: Any) -> Any:
        for number in range(1_000_000):
            made.append(number)
            yield number

    async with engine.stream(lambda client: ask_stream(client, "GET", "/info", params={}), endless) as items:
        assert await anext(items) == 0
        await until(lambda: len(made) > 10)
        await asyncio.sleep(0.05)
        assert len(made) < 50
    await until(lambda: threads() == 0)
