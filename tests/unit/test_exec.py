"""Commands beside tasks, from a caller through a coordinator to an agent: real gRPC, a fake machine.

What is not shown here, processes and terminals, is in `tests/integration/test_exec.py`.
"""

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
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.adapters.system import SystemClock
from cloudless.agent.config import AgentLimits
from cloudless.agent.journal import Journal
from cloudless.agent.reports import ReportBook
from cloudless.agent.server import start_server
from cloudless.agent.tasks import TaskRunner
from cloudless.coordinator.api.access import Decided, Written
from cloudless.coordinator.api.exec import Execs
from cloudless.core import keys
from cloudless.core.model import EventRecord, TaskDesired, TaskState
from cloudless.core.plan import PutRecord
from cloudless.errors import AgentUnreachable, CloudlessError, Conflict, InvalidSpec, NotFound, Unavailable
from cloudless.rpc.v1 import exec_pb2 as pb
from cloudless.rpc.v1 import workload_pb2
from cloudless.rpc.v1.workload_pb2_grpc import TaskServiceStub
from cloudless.settings import AgentSettings
from cloudless.testing.builders import TestCluster, build_task_template
from cloudless.testing.fake_executor import FakeExecutor, FakeMachine

DEADLINE_S = 10.0
AT_ONCE_MAX = 5
SERVICE = workload_pb2.DESCRIPTOR.services_by_name["TaskService"]


class Replica:
    async def linearize(self, *, timeout_s: float) -> None:
        return


@dataclass
class Access:
    """What `coordinator.api.access` is to the handler: a state at hand, and writes, which a test may make fail."""

    cluster: TestCluster
    replica: Replica = field(default_factory=Replica)
    events: list[EventRecord] = field(default_factory=list)
    refuse: CloudlessError | None = None

    @property
    def view(self) -> Any:
        return self.cluster.machine

    def event(self, kind: str, subject: str, message: str) -> PutRecord:
        record = EventRecord(id="1", at_ms=1, kind=kind, subject=subject, message=message)
        return PutRecord("/cloudless/v1/events/1", record)

    async def write(
        self, options: Any, content: bytes, decide: Callable[[Any], Decided], *_: Any, **__: Any
    ) -> Written:
        if self.refuse:
            raise self.refuse
        change = decide(self.view).change
        assert change is not None
        self.events += [put.record for put in change.puts if isinstance(put.record, EventRecord)]
        return Written({}, 1)


@dataclass
class World:
    machine: FakeMachine
    access: Access
    runner: TaskRunner
    agent: GrpcServer
    channel: grpc.aio.Channel

    def call(self, *requests: pb.ExecTaskRequest) -> Any:
        """Open a call that says `requests` and no more."""

        async def say() -> AsyncIterator[pb.ExecTaskRequest]:
            for request in requests:
                yield request

        return TaskServiceStub(self.channel).ExecTask(say())

    def open(self) -> Any:
        return TaskServiceStub(self.channel).ExecTask()


def start(*command: str, task_id: str = "web-0", **fields: Any) -> pb.ExecTaskRequest:
    return pb.ExecTaskRequest(start=pb.ExecStart(task_id=task_id, command=command, **fields))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def heard(call: Any) -> tuple[int | None, bytes, bytes]:
    """Return exit code and both streams of a call, or raise what it failed with, typed."""
    code, said = None, {"stdout": b"", "stderr": b""}
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for answer in call:
                match answer.WhichOneof("body"):
                    case "output":
                        said[answer.output.stream] += answer.output.data
                    case "exit_code":
                        code = answer.exit_code
                    case "started":
                        assert (answer.started.task_id, answer.started.node_id) == ("web-0", "n1")
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    return code, said["stdout"], said["stderr"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    machine, journal = FakeMachine(), Journal(tmp_path, threads_max=1)
    settings = AgentSettings(node_id="n1", advertise_address="127.0.0.1:1")
    executor = FakeExecutor(machine)
    runner = TaskRunner(settings, AgentLimits(), {"process": executor}, journal, ReportBook(), SystemClock())
    await runner.recover((), incarnation=1)
    agent, port = await start_server("127.0.0.1:0", "n1", runner, AgentLimits())
    cluster = TestCluster()
    cluster.add_node("n1", address=f"127.0.0.1:{port}")
    access = Access(cluster)
    execs = Execs(access, INSECURE, at_once_max=AT_ONCE_MAX)  # type: ignore[arg-type]
    coordinator = GrpcServer("127.0.0.1:0", "c1")
    coordinator.add(SERVICE, partial(getattr, execs))
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{await coordinator.start()}")
    made = World(machine, access, runner, agent, channel)
    add_task(made, "web-0")
    await until(lambda: runner.tasks["web-0"].state is TaskState.RUNNING)
    yield made
    await channel.close()
    await coordinator.stop(0)
    await agent.stop(0)
    runner.leave()
    journal.close()


def add_task(world: World, task_id: str) -> None:
    desired = TaskDesired(
        id=task_id, namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
        spec=build_task_template(command=("run",)),
    )  # fmt: skip
    world.access.cluster.put(keys.task_desired(task_id), desired)
    world.runner.assign(desired)


async def test_output_and_exit_code_come_back_and_who_did_it_is_told(world: World) -> None:
    assert await heard(world.call(start("say", "secret"))) == (0, b"secret\n", b"secret\n")
    assert await heard(world.call(start("/bin/exit", "7"))) == (127, b"", b"cannot run /bin/exit: command not found\n")
    assert await heard(world.call(start("exit", "7"))) == (7, b"", b"")
    told = [(event.kind, event.subject, event.message) for event in world.access.events]
    assert told[0] == ("TaskExec", "task/web-0", "runs 'say' beside it on n1")
    assert len(told) == 3
    assert "secret" not in str(told)


async def test_input_goes_in_piece_by_piece_and_its_end_too(world: World) -> None:
    call = world.open()
    await call.write(start("echo", stdin=True))
    for word in (b"one", b"two"):
        await call.write(pb.ExecTaskRequest(input=word))
    await call.write(pb.ExecTaskRequest(end_of_input=True))
    assert await heard(call) == (0, b"onetwo", b"")
    ended = world.call(start("echo", stdin=True), pb.ExecTaskRequest(input=b"x"))
    assert await heard(ended) == (0, b"x", b""), "who says no more has ended the input"


async def test_a_caller_that_goes_away_takes_the_command_with_it(world: World) -> None:
    call = world.open()
    await call.write(start("hang"))
    await until(lambda: world.machine.executions == 1)
    call.cancel()
    await until(lambda: world.machine.executions == 0)


async def test_an_agent_that_goes_away_is_told(world: World) -> None:
    call = world.open()
    await call.write(start("hang"))
    await until(lambda: world.machine.executions == 1)
    await world.agent.stop(0)
    with pytest.raises(Unavailable):
        await heard(call)
    await until(lambda: world.machine.executions == 0)
    with pytest.raises(AgentUnreachable):
        await heard(world.call(start("exit", "0")))


@pytest.mark.parametrize(
    ("requests", "error", "words"),
    [
        ((), InvalidSpec, "start"),
        ((pb.ExecTaskRequest(input=b"x"),), InvalidSpec, "start"),
        ((pb.ExecTaskRequest(),), InvalidSpec, "start"),
        ((start(),), InvalidSpec, "start.command"),
        ((start(""),), InvalidSpec, "start.command"),
        ((start("a\0b"),), InvalidSpec, "NUL"),
        ((start("x" * 70_000),), InvalidSpec, "at most"),
        ((start(*["x"] * 2_000),), InvalidSpec, "at most"),
        ((start("exit", "0", task_id=""),), InvalidSpec, "start.task_id"),
        ((start("exit", "0", task_id="web-9"),), NotFound, "web-9"),
        ((start("hang"), start("hang")), InvalidSpec, "once"),
        ((start("hang"), pb.ExecTaskRequest(input=b"x")), InvalidSpec, "not asked for"),
        ((start("hang", stdin=True), pb.ExecTaskRequest(input=b"x" * 70_000)), InvalidSpec, "at most"),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    world: World, requests: tuple[pb.ExecTaskRequest, ...], error: type[CloudlessError], words: str
) -> None:
    with pytest.raises(error) as caught:
        await heard(world.call(*requests))
    problems = getattr(caught.value, "problems", ())
    assert words in str(caught.value) + "".join(f"{problem}" for problem in problems)
    await until(lambda: world.machine.executions == 0)


async def test_a_task_that_has_ended_has_nothing_beside_it(world: World) -> None:
    world.machine.end("web-0", 1, exit_code=0)
    await until(lambda: world.runner.tasks["web-0"].state is not TaskState.RUNNING)
    with pytest.raises(NotFound):
        await heard(world.call(start("exit", "0")))
    world.access.cluster.report("web-0", TaskState.FAILED)
    with pytest.raises(Conflict, match="has ended"):
        await heard(world.call(start("exit", "0")))


async def test_what_cannot_be_written_down_is_not_done(world: World) -> None:
    world.access.refuse = Unavailable("no quorum")
    with pytest.raises(Unavailable, match="no quorum"):
        await heard(world.call(start("say", "x")))
    assert world.machine.executions == 0


async def test_a_coordinator_runs_so_many_at_once_and_no_more(world: World) -> None:
    calls = []
    for _ in range(AT_ONCE_MAX):
        calls.append(world.open())
        await calls[-1].write(start("hang"))
    await until(lambda: world.machine.executions == AT_ONCE_MAX)
    with pytest.raises(Unavailable, match="ask another"):
        await heard(world.call(start("exit", "0")))
    for call in calls:
        call.cancel()
    await until(lambda: world.machine.executions == 0)
    assert await heard(world.call(start("exit", "0"))) == (0, b"", b"")
