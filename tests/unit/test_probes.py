"""Probes of an agent's tasks, tried on a fake machine and real sockets: nobody waits for another, nothing is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.system import SystemClock
from cloudless.agent.config import AgentLimits
from cloudless.agent.journal import Journal
from cloudless.agent.probes import HELD_UP_S
from cloudless.agent.reports import ReportBook
from cloudless.agent.tasks import TaskRunner
from cloudless.core.localtask import LocalTask
from cloudless.core.model import (
    Port,
    Probe,
    ProbeKind,
    RestartCondition,
    RestartPolicy,
    TaskDesired,
    TaskSpec,
    TaskState,
)
from cloudless.errors import ExecutorAway
from cloudless.ports import ExecRequest
from cloudless.settings import AgentSettings
from cloudless.testing.fake_executor import FakeExecutor, FakeMachine

DEADLINE_S = 15.0
RUNNING = TaskState.RUNNING


def exec_probe(*command: str, **fields: Any) -> Probe:
    return replace(Probe(kind=ProbeKind.EXEC, command=command, period_s=0.1, timeout_s=0.1), **fields)


def tcp_probe(**fields: Any) -> Probe:
    return replace(Probe(kind=ProbeKind.TCP, port="http", period_s=0.05, failure_threshold=1), **fields)


def build_task(task_id: str = "t1", **spec: Any) -> TaskDesired:
    policy = RestartPolicy(condition=RestartCondition.ALWAYS, backoff_s=0.1)
    return TaskDesired(
        id=task_id, namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
        spec=TaskSpec(**{"command": ("run",), "restart_policy": policy, "stop_grace_s": 0.2, **spec}),
    )  # fmt: skip


class Executor(FakeExecutor):
    """One that may be away."""

    away = False

    def exec(self, request: ExecRequest) -> Any:
        if self.away:
            raise ExecutorAway("the engine does not answer")
        return super().exec(request)


class World:
    def __init__(self, root: Path, machine: FakeMachine) -> None:
        self.machine, self.reports, self.executor = machine, ReportBook(), Executor(machine)
        self.journal = Journal(root, threads_max=2)
        settings = AgentSettings(node_id="n1", advertise_address="127.0.0.1:1")
        executors = {self.executor.name: self.executor}
        self.runner = TaskRunner(settings, AgentLimits(), executors, self.journal, self.reports, SystemClock())

    def task(self, task_id: str = "t1") -> LocalTask:
        return self.runner.tasks[task_id]

    def runs(self, task_id: str = "t1") -> bool:
        return self.task(task_id).state is RUNNING


@asynccontextmanager
async def living(root: Path, machine: FakeMachine, *tasks: LocalTask) -> AsyncIterator[World]:
    world = World(root, machine)
    await world.runner.recover(tasks, incarnation=1)
    running = asyncio.create_task(world.runner.run())
    try:
        yield world
        assert not running.done(), "something broke in the background"
    finally:
        world.runner.leave()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        world.journal.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def listen(port: int) -> asyncio.Server:
    return await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)


async def test_a_task_is_ready_while_its_port_answers(tmp_path: Path) -> None:
    async with living(tmp_path, FakeMachine()) as world:
        world.runner.assign(build_task(ports=(Port(name="http"),), readiness_probe=tcp_probe()))
        await until(lambda: "not ready" in world.task().message)
        assert (
            world.task().message == f"not ready: no connection to port {world.task().ports['http']}: connection refused"
        )
        server = await listen(world.task().ports["http"])
        await until(lambda: world.task().ready)
        assert world.task().message == ""
        server.close()
        await until(lambda: not world.task().ready)
        assert (world.task().attempt, world.runs()) == (1, True), "readiness ends nothing"


async def test_a_liveness_failure_starts_the_task_anew_after_its_back_off_and_says_why(tmp_path: Path) -> None:
    async with living(tmp_path, FakeMachine()) as world:
        probe = exec_probe("say", "broken", failure_threshold=2)
        world.runner.assign(build_task(liveness_probe=replace(probe, command=("exit", "9"))))
        await until(lambda: world.task().state is TaskState.BACKOFF)
        why = "the liveness probe failed 2 times in a row: exit ended with 9"
        assert world.task().message == f"{why}; restart 1 in 0.1 s"
        await until(lambda: world.task().attempt == 2 and world.runs())
        await until(lambda: world.task().attempt == 3 and world.runs())
        assert world.task().probe_failures == 2
        assert world.machine.starts == 3


async def test_a_probe_that_hangs_fails_at_its_timeout_and_leaves_nothing(tmp_path: Path) -> None:
    async with living(tmp_path, FakeMachine()) as world:
        world.runner.assign(build_task(readiness_probe=exec_probe("hang", timeout_s=0.2, failure_threshold=1)))
        await until(lambda: world.task().message == "not ready: hang did not end within 0.2 s")
        await until(lambda: world.machine.executions == 0)
    await asyncio.sleep(0)
    assert world.machine.executions == 0


async def test_two_hundred_tasks_are_probed_while_one_of_each_kind_hangs(tmp_path: Path) -> None:
    async with living(tmp_path, FakeMachine()) as world:
        for number in range(10):
            world.runner.assign(build_task(f"slow{number}", readiness_probe=exec_probe("hang", timeout_s=600.0)))
        await until(lambda: world.machine.executions == 10)
        for number in range(200):
            world.runner.assign(build_task(f"t{number}", readiness_probe=exec_probe("exit", "0")))
        await until(lambda: sum(world.task(f"t{n}").state is RUNNING for n in range(200)) == 200)
        began = time.monotonic()
        await until(lambda: all(world.task(f"t{n}").ready for n in range(200)))
        assert time.monotonic() - began < 5
        assert not any(world.task(f"slow{n}").ready for n in range(10))
    await until(lambda: world.machine.executions == 0)


async def test_an_executor_that_is_away_says_nothing_of_its_tasks(tmp_path: Path) -> None:
    async with living(tmp_path, FakeMachine()) as world:
        probe = exec_probe("exit", "0", period_s=0.02, failure_threshold=1)
        world.runner.assign(build_task(readiness_probe=probe, liveness_probe=probe))
        await until(lambda: world.task().ready)
        world.executor.away = True
        before = world.task()
        for _ in range(50):
            await asyncio.sleep(0.005)
        assert world.task() == before


@pytest.mark.parametrize("passes", [True, False])
async def test_a_task_found_again_keeps_its_readiness_until_its_probe_has_settled(tmp_path: Path, passes: bool) -> None:
    machine = FakeMachine()
    probe = exec_probe("exit", "0", failure_threshold=3)
    async with living(tmp_path, machine) as world:
        world.runner.assign(build_task(readiness_probe=probe))
        await until(lambda: world.task().ready)
        (journaled,) = world.runner.tasks.values()
    if not passes:
        failing = replace(journaled.desired.spec, readiness_probe=replace(probe, command=("exit", "1")))
        journaled = replace(journaled, desired=replace(journaled.desired, spec=failing))
    async with living(tmp_path, machine, journaled) as world:
        assert world.task().ready
        await until(lambda: world.task().ready is passes)
        if passes:
            reports = world.task().sequence
            await until(lambda: world.task().begun_s > 0)
            for _ in range(50):
                await asyncio.sleep(0.005)
            assert world.task().sequence <= reports + 1, "nothing to report but that it was found"
        assert (world.task().attempt, machine.starts) == (1, 1)


async def test_what_is_stopped_is_asked_no_more(tmp_path: Path) -> None:
    async with living(tmp_path, FakeMachine()) as world:
        world.runner.assign(build_task(command=("stubborn",), readiness_probe=exec_probe("hang", timeout_s=60.0)))
        await until(lambda: world.machine.executions == 1)
        world.runner.unlist("t1")
        await until(lambda: world.machine.executions == 0)
        await until(lambda: "t1" not in world.runner.tasks)


async def test_an_agent_that_was_held_up_does_not_blame_the_task(tmp_path: Path) -> None:
    async with living(tmp_path, FakeMachine()) as world:
        probe = exec_probe("hang", timeout_s=0.3, period_s=60.0, failure_threshold=1)
        world.runner.assign(build_task(liveness_probe=probe))
        await until(lambda: world.machine.executions == 1)
        time.sleep(HELD_UP_S + 1.0)  # the whole loop, as when the process is stopped
        await until(lambda: world.machine.executions == 0)
        await asyncio.sleep(0.05)
        assert (world.runs(), world.task().probe_failures) == (True, 0)
