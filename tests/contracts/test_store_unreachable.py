"""A store that cannot be reached: every call ends in time, and says honestly whether it may have been done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.errors import CommitUncertain, Unavailable
from cloudless.ports import Put, Store, Txn
from cloudless.testing.faulty_store import FaultyStore
from cloudless.testing.memory_store import MemoryStore
from tests.integration.etcd_fixture import free_ports

TIMEOUT_S = 0.3
SLACK_S = 1.0
WRITE = Txn(then=(Put("/k", b""),))


@pytest.fixture(params=["memory, cut off", "etcd, nothing listens", "etcd, accepts and is silent"])
async def lost(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory, cut off":
        faulty = FaultyStore(MemoryStore(time.monotonic))
        faulty.cut = True
        yield faulty
        await faulty.close()
        return
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1] if "silent" in request.param else free_ports(1)[0]
    etcd = EtcdStore(f"127.0.0.1:{port}")
    yield etcd
    await etcd.close()
    server.close()


async def test_reads_and_renewals_are_unavailable_in_time(lost: Store) -> None:
    calls = {
        "read_page": lambda: lost.read_page("/", timeout_s=TIMEOUT_S),
        "current_revision": lambda: lost.current_revision(timeout_s=TIMEOUT_S),
        "keep_alive": lambda: lost.keep_alive(1, timeout_s=TIMEOUT_S),
    }
    for name, call in calls.items():
        began_s = time.monotonic()
        with pytest.raises(Unavailable):
            pytest.fail(f"{name}: {await call()}")
        assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S, name


async def test_writes_are_uncertain_or_unavailable_in_time(lost: Store) -> None:
    calls = {
        "txn": lambda: lost.txn(WRITE, timeout_s=TIMEOUT_S),
        "grant": lambda: lost.grant(5, timeout_s=TIMEOUT_S),
        "revoke": lambda: lost.revoke(1, timeout_s=TIMEOUT_S),
    }
    for name, call in calls.items():
        began_s = time.monotonic()
        with pytest.raises((Unavailable, CommitUncertain)):
            pytest.fail(f"{name}: {await call()}")
        assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S, name


async def test_a_watch_is_unavailable_or_silent_until_it_is_closed(lost: Store) -> None:
    watch = lost.watch("/", start_revision=1)

    async def follow() -> str:
        try:
            async for _ in watch:
                return "a batch"
        except Unavailable:
            return "unavailable"
        return "closed"

    following = asyncio.create_task(follow())
    await asyncio.wait({following}, timeout=TIMEOUT_S)
    await watch.request_progress()
    await watch.close()
    assert await asyncio.wait_for(following, SLACK_S) in ("unavailable", "closed")
