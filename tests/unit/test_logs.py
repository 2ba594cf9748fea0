"""Output of tasks, from agents through a coordinator to a caller: all of it, and of new tasks and attempts too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cloudless.adapters.grpc.channel import INSECURE
from cloudless.adapters.grpc.server import GrpcServer
from cloudless.adapters.system import SystemClock
from cloudless.agent.config import AgentLimits
from cloudless.agent.journal import Journal
from cloudless.agent.reports import ReportBook
from cloudless.agent.server import start_server
from cloudless.agent.tasks import TaskRunner
from cloudless.coordinator.api.logs import QUEUE_LENGTH_MAX, Logs
from cloudless.core.model import RestartCondition, RestartPolicy, TaskState
from cloudless.core.orchestration import plan_workload
from cloudless.rpc.v1 import workload_pb2 as pb
from cloudless.rpc.v1.workload_pb2_grpc import WorkloadServiceStub
from cloudless.settings import AgentSettings
from cloudless.testing.builders import TestCluster, build_workload
from cloudless.testing.fake_executor import FakeExecutor, FakeMachine

DEADLINE_S = 15.0
SERVICE = pb.DESCRIPTOR.services_by_name["WorkloadService"]
NEVER = RestartPolicy(condition=RestartCondition.NEVER)


@dataclass
class Replica:
    listeners: list[Callable[[Any], None]] = field(default_factory=list)

    async def linearize(self, *, timeout_s: float) -> None:
        return

    def listen(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


@dataclass
class Access:
    cluster: TestCluster
    replica: Replica = field(default_factory=Replica)

    @property
    def view(self) -> Any:
        return self.cluster.machine


class World:
    """A workload on one agent with a fake machine; what the agent does is reported when a test says so."""

    def __init__(self, runner: TaskRunner, machine: FakeMachine, cluster: TestCluster, access: Access) -> None:
        self.runner, self.machine, self.cluster, self.access = runner, machine, cluster, access
        self.stub: Any = None

    async def run(self, *, replicas: int = 1, **spec: Any) -> list[str]:
        """Have the workload's tasks run, and return their ids."""
        if ("default", "web") in self.cluster.machine.workloads:
            self.cluster.update_workload(replicas=replicas, **spec)
        else:
            self.cluster.add_workload(build_workload(replicas=replicas, **spec))
        for _ in range(2):  # of an update the leader first takes note
            plan = plan_workload(self.cluster.machine, "default", "web", 1_000_000, 1, {})
            assert not self.cluster.commit(plan.changes)
        for task in self.cluster.machine.tasks.values():
            self.runner.assign(task.desired)
        await until(lambda: all((t.id, t.attempt) in self.machine.attempts for t in self.runner.tasks.values()))
        return sorted(self.cluster.machine.tasks)

    def report(self, task_id: str, state: TaskState, attempt: int = 1) -> None:
        self.cluster.report(task_id, state, attempt=attempt)
        for listener in self.access.replica.listeners:
            listener(None)

    def read(self, **request: Any) -> Any:
        return self.stub.ReadLogs(pb.ReadLogsRequest(namespace="default", workload="web", **request))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    machine, journal = FakeMachine(), Journal(tmp_path, threads_max=1)
    executors = {"process": FakeExecutor(machine)}
    settings = AgentSettings(node_id="n1", advertise_address="127.0.0.1:1")
    runner = TaskRunner(settings, AgentLimits(), executors, journal, ReportBook(), SystemClock())
    await runner.recover((), incarnation=1)
    agent, port = await start_server("127.0.0.1:0", "n1", runner, AgentLimits())
    cluster = TestCluster()
    cluster.add_node("n1", address=f"127.0.0.1:{port}")
    access = Access(cluster)
    coordinator = GrpcServer("127.0.0.1:0", "c1")
    coordinator.add(SERVICE, partial(getattr, Logs(access, INSECURE)))  # type: ignore[arg-type]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{await coordinator.start()}")
    made = World(runner, machine, cluster, access)
    made.stub = WorkloadServiceStub(channel)
    yield made
    await channel.close()
    await coordinator.stop(0)
    await agent.stop(0)
    runner.leave()
    journal.close()


async def parts_of(call: Any, count: int = -1) -> list[tuple[str, bytes]]:
    """Return (task, data) of the next `count` parts, -1: all."""
    found: list[tuple[str, bytes]] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) != count and (part := await call.read()) is not grpc.aio.EOF:
            found.append((part.task_id, part.data))
    return found


@pytest.mark.parametrize("follow", [False, True])
async def test_all_of_an_ended_tasks_output_comes_however_slowly_it_is_taken(world: World, follow: bool) -> None:
    lines = 3 * QUEUE_LENGTH_MAX + 7
    (task,) = await world.run(command=("print", "line", str(lines)), restart_policy=NEVER)
    world.report(task, TaskState.COMPLETED)
    call = world.read(tail_lines=-1, follow=follow)
    first = await parts_of(call, 1)
    for _ in range(100):
        await asyncio.sleep(0)
    found = first + await parts_of(call)
    assert b"".join(data for _, data in found) == b"".join(f"line {n}\n".encode() for n in range(lines))
    await until(lambda: not world.access.replica.listeners)


async def test_who_follows_is_given_the_tasks_that_come_later(world: World) -> None:
    (old,) = await world.run(command=("run",))
    world.machine.write(old, 1, b"old\n")
    world.report(old, TaskState.RUNNING)
    call = world.read(tail_lines=-1, follow=True)
    assert await parts_of(call, 1) == [(old, b"old\n")]
    ids = await world.run(command=("run",), args=("again",))
    (new,) = [task_id for task_id in ids if task_id != old]
    world.report(new, TaskState.STARTING)
    world.machine.write(new, 1, b"new\n")
    world.report(new, TaskState.RUNNING)
    assert await parts_of(call, 1) == [(new, b"new\n")]
    world.machine.write(old, 1, b"old again\n")
    assert await parts_of(call, 1) == [(old, b"old again\n")]
    call.cancel()
    await until(lambda: not world.access.replica.listeners)


async def test_a_task_whose_agent_does_not_answer_hides_nobody_elses_output(world: World) -> None:
    world.cluster.add_node("n2", address="127.0.0.1:1")
    ids = await world.run(replicas=2, command=("print", "line", "1"), restart_policy=NEVER)
    for task_id in ids:
        world.report(task_id, TaskState.COMPLETED)
    there = [id for id in ids if world.cluster.machine.tasks[id].desired.node_id == "n1"]
    found = await parts_of(world.read(tail_lines=-1))
    assert {task for task, data in found if data == b"line 0\n"} == {*there}
    assert {task for task, data in found if b"does not answer" in data} == {*ids} - {*there}
    assert {task for task, _ in found} == {*ids}


@pytest.mark.parametrize(
    "asked", [{"tail_lines": -2}, {"since_s": -1.0}, {"since_s": float("nan")}, {"since_s": 1e300}]
)
async def test_what_cannot_be_asked_for_is_refused(world: World, asked: dict[str, Any]) -> None:
    await world.run(command=("run",))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await parts_of(world.read(**asked))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
