"""A coordinator's HTTP API on a port of this machine: its real handlers, over a store in memory."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp

from cloudless.adapters.http.exchange import Answer
from cloudless.adapters.http.server import HttpServer
from cloudless.adapters.system import RandomIds, SystemClock
from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.events import Events
from cloudless.coordinator.api.names import Names
from cloudless.coordinator.api.nodes import Nodes
from cloudless.coordinator.api.rollouts import Rollouts
from cloudless.coordinator.api.scheduler import SchedulerCalls
from cloudless.coordinator.api.tasks import Tasks
from cloudless.coordinator.api.workloads import Workloads
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.httpapi.serving import build_api
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.coordinator.replica import Replica
from cloudless.coordinator.runtime import SERVICES
from cloudless.core import keys
from cloudless.core.model import ClusterRecord, Record
from cloudless.errors import Unavailable
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.settings import CoordinatorSettings
from cloudless.testing.builders import build_node
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import running

MANIFEST = "apiVersion: cloudless/v1\nkind: Workload\nmetadata: {name: web}\nspec: {command: [run], replicas: 2}\n"
PAGE = "/livez"


class OpenDoor:
    """Lets everybody do everything, and notes what it was asked."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.checked: list[tuple[str, Any]] = []

    def enter(self, method: str, context: Any) -> None:
        self.entered.append(method)

    def check(self, method: str, message: Any, context: Any) -> None:
        self.checked.append((method, message))


@dataclass
class Served:
    """One coordinator. `outcomes` are what was counted; `handlers` go before the real ones."""

    port: int
    session: aiohttp.ClientSession
    store: MemoryStore
    replica: Replica
    server: HttpServer
    door: Any
    outcomes: list[tuple[str, str]]
    handlers: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, verb: str, path: str, **options: Any) -> tuple[int, Any, Mapping[str, str]]:
        """Return status, JSON and headers."""
        async with self.session.request(verb, self.base + path, **options) as answer:
            text = await answer.text()
            return answer.status, await answer.json(content_type=None) if text else None, answer.headers

    async def put(self, key: str, record: Record) -> int:
        return (await self.store.txn(Txn(then=(Put(key, encode_record(record)),)), timeout_s=1)).revision


@asynccontextmanager
async def serving(door: Any = None, **settings: Any) -> AsyncIterator[Served]:
    """Serve a cluster with one node, n1."""
    clock = SystemClock()
    store = MemoryStore(clock.monotonic_s)
    replica, committer = Replica(store, clock), Committer(store, clock)
    leases = RecordLeases(RollingLease(store, clock), RollingLease(store, clock))
    access = Access("c1", replica, committer, leases, clock, RandomIds())
    parts = {
        "workloads": (Workloads(access), Rollouts(access)),
        "nodes": (Nodes(access, lambda node_id: None),),
        "tasks": (Tasks(access),),
        "events": (Events(access),),
        "names": (Names(access),),
        "cluster": (SchedulerCalls(access),),
    }
    handlers: dict[str, Callable[..., Any]] = {}

    def resolve(service: str, method: str) -> Callable[..., Any]:
        if method in handlers:
            return handlers[method]
        found = [getattr(part, method) for part in parts.get(service, ()) if hasattr(part, method)]
        if not found:
            raise Unavailable("this part is not served here")
        return found[0]

    outcomes: list[tuple[str, str]] = []
    port, door = free_port(), door or OpenDoor()
    given = CoordinatorSettings(node_id="c1", http_address=f"127.0.0.1:{port}", **settings)
    api = build_api(
        given,
        SERVICES,
        resolve,
        door,
        lambda method, outcome, took_s: outcomes.append((method, outcome)),
        lambda: replica.machine.revision,
    )
    server = HttpServer(given.http_address, {PAGE: lambda query: Answer(200, "ok\n")}, api.answer)
    async with running(replica.run(), committer.run()), aiohttp.ClientSession() as session:
        await replica.loaded.wait()
        await server.start()
        try:
            served = Served(port, session, store, replica, server, door, outcomes, handlers)
            await served.put(keys.CLUSTER, ClusterRecord(id="ours"))
            await served.put(keys.node_info("n1"), build_node("n1"))
            yield served
        finally:
            await server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stub(**fields: Any) -> Any:
    return SimpleNamespace(**fields)
