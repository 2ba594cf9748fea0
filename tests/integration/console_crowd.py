"""A coordinator as far as the console sees it, of a cluster of 1,000 nodes and 20,000 tasks in which much changes.

It serves the page and the answers the page asks for, made up; all answers are in the form of the API, pages included.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from cloudless.adapters.http.assets import Assets
from cloudless.adapters.http.exchange import JSON, Answer, Asked, Stream
from cloudless.adapters.http.server import HttpServer
from tests.architecture.tree import ROOT

NODES, TASKS, WORKLOADS = 1000, 20_000, 200
CHANGES_PERIOD_S = 0.05
CHANGES_AT_ONCE = 20
BORN_MS = 1_700_000_000_000


@dataclass
class Crowd:
    """The made-up cluster. `told`: how many changes the page was told of."""

    revision: int = 1000
    told: int = 0
    asked: list[str] = field(default_factory=list)
    assets: Assets = field(default_factory=Assets)

    def __post_init__(self) -> None:
        self.nodes = [_node(number) for number in range(NODES)]
        self.tasks = [_task(number) for number in range(TASKS)]
        self.workloads = [_workload(number) for number in range(WORKLOADS)]
        self.document = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")

    async def answer(self, asked: Asked) -> Answer | Stream:
        if (file := self.assets.find(asked)) is not None:
            return file
        self.asked.append(asked.path)
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        match asked.path.split("/")[1:]:
            case ["openapi.json"]:
                return Answer(200, self.document, JSON)
            case ["v1", "watch"]:
                return Stream("text/event-stream", self._watch(), _nothing)
            case ["v1", ("nodes" | "tasks" | "workloads") as kind]:
                return self._page(kind, query)
            case ["v1", "nodes", name]:
                return self._say(node=self.nodes[int(name.rpartition("-")[2])])
            case ["v1", "workloads", _, name]:
                return self._say(workload=self.workloads[int(name.rpartition("-")[2])])
            case ["v1", "whoami"]:
                return self._say(name="", role="ROLE_UNSPECIFIED", namespaces=[])
            case ["v1", "members"]:
                return self._say(members=[{"id": "1", "name": "c1", "health": "healthy", "raftLag": "0"}], joiners=[])
            case ["v1", "cluster", "status"]:
                own = {"record": {"id": "c1"}, "linked": True, "leader": True, "memberRole": "voter"}
                return self._say(health="ok", coordinators=[own], nodesTotal=NODES, nodesReady=NODES, tasksTotal=TASKS)
            case _:
                return self._say(events=[])

    def _page(self, kind: str, query: dict[str, str]) -> Answer:
        items: list[Any] = getattr(self, kind)
        begin, size = int(query.get("pageToken", 0)), int(query.get("limit", 500))
        more = str(begin + size) if begin + size < len(items) else ""
        return self._say(**{kind: items[begin : begin + size], "nextToken": more})

    def _say(self, **fields: Any) -> Answer:
        return Answer(200, json.dumps({"header": self._header(), **fields}), JSON)

    def _header(self) -> dict[str, Any]:
        return {
            "clusterId": "crowd", "coordinatorId": "c1", "leaderId": "c1", "term": "1", "stalenessS": 0,
            "revision": str(self.revision),
        }  # fmt: skip

    async def _watch(self) -> AsyncIterator[bytes]:
        draw = random.Random(1)
        while True:
            self.revision += 1
            changes = [self._change(draw) for _ in range(CHANGES_AT_ONCE)]
            self.told += len(changes)
            told = {"header": self._header(), "changes": changes, "revision": str(self.revision)}
            yield f"id: {self.revision}\ndata: {json.dumps(told)}\n\n".encode()
            await asyncio.sleep(CHANGES_PERIOD_S)

    def _change(self, draw: random.Random) -> dict[str, Any]:
        task = self.tasks[draw.randrange(TASKS)]
        state = draw.choice(["RUNNING", "RUNNING", "STARTING", "BACKOFF"])
        task["observed"] = {**task["observed"], "state": f"TASK_STATE_{state}"}
        return {
            "key": f"/cloudless/v1/tasks/{task['desired']['id']}/observed", "kind": "task-observed",
            "revision": str(self.revision), "deleted": False, "record": {"taskObserved": task["observed"]},
        }  # fmt: skip


async def _nothing() -> None:
    return


def _node(number: int) -> dict[str, Any]:
    room = {"cpuMillicores": "16000", "memoryMb": "65536"}
    return {
        "id": f"node-{number}", "phase": "READY", "tasksLive": str(TASKS // NODES), "free": room, "reserved": {},
        "info": {"region": f"region-{number % 2}", "zone": f"zone-{number % 10}", "capacity": room, "version": "1"},
        "spec": {}, "status": {"reachability": "REACHABILITY_REACHABLE"}, "revision": "5", "lastHeardS": 0.5,
    }  # fmt: skip


def _task(number: int) -> dict[str, Any]:
    name = f"task-{number:05}"
    spec = {"command": ["serve"], "env": {f"NAME_{at}": "a value of some length" for at in range(8)}}
    desired = {
        "id": name, "namespace": "default", "workload": f"work-{number % WORKLOADS}", "slot": str(number // WORKLOADS),
        "nodeId": f"node-{number % NODES}", "spec": spec, "desired": "DESIRED_RUNNING", "createdAtMs": str(BORN_MS),
    }  # fmt: skip
    observed = {"taskId": name, "state": "TASK_STATE_RUNNING", "restarts": "0", "ready": True}
    return {"desired": desired, "observed": observed, "state": "RUNNING", "revision": "6"}


def _workload(number: int) -> dict[str, Any]:
    count = str(TASKS // WORKLOADS)
    record = {
        "namespace": "default", "name": f"work-{number}", "generation": "1", "createdAtMs": str(BORN_MS),
        "spec": {"command": ["serve"], "replicas": count},
    }  # fmt: skip
    return {"record": record, "summary": {"state": "RUNNING", "desired": count, "running": count, "ready": count}}


@contextmanager
def crowd() -> Iterator[tuple[Crowd, str]]:
    """Serve a crowd from a thread; yields it and its address."""
    made, loop = Crowd(), asyncio.new_event_loop()
    server = HttpServer("127.0.0.1:0", {}, made.answer)
    thread = threading.Thread(target=loop.run_forever, name="crowd")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield made, f"http://127.0.0.1:{server.port}/"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
