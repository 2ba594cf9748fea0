"""Tasks of an agent that reaches no coordinator: they go on for as long as their manifest says, over restarts too."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cloudless.adapters.subprocess import ProcessExecutor
from cloudless.agent.journal import Journal
from tests.integration.agent_process import AgentProcess, until
from tests.integration.scripted_coordinator import ScriptedCoordinator, build_task

pytestmark = pytest.mark.integration


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent")
    yield agent
    if agent.process and agent.process.poll() is None:
        await agent.end(signal.SIGKILL)
    executor = ProcessExecutor(agent.data_dir / "tasks")
    for instance in await executor.adopt():
        if instance.running:
            await executor.stop(instance.task_id, instance.attempt, grace_s=0)
            await executor.wait(instance.task_id, instance.attempt)
    executor.close()


@pytest.fixture
async def coordinator() -> AsyncIterator[ScriptedCoordinator]:
    made = ScriptedCoordinator("c1")
    await made.start()
    yield made
    await made.stop()


async def run_three(agent: AgentProcess, coordinator: ScriptedCoordinator) -> dict[str, int]:
    """Run a task with a limit of a second, one with an hour, one without; return their pids."""
    limits = {"second": 1.5, "hour": 3600.0, "never": 0.0}
    tasks = [build_task(name, "sleep", "600", stop_after_s=limit_s) for name, limit_s in limits.items()]
    coordinator.on_primary = lambda stream: stream.assign(*tasks, revision=10)
    agent.start(coordinator.address)
    await until(lambda: all(coordinator.state(name) == "RUNNING" for name in limits))
    return {name: report.pid for name in limits if (report := coordinator.newest(name))}


async def one_more_beat(coordinator: ScriptedCoordinator) -> None:
    beats = coordinator.stream.heartbeats
    await until(lambda: coordinator.stream.heartbeats > beats)


async def test_a_task_is_stopped_when_its_time_without_a_coordinator_is_over_and_the_others_go_on(
    agent: AgentProcess, coordinator: ScriptedCoordinator
) -> None:
    pids = await run_three(agent, coordinator)
    began_s = time.monotonic()
    await coordinator.stop()
    await until(lambda: not psutil.pid_exists(pids["second"]))
    took_s = time.monotonic() - began_s
    print(f"stopped {took_s:.2f} s after the coordinator was, stopAfter 1.5 s")
    assert 1.0 <= took_s < 4.0
    assert psutil.pid_exists(pids["hour"])
    assert psutil.pid_exists(pids["never"])
    await coordinator.start(coordinator.address)
    await until(lambda: coordinator.state("second") == "STOPPED")
    report = coordinator.newest("second")
    assert report is not None
    assert "no coordinator was reached for" in report.message
    assert "stopAfter is 1.5 s" in report.message
    assert [coordinator.state(name) for name in ("hour", "never")] == ["RUNNING", "RUNNING"]
    assert report.attempt == 1, "it is not started again, though it is still assigned"


async def test_a_restarted_agent_goes_on_counting_from_the_last_word(
    agent: AgentProcess, coordinator: ScriptedCoordinator
) -> None:
    pids = await run_three(agent, coordinator)
    await until(lambda: (agent.data_dir / "head").exists())
    for _ in range(3):
        # Long enough for the note, and a word after it.
        await one_more_beat(coordinator)
    await coordinator.stop()
    await agent.end(signal.SIGKILL)
    began_s = time.monotonic()
    agent.start(coordinator.address)
    await until(lambda: not psutil.pid_exists(pids["second"]))
    assert time.monotonic() - began_s < 6.0
    assert psutil.pid_exists(pids["hour"])
    assert psutil.pid_exists(pids["never"])


async def test_a_short_silence_changes_nothing(agent: AgentProcess, coordinator: ScriptedCoordinator) -> None:
    pids = await run_three(agent, coordinator)
    await coordinator.stop()
    await coordinator.start(coordinator.address)
    await until(lambda: len(coordinator.streams) > 1 and coordinator.stream.heartbeats > 3)
    for _ in range(20):
        await asyncio.sleep(0.1)
    assert all(psutil.pid_exists(pid) for pid in pids.values())


async def test_what_a_reboot_ended_is_not_started_before_a_coordinator_was_reached(
    agent: AgentProcess, coordinator: ScriptedCoordinator
) -> None:
    """A reboot is told by the boot's id alone: a note of another boot is put in the agent's head."""
    pids = await run_three(agent, coordinator)
    await coordinator.stop()
    await agent.end(signal.SIGKILL)
    journal = Journal(agent.data_dir, threads_max=1)
    head, _ = await journal.load()
    await journal.save_head(replace(head, last_word=replace(head.last_word, boot_id="another")))
    journal.close()
    agent.start(coordinator.address)
    await until(lambda: not psutil.pid_exists(pids["second"]) and not psutil.pid_exists(pids["hour"]))
    assert psutil.pid_exists(pids["never"])
    for name in ("second", "hour"):
        assert agent.logged(f"task {name}: stopped: nobody can say for how long") == 1
