"""An executor that comes after its agent has begun: its tasks wait for it, are found again, and nothing runs twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cloudless.adapters.system import SystemClock
from cloudless.agent.config import AgentLimits
from cloudless.agent.journal import Journal
from cloudless.agent.reports import ReportBook
from cloudless.agent.tasks import TaskRunner
from cloudless.core.localtask import LocalTask
from cloudless.core.model import Desired, ExecutorKind, TaskDesired, TaskObserved, TaskSpec, TaskState
from cloudless.settings import AgentSettings
from cloudless.testing.fake_executor import FakeExecutor, FakeMachine

DEADLINE_S = 10.0


class DockerLike(FakeExecutor):
    name = "docker"


def build_task(task_id: str, executor: ExecutorKind = ExecutorKind.DOCKER) -> TaskDesired:
    spec = TaskSpec(executor=executor, command=("run",), image="web:1")
    return TaskDesired(
        id=task_id, namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
        spec=spec, desired=Desired.RUNNING,
    )  # fmt: skip


class World:
    """An agent's runner whose docker executor comes late; `machine` is what outlives its agents."""

    def __init__(self, root: Path, machine: FakeMachine) -> None:
        self.machine, self.docker, self.reports = machine, DockerLike(machine), ReportBook()
        self.journal = Journal(root, threads_max=2)
        settings = AgentSettings(node_id="n1", advertise_address="127.0.0.1:1")
        process = FakeExecutor()
        self.runner = TaskRunner(
            settings, AgentLimits(), {process.name: process}, self.journal, self.reports, SystemClock()
        )

    def told(self, task_id: str) -> TaskObserved:
        return next(report for report in self.reports.all() if report.task_id == task_id)

    def state(self, task_id: str) -> TaskState:
        return self.runner.tasks[task_id].state


@asynccontextmanager
async def living(root: Path, machine: FakeMachine, *tasks: LocalTask) -> AsyncIterator[World]:
    world = World(root, machine)
    await world.runner.recover(tasks, incarnation=1, awaited={"docker"})
    running = asyncio.create_task(world.runner.run())
    yield world
    world.runner.leave()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    world.journal.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def one_life(root: Path, machine: FakeMachine, *task_ids: str) -> list[LocalTask]:
    """Let an agent start the tasks and crash; return what is in its journal."""
    async with living(root, machine) as world:
        await world.runner.add_executor(world.docker)
        for task_id in task_ids:
            world.runner.assign(build_task(task_id))
        await until(lambda: all(world.state(task_id) is TaskState.RUNNING for task_id in task_ids))
        return list(world.runner.tasks.values())


async def test_tasks_of_an_executor_that_is_late_are_unknown_and_then_found_again(tmp_path: Path) -> None:
    machine = FakeMachine()
    tasks = await one_life(tmp_path, machine, "t1", "t2")
    machine.end("t2", 1, exit_code=3)
    async with living(tmp_path, machine, *tasks) as world:
        await until(lambda: "state unknown" in world.told("t1").message)
        assert (world.state("t1"), world.state("t2"), machine.starts) == (TaskState.RUNNING, TaskState.RUNNING, 2)
        await world.runner.add_executor(world.docker)
        await until(lambda: world.told("t1").message == "" and world.state("t2") is not TaskState.RUNNING)
        assert world.state("t1") is TaskState.RUNNING
        assert world.told("t1").attempt == 1
        await until(lambda: world.told("t2").attempt == 2 and world.state("t2") is TaskState.RUNNING)
        assert machine.starts == 3


async def test_a_task_that_came_first_waits_for_its_executor_without_counting_restarts(tmp_path: Path) -> None:
    machine = FakeMachine()
    async with living(tmp_path, machine) as world:
        world.runner.assign(build_task("t1"))
        world.runner.assign(build_task("p1", ExecutorKind.PROCESS))
        await until(lambda: world.state("t1") is TaskState.BACKOFF and world.state("p1") is TaskState.RUNNING)
        assert "no docker executor yet" in world.told("t1").message
        assert world.runner.tasks["t1"].retries == 0
        await world.runner.add_executor(world.docker)
        await until(lambda: world.state("t1") is TaskState.RUNNING)


async def test_strays_of_a_late_executor_are_ended_once_the_complete_list_is_known(tmp_path: Path) -> None:
    machine = FakeMachine()
    await one_life(tmp_path / "lost", machine, "listed", "unreadable", "stray")
    async with living(tmp_path / "new", machine) as world:
        world.runner.assign(build_task("p1", ExecutorKind.PROCESS))
        world.runner.unlist_others({"p1", "unreadable"})
        await world.runner.add_executor(world.docker)
        await until(lambda: ("stray", 1) not in machine.attempts and ("listed", 1) not in machine.attempts)
        assert machine.attempts["unreadable", 1].instance.running


async def test_a_task_whose_journal_was_lost_goes_on_with_the_container_of_a_late_executor(tmp_path: Path) -> None:
    machine = FakeMachine()
    await one_life(tmp_path / "lost", machine, "t1")
    async with living(tmp_path / "new", machine) as world:
        await world.runner.add_executor(world.docker)
        world.runner.assign(build_task("t1"))
        await until(lambda: world.runner.tasks["t1"].state is TaskState.RUNNING)
        assert machine.starts == 1


async def test_a_removed_task_is_not_forgotten_before_its_executor_could_be_asked(tmp_path: Path) -> None:
    machine = FakeMachine()
    tasks = await one_life(tmp_path, machine, "t1")
    async with living(tmp_path, machine, *tasks) as world:
        world.runner.unlist("t1")
        await until(lambda: world.state("t1") is TaskState.STOPPING)
        assert machine.attempts["t1", 1].instance.running
        await world.runner.add_executor(world.docker)
        await until(lambda: "t1" not in world.runner.tasks)
        assert machine.attempts == {}
