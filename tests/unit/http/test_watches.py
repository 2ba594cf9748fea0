"""Watches over HTTP are server-sent events: they tell each change, go on after the last one told, and end cleanly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from cloudless.coordinator.httpapi import api, telling
from cloudless.core import keys
from cloudless.core.model import NodeSpec
from cloudless.errors import Denied
from cloudless.rpc.v1 import workload_pb2
from tests.unit.http.serving import OpenDoor, Served, serving

DEADLINE_S = 10.0
WATCH = "cloudless.rpc.v1.EventService/Watch"
Event = dict[str, str]


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Yield what a browser would: one dict of fields for each block; comments under the empty name."""
    block: Event = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(":")
            block[name] = value.removeprefix(" ")
        elif block:
            yield block
            block = {}


async def next_with(events: AsyncIterator[Event], name: str) -> Event:
    async with asyncio.timeout(DEADLINE_S):
        async for event in events:
            if name in event:
                return event
    raise AssertionError(f"the stream ended without {name}")


async def next_change(events: AsyncIterator[Event]) -> tuple[int, str]:
    """Return id and key of the next change told."""
    while True:
        event = await next_with(events, "data")
        if changes := json.loads(event["data"])["changes"]:
            return int(event["id"]), changes[0]["key"]


async def put_spec(served: Served, labels: dict[str, str]) -> int:
    return await served.put(keys.node_spec("n1"), NodeSpec(labels=labels))


async def until(look: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not look():
            await asyncio.sleep(0.01)


async def test_a_sign_of_life_comes_as_often_as_asked() -> None:
    async with serving() as served:
        async with served.session.get(f"{served.base}/v1/watch?signOfLifeS=0.2") as answer:
            events = events_of(answer)
            async with asyncio.timeout(2.0):
                told = [json.loads((await next_with(events, "data"))["data"]) for _ in range(4)]
            assert [one["changes"] for one in told] == [[], [], [], []]
        for wrong in ("0.1", "61", "-1", "nan"):
            status, problem, _ = await served.ask("GET", f"/v1/watch?signOfLifeS={wrong}")
            assert (status, problem["code"]) == (400, "invalid-spec"), wrong


async def test_a_watch_tells_a_change_and_goes_on_after_the_last_one_told() -> None:
    async with serving() as served:
        url = f"{served.base}/v1/watch?kinds=node-spec"
        async with served.session.get(url) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            events = events_of(answer)
            await next_with(events, "data")  # it has begun
            first = await put_spec(served, {"a": "1"})
            assert await next_change(events) == (first, "/cloudless/v1/nodes/n1/spec")
        missed = await put_spec(served, {"a": "2"})
        latest = await put_spec(served, {"a": "3"})
        async with served.session.get(url, headers={"Last-Event-ID": str(first)}) as answer:
            events = events_of(answer)
            assert [(await next_change(events))[0], (await next_change(events))[0]] == [missed, latest]
        async with served.session.get(f"{url}&fromRevision={latest}") as answer:
            assert (await next_change(events_of(answer)))[0] == latest


async def test_what_fails_before_the_first_event_is_an_answer_with_its_own_status() -> None:
    async with serving() as served:
        assert (await served.ask("GET", "/v1/watch?kinds=nodes"))[0] == 400
        assert (await served.ask("GET", "/v1/watch", headers={"Last-Event-ID": "x"}))[0] == 400
        assert (await served.ask("GET", "/v1/workloads/default/web/endpoints/watch?minRevision=-1"))[0] == 400
        status, problem, _ = await served.ask("GET", "/v1/watch?fromRevision=1")
        assert (status, problem["code"]) == (410, "history-gone"), "from before the state was read"
        assert {outcome for _, outcome in served.outcomes} >= {"invalid-spec"}


async def test_who_leaves_is_listened_to_no_more() -> None:
    async with serving() as served:
        before = served.replica.listener_count
        async with served.session.get(f"{served.base}/v1/watch") as answer:
            await next_with(events_of(answer), "data")
            assert served.replica.listener_count == before + 1
            answer.close()
        await until(lambda: served.replica.listener_count == before)
        await until(lambda: served.outcomes == [(WATCH, "cancelled")])


async def test_a_watch_ends_cleanly_when_the_server_stops() -> None:
    async with serving() as served:
        async with served.session.get(f"{served.base}/v1/watch") as answer:
            events = events_of(answer)
            await next_with(events, "data")
            stopping = asyncio.create_task(served.server.stop())
            async with asyncio.timeout(DEADLINE_S):
                rest = [event async for event in events]  # a connection that broke off would raise
            await stopping
        assert all("problem" not in event.values() for event in rest)
        assert served.outcomes == [(WATCH, "cancelled")]


async def test_who_is_locked_out_meanwhile_is_told_so_and_no_more() -> None:
    class Closing(OpenDoor):
        shut = False

        def check(self, method: str, message: Any, context: Any) -> None:
            if self.shut:
                raise Denied("you were revoked")

    door = Closing()
    async with serving(door) as served, served.session.get(f"{served.base}/v1/watch?kinds=node-spec") as answer:
        events = events_of(answer)
        await next_with(events, "data")
        door.shut = True
        await put_spec(served, {"a": "1"})
        last = await next_with(events, "event")
        assert (last["event"], json.loads(last["data"])["code"]) == ("problem", "denied")
        assert [event async for event in events] == []
        await until(lambda: served.outcomes == [(WATCH, "denied")])


async def test_streams_at_once_are_bounded_and_one_that_ended_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "STREAMS_FROM_ONE_ADDRESS_MAX", 1)
    async with serving() as served:
        async with served.session.get(f"{served.base}/v1/watch") as answer:
            await next_with(events_of(answer), "data")
            assert (await served.ask("GET", "/v1/watch"))[0] == 429
            answer.close()
        await until(lambda: served.outcomes)
        async with served.session.get(f"{served.base}/v1/watch") as answer:
            assert answer.status == 200


async def test_silence_is_kept_alive_by_comments_and_bytes_are_base64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "KEEP_ALIVE_S", 0.05)
    async with serving() as served:
        asked: list[workload_pb2.ReadLogsRequest] = []
        goes_on = asyncio.Event()

        async def read_logs(request: workload_pb2.ReadLogsRequest, context: Any) -> AsyncIterator[Any]:
            asked.append(request)
            await goes_on.wait()
            yield workload_pb2.ReadLogsResponse(task_id="t1", stream="stdout", data=b"hello\n")

        served.handlers["ReadLogs"] = read_logs
        async with served.session.get(f"{served.base}/v1/tasks/t1/logs?follow=true&tailLines=5") as answer:
            events = events_of(answer)
            assert await next_with(events, "") == {"": ""}
            goes_on.set()
            event = await next_with(events, "data")
            assert json.loads(event["data"]) == {"taskId": "t1", "stream": "stdout", "data": "aGVsbG8K", "atMs": "0"}
            assert "id" not in event
            assert [event async for event in events if "data" in event] == []
        assert asked == [workload_pb2.ReadLogsRequest(task_id="t1", tail_lines=5, follow=True)]
        assert served.outcomes == [("cloudless.rpc.v1.WorkloadService/ReadLogs", "ok")]
