"""Agents that a test drives: a swarm of ordinary ones, and single ones that misbehave on the wire."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from typing import Any

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import INSECURE, Dialler
from cloudless.core.model import NodeInfo, Resources
from cloudless.rpc.codec import to_message
from cloudless.rpc.v1 import agent_pb2, objects_pb2
from cloudless.rpc.v1.agent_pb2_grpc import AgentServiceStub
from tests.architecture.tree import ROOT
from tests.faults.rig.swarm import News
from tests.integration.cluster import LocalCluster

# Without these the transport itself takes in megabytes that nobody has read.
NO_READ_AHEAD = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))
_END_S = 20.0
_BEAT_S = 1.0


class Swarm:
    """The test's end of a swarm, which runs in a process of its own; see `swarm`."""

    def __init__(self, count: int, cluster: LocalCluster) -> None:
        self.news: list[News] = []
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.rig.swarm", str(count), ",".join(cluster.api_addresses())],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._child.stdin
        self._child.stdin.write(json.dumps(cluster.trust.invitation("swarm-*", count)) + "\n")
        self._child.stdin.flush()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def now(self) -> News | None:
        """Return the newest news; None before there are any."""
        assert self._child.poll() is None, "the swarm has ended"
        return self.news[-1] if self.news else None

    def close(self) -> None:
        """End the swarm."""
        assert self._child.stdin
        self._child.stdin.close()
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reading.join(_END_S)

    def _read(self) -> None:
        assert self._child.stdout
        for line in self._child.stdout:
            self.news.append(News(**json.loads(line)))


class RawAgent:
    """An agent that says what it is told to and reads only when asked. Lives on one event loop."""

    def __init__(self, name: str, address: str, zone: str, dialler: Dialler = INSECURE) -> None:
        self.name = name
        capacity = Resources(cpu_millicores=8_000, memory_mb=8_000, storage_mb=8_000, bandwidth_mbps=1_000)
        self._info = NodeInfo(
            id=name,
            name=name,
            zone=zone,
            address="127.0.0.1:1",
            capacity=capacity,
            executors=("process",),
            agent_id=name,
        )
        self._address, self._dialler = address, dialler
        self._channel: Any = None
        self._call: Any = None
        self._writing = asyncio.Lock()
        self._beats = 0
        self._beating: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open a session as PRIMARY and read the welcome."""
        self._channel = self._dialler.open(self._address, options=NO_READ_AHEAD)
        self._call = AgentServiceStub(self._channel).Session()  # type: ignore[no-untyped-call]
        info = to_message(self._info, objects_pb2.NodeInfo)
        hello = agent_pb2.AgentHello(
            info=info, role=agent_pb2.SESSION_ROLE_PRIMARY, incarnation=time.time_ns() // 1_000_000
        )
        await self._call.write(agent_pb2.AgentMessage(hello=hello))
        assert (await self.read()).WhichOneof("body") == "welcome"
        self._beating = asyncio.create_task(self._beat_on())

    async def _beat_on(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(_BEAT_S)

    async def read(self) -> agent_pb2.CoordinatorMessage:
        message = await self._call.read()
        assert message is not grpc.aio.EOF, "the coordinator ended the session"
        return message  # type: ignore[no-any-return]

    async def beat(self) -> None:
        self._beats += 1
        beat = agent_pb2.Heartbeat(sequence=self._beats)
        await self._write(agent_pb2.AgentMessage(heartbeat=beat))

    async def report(self, *reports: objects_pb2.TaskObserved) -> None:
        await self._write(agent_pb2.AgentMessage(reports=agent_pb2.TaskReports(reports=reports)))

    async def _write(self, message: agent_pb2.AgentMessage) -> None:
        async with self._writing:
            await self._call.write(message)

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        if self._call is not None:
            self._call.cancel()
            await self._channel.close()
