"""The API's watch: what a program is told when the coordinator itself has missed something."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.events import Events
from cloudless.errors import HistoryGone
from cloudless.rpc.v1 import common_pb2, event_pb2
from cloudless.testing.virtual_time import eventually, virtually
from tests.unit.test_replica import build_store, following, put


@virtually
async def test_a_watch_over_a_fresh_read_of_the_state_ends_instead_of_skipping_revisions() -> None:
    memory, store = build_store()
    await put(memory, "a", label="0")
    async with following(store) as replica:
        access = SimpleNamespace(
            replica=replica,
            view=replica.machine,
            header=lambda revision=0: common_pb2.ResponseHeader(revision=revision),
        )
        told: list[int] = []

        async def watch() -> None:
            request = event_pb2.WatchRequest(from_revision=replica.machine.revision + 1)
            async for answer in Events(cast(Access, access)).Watch(request, cast(Any, None)):
                told.extend(change.revision for change in answer.changes)

        watching = asyncio.create_task(watch())
        await eventually(lambda: bool(replica._listeners))
        store.cut = True
        store.break_watches()
        for number in range(1, 6):
            newest = await put(memory, "a", label=str(number))
        await memory.compact(newest, timeout_s=1)
        store.cut = False
        with pytest.raises(HistoryGone):
            async with asyncio.timeout(60):
                await watching
        assert told == []
