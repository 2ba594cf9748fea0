"""An agent's production parts, put together as `agent.runtime` does, on a simulated host.

`Host` is what outlives the agent: its disk and its tasks' processes. `AgentLife` is one life of the agent's process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from cloudless.agent.assignments import Cursor, Gate, TaskFollower
from cloudless.agent.config import AgentLimits, build_node_info
from cloudless.agent.dialling import StreamBroken
from cloudless.agent.journal import Head, Journal, _from_entry, _to_entry
from cloudless.agent.links import Links
from cloudless.agent.reports import ReportBook
from cloudless.agent.runtime import begin_life
from cloudless.agent.session import SessionParts
from cloudless.agent.tasks import TaskRunner
from cloudless.core.localtask import LocalTask
from cloudless.core.model import Resources
from cloudless.ports import StartRequest
from cloudless.rpc.v1 import agent_pb2
from cloudless.settings import AgentSettings
from cloudless.testing.fake_executor import FakeExecutor, FakeMachine
from cloudless.testing.sim.clock import SimClock
from cloudless.testing.sim.coordinator import Surroundings
from cloudless.testing.sim.happenings import Began, Finished, Followed, RefusedAssignments, ReportAcknowledged
from cloudless.testing.sim.loop import Process
from cloudless.testing.sim.streams import Connection, Ended

DISK_MAX_S = 0.004
START_MAX_S = 0.05


@dataclass(slots=True)
class Disk:
    """What an agent wrote and a crash leaves. `slow_max_s`: how long a write may take."""

    head: Head | None = None
    entries: dict[str, bytes] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    slow_max_s: float = DISK_MAX_S


@dataclass(slots=True)
class Host:
    """A node's machine. `before_write`, `after_write` are asked at each write: False if the agent dies there."""

    node_id: str
    capacity: Resources
    clock: SimClock
    machine: FakeMachine
    zone: str = ""
    disk: Disk = field(default_factory=Disk)
    before_write: Callable[[], bool] = lambda: True
    after_write: Callable[[], bool] = lambda: True


class MemoryJournal(Journal):
    """A journal on a simulated disk; what is written is what the real one would write."""

    def __init__(self, host: Host, random: Random) -> None:
        self._host, self._random = host, random

    async def load(self) -> tuple[Head, tuple[LocalTask, ...]]:
        disk = self._host.disk
        tasks = tuple(
            _from_entry(name, agent_pb2.JournaledTask.FromString(entry)) for name, entry in sorted(disk.entries.items())
        )
        return disk.head or Head(), tasks

    async def save(self, task: LocalTask) -> None:
        entry = _to_entry(task).SerializeToString()
        await self._wait()
        self._host.disk.entries[task.id] = entry
        self._host.disk.attempts[task.id] = task.attempt
        await self._written()

    async def delete(self, task_id: str) -> None:
        await self._wait()
        self._host.disk.entries.pop(task_id, None)
        self._host.disk.attempts.pop(task_id, None)
        await self._written()

    async def save_head(self, head: Head) -> None:
        await self._wait()
        self._host.disk.head = head
        await self._written()

    def close(self) -> None:
        return

    async def _wait(self) -> None:
        await asyncio.sleep(self._random.uniform(0, self._host.disk.slow_max_s))
        if not self._host.before_write():
            await asyncio.sleep(0)  # dead: it does not come back

    async def _written(self) -> None:
        if not self._host.after_write():
            await asyncio.sleep(0)


class _Executor(FakeExecutor):
    """Starts take time, and the world is told of them."""

    def __init__(self, host: Host, random: Random, tell: Callable[[Any], None]) -> None:
        super().__init__(host.machine)
        self._host, self._random, self._tell = host, random, tell

    async def start(self, request: StartRequest) -> Any:
        await asyncio.sleep(self._random.uniform(0, START_MAX_S))
        return await super().start(request)

    def _begin(self, request: StartRequest, words: tuple[str, ...]) -> None:
        journaled = self._host.disk.attempts.get(request.task_id, -1)
        self._tell(Began(self._host.node_id, request.task_id, request.attempt, journaled))
        super()._begin(request, words)


class SimMachine(FakeMachine):
    """Tells the world of every end."""

    def __init__(self, node_id: str, clock: SimClock, tell: Callable[[Any], None]) -> None:
        super().__init__(clock)
        self._node_id, self._tell = node_id, tell

    def end(self, task_id: str, attempt: int, *, exit_code: int = 0, signal_number: int = 0, message: str = "") -> None:
        if self.attempts[task_id, attempt].instance.running:
            self._tell(Finished(self._node_id, task_id, attempt))
        super().end(task_id, attempt, exit_code=exit_code, signal_number=signal_number, message=message)

    def running(self) -> list[tuple[str, int]]:
        return sorted(key for key, attempt in self.attempts.items() if attempt.instance.running)


class _ObservedGate(Gate):
    """Tells the world what was followed."""

    tell: Callable[[Any], None]

    async def follow(self, message: agent_pb2.Assignments, cursor: Cursor, runner: TaskFollower) -> None:
        await super().follow(message, cursor, runner)
        self.tell(Followed(self._node_id, message.term, message.revision))


class _ObservedBook(ReportBook):
    """Tells the world what was acknowledged."""

    tell: Callable[[Any], None]
    node_id: str

    def acknowledge(self, task_id: str, sequence: int) -> None:
        self.tell(ReportAcknowledged(self.node_id, task_id, sequence))
        super().acknowledge(task_id, sequence)


class AgentLife:
    """One life of an agent's process."""

    def __init__(self, host: Host, life: int, world: Surroundings, seed: str) -> None:
        self.host, self.life, self._world, self._seed = host, life, world, seed
        self.id = host.node_id
        self.process = Process(host.node_id, world.loop)
        self.runner: TaskRunner | None = None
        self.links: Links | None = None
        self.papers = world.find_agent_papers(self)
        self.error: BaseException | None = None

    def start(self) -> None:
        self.process.spawn(self._run(), self.id)

    async def _run(self) -> None:
        try:
            await self._live()
        except Exception as error:
            self.error = error

    async def _live(self) -> None:
        host, world, random = self.host, self._world, Random(self._seed)
        limits = AgentLimits()
        settings = AgentSettings(
            node_id=host.node_id,
            coordinators=tuple(world.address_of(id) for id in sorted(world.peers)),
            data_dir=Path("/nowhere"),
            capacity=host.capacity,
            zone=host.zone,
            advertise_address=f"{host.node_id}:1",
        )
        if self.papers is not None:
            await self.papers.obtain()
        journal = MemoryJournal(host, random)
        executor = _Executor(host, random, world.tell)
        reports = _ObservedBook()
        reports.tell, reports.node_id = world.tell, host.node_id
        self.runner = runner = TaskRunner(settings, limits, {executor.name: executor}, journal, reports, host.clock)
        head, tasks = await journal.load()
        head = await begin_life(head, journal, host.clock.wall_ms(), f"{host.node_id}-{random.getrandbits(32):08x}")
        await runner.recover(tasks, incarnation=head.incarnation)
        gate = _ObservedGate(head, journal, host.node_id)
        gate.tell = world.tell
        info = replace(build_node_info(settings, (executor.name,), head.agent_id, {}), boot_id="boot-1")
        parts = SessionParts(
            info=lambda: info,
            limits=limits,
            clock=host.clock,
            random=random,
            dial=self._dial,
            gate=gate,
            runner=runner,
            reports=reports,
            on_round_trip=lambda seconds: None,
            on_refused=lambda kind: world.tell(RefusedAssignments(host.node_id, kind)),
            on_resent=lambda count: None,
        )
        self.links = links = Links(world.build_seeds(), parts)
        async with asyncio.TaskGroup() as group:
            group.create_task(runner.run())
            group.create_task(links.run())
            if self.papers is not None:
                group.create_task(self.papers.run(links.addresses))

    def _dial(self, address: str) -> _SessionStream:
        return _SessionStream(self._world.connect(self.process, address, "sessions"))


class _SessionStream:
    """A SessionStream on a simulated connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, message: Any) -> None:
        try:
            await self._connection.write(message)
        except Ended as error:
            raise StreamBroken(str(error)) from error

    async def read(self) -> Any:
        try:
            return await self._connection.read()
        except Ended as error:
            raise StreamBroken(str(error)) from error

    def cancel(self) -> None:
        self._connection.cancel()

    async def close(self) -> None:
        await self._connection.close()

    async def knock(self) -> bool:
        return await self._connection.knock()
