"""The stores that the contract suite runs on: the one in memory, and etcd's adapter with a real member."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.member.datadir import DataDir
from cloudless.ports import Store, WatchBatch, WatchStream
from cloudless.testing.memory_store import MemoryStore
from etcd.find import Search, find
from etcd.flags import build_argv
from tests.integration.etcd_fixture import build_config, until

_prefixes = itertools.count(1)


@dataclass
class Held:
    """A store under test. `prefix` is this test's own; `pass_time` lets leases run out."""

    store: Store
    pass_time: Callable[[float], Awaitable[None]]
    real: bool
    prefix: str = field(default_factory=lambda: f"/contract/{next(_prefixes):04d}/")

    def key(self, name: str) -> str:
        return self.prefix + name


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one etcd for a module; yield `host:port` of its client address."""
    directory: Path = tmp_path_factory.mktemp("store-contract")
    binary = find(Search())
    config = build_config(DataDir(directory))
    address = config.client_url.removeprefix("http://")
    with (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(build_argv(str(binary.path), binary.version, config), stdout=log, stderr=log)
    try:
        await_port(address)
        yield address
    finally:
        process.kill()
        process.wait()


def await_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=0.2):
            return
        time.sleep(0.02)
    pytest.fail(f"nothing listens on {address}")


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.integration)])
async def held(request: pytest.FixtureRequest) -> AsyncIterator[Held]:
    if request.param == "memory":
        yield _in_memory()
        return
    etcd = EtcdStore(request.getfixturevalue("member"))
    await until(lambda: _answers(etcd))
    yield Held(etcd, _wait_really, real=True)
    await etcd.close()


def _in_memory() -> Held:
    now = [1_000.0]
    store = MemoryStore(lambda: now[0])

    async def pass_time(seconds: float) -> None:
        now[0] += seconds
        await store.expire_leases()

    return Held(store, pass_time, real=False)


async def _wait_really(seconds: float) -> None:
    """Real time passes by itself; whoever waits polls with a deadline."""


async def _answers(store: Store) -> bool:
    with suppress(Exception):
        await store.current_revision(timeout_s=1)
        return True
    return False


async def collect(
    watch: WatchStream, done: Callable[[list[WatchBatch]], bool], *, timeout_s: float = 10.0
) -> list[WatchBatch]:
    """Return the watch's batches up to the first with which `done` holds; close it."""
    batches: list[WatchBatch] = []
    try:
        async with asyncio.timeout(timeout_s):
            async for batch in watch:
                batches.append(batch)
                if done(batches):
                    break
    finally:
        await watch.close()
    return batches
