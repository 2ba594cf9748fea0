"""A real agent process with a Docker engine of the tests' own, which is late, goes away, hangs, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cloudless.adapters.subprocess import ProcessExecutor
from cloudless.core.model import ExecutorKind, Probe, ProbeKind, RestartCondition, RestartPolicy, TaskDesired
from cloudless.rpc.v1.objects_pb2 import TaskObserved, TaskState
from tests.docker_engine import IMAGE, DockerDaemon
from tests.integration.agent_process import AgentProcess, Pair, assign_all, both_open, primary_of, until
from tests.integration.scripted_coordinator import ScriptedCoordinator, build_task

pytestmark = [pytest.mark.integration, pytest.mark.docker]

SLEEP = ("sh", "-c", "trap 'exit 143' TERM; sleep 600 & wait")
ALWAYS = RestartPolicy(condition=RestartCondition.ALWAYS, backoff_s=0.2)
DEADLINE_S = 40.0


def build_container(task_id: str, *command: str, **fields: Any) -> TaskDesired:
    fields = {"restart_policy": ALWAYS, **fields}
    return build_task(task_id, *(command or SLEEP), executor=ExecutorKind.DOCKER, image=IMAGE, **fields)


@pytest.fixture
async def agent(tmp_path: Path, docker_daemon: DockerDaemon) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent")
    yield agent
    if agent.process and agent.process.poll() is None:
        await agent.end(signal.SIGKILL)
    processes = ProcessExecutor(agent.data_dir / "tasks")
    for instance in await processes.adopt():
        if instance.running:
            await processes.stop(instance.task_id, instance.attempt, grace_s=0)
            await processes.wait(instance.task_id, instance.attempt)
    processes.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    first, second = ScriptedCoordinator("c1"), ScriptedCoordinator("c2")
    await first.start()
    await second.start()
    first.peers = second.peers = [first.address, second.address]
    yield first, second
    await first.stop()
    await second.stop()


def start(agent: AgentProcess, pair: Pair, daemon: DockerDaemon) -> None:
    agent.start(pair[0].address, pair[1].address, CLOUDLESS_DOCKER_HOST=daemon.host, CLOUDLESS_DOCKER_ENABLED="auto")


def executors(pair: Pair) -> list[str]:
    """Return what the agent last said that it can run."""
    return list(primary_of(pair).stream.infos[-1].executors)


def newest(pair: Pair, task_id: str) -> TaskObserved:
    """Return the newest report about a task, whoever was told; an empty one before there is any."""
    found = [report for one in pair if (report := one.newest(task_id))]
    return max(found, key=lambda report: report.sequence, default=TaskObserved())


def state(pair: Pair, task_id: str) -> str:
    return TaskState.Name(newest(pair, task_id).state).removeprefix("TASK_STATE_")


def told(pair: Pair, task_id: str) -> str:
    """Return the newest report's message."""
    return newest(pair, task_id).message


def running(daemon: DockerDaemon) -> list[str]:
    rows = [row for row in daemon.containers() if row["State"] == "running"]
    return sorted(row["Names"][0].removeprefix("/") for row in rows)


async def test_an_engine_that_comes_late_is_taken_in_and_said(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    docker_daemon.stop()
    assign_all(pair)
    start(agent, pair, docker_daemon)
    await both_open(pair)
    assert executors(pair) == ["process"]
    await asyncio.to_thread(docker_daemon.start)
    await until(lambda: executors(pair) == ["process", "docker"], DEADLINE_S)
    primary_of(pair).stream.assign(build_container("t1"), revision=11)
    await until(lambda: state(pair, "t1") == "RUNNING", DEADLINE_S)
    assert running(docker_daemon) == ["cloudless-t1-1"]
    assert agent.logged("no Docker engine listens") == 1


async def test_a_killed_agent_finds_its_containers_again_though_the_engine_is_late(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    assign_all(pair, build_container("t1"))
    start(agent, pair, docker_daemon)
    await until(lambda: state(pair, "t1") == "RUNNING", DEADLINE_S)
    before = docker_daemon.containers()
    await agent.end(signal.SIGKILL)
    docker_daemon.freeze()
    for one in pair:
        one.reports.clear()
    start(agent, pair, docker_daemon)
    await both_open(pair)
    await until(lambda: "state unknown" in told(pair, "t1"), DEADLINE_S)
    assert state(pair, "t1") == "RUNNING"
    docker_daemon.thaw()
    await until(lambda: told(pair, "t1") == "" and state(pair, "t1") == "RUNNING", DEADLINE_S)
    ids = {row["Id"] for row in docker_daemon.containers() if row["State"] == "running"}
    assert ids == {row["Id"] for row in before if row["State"] == "running"}


async def test_a_frozen_engine_makes_its_own_tasks_unknown_and_no_others(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    assign_all(pair, build_container("t1"), build_task("p1", "sleep", "600"))
    start(agent, pair, docker_daemon)
    await until(lambda: [state(pair, name) for name in ("t1", "p1")] == ["RUNNING", "RUNNING"], DEADLINE_S)
    attempt = newest(pair, "t1").attempt
    docker_daemon.freeze()
    stream = primary_of(pair).stream
    # More than may start at once, so that a start that waits for the engine would be in the way.
    containers = [build_container(f"c{number}") for number in range(6)]
    stream.assign(*containers, build_task("p2", "sleep", "600"), revision=11, complete=False)
    await until(lambda: state(pair, "p2") == "RUNNING", 5.0)
    await until(lambda: "state unknown" in told(pair, "t1"), DEADLINE_S)
    assert (state(pair, "t1"), state(pair, "p1"), told(pair, "p1")) == ("RUNNING", "RUNNING", "")
    assert stream.open, "the agent's own loop goes on"
    docker_daemon.thaw()
    await until(lambda: all(state(pair, task.id) == "RUNNING" for task in containers), DEADLINE_S)
    await until(lambda: told(pair, "t1") == "", DEADLINE_S)
    wanted = sorted(
        f"cloudless-{task_id}-{newest(pair, task_id).attempt}" for task_id in ("t1", *(c.id for c in containers))
    )
    assert running(docker_daemon) == wanted, f"{agent.log.read_text()}\n{docker_daemon.log_tail()}"
    assert newest(pair, "t1").attempt == attempt


async def test_containers_that_end_with_their_engine_are_started_anew_once(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    assign_all(pair, build_container("t1"))
    start(agent, pair, docker_daemon)
    await until(lambda: state(pair, "t1") == "RUNNING", DEADLINE_S)
    await asyncio.to_thread(docker_daemon.stop)
    await asyncio.to_thread(docker_daemon.start)
    # The second attempt may fall into the time that the engine needs to end.
    await until(lambda: newest(pair, "t1").attempt > 1 and state(pair, "t1") == "RUNNING", DEADLINE_S)
    assert running(docker_daemon) == [f"cloudless-t1-{newest(pair, 't1').attempt}"]
    assert told(pair, "t1") == ""


async def test_an_agent_ends_at_once_though_its_engine_hangs(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    assign_all(pair, build_container("t1"))
    start(agent, pair, docker_daemon)
    await until(lambda: state(pair, "t1") == "RUNNING", DEADLINE_S)
    docker_daemon.freeze()
    await until(lambda: "state unknown" in told(pair, "t1"), DEADLINE_S)
    async with asyncio.timeout(3):
        assert await agent.end(signal.SIGTERM) == 0


async def test_an_agent_that_shall_not_use_the_engine_does_not_look_for_it(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    assign_all(pair, build_container("t1"))
    agent.start(
        pair[0].address, pair[1].address, CLOUDLESS_DOCKER_HOST=docker_daemon.host, CLOUDLESS_DOCKER_ENABLED="false"
    )
    await until(lambda: state(pair, "t1") == "FAILED", DEADLINE_S)
    assert "no docker executor" in told(pair, "t1")
    assert executors(pair) == ["process"]


def exec_probe(*command: str, **fields: Any) -> Probe:
    return Probe(kind=ProbeKind.EXEC, command=command, **{"period_s": 0.3, "timeout_s": 5.0, **fields})


async def test_a_container_is_ready_by_a_command_inside_it_and_an_engine_that_hangs_takes_that_from_nobody(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    probe = exec_probe("test", "-e", "/tmp/ok", failure_threshold=1, timeout_s=1.0)
    assign_all(pair, build_container("t1", readiness_probe=probe, liveness_probe=exec_probe("true", timeout_s=1.0)))
    start(agent, pair, docker_daemon)
    await until(lambda: "not ready: test ended with 1" in told(pair, "t1"), DEADLINE_S)
    await docker_exec(docker_daemon, "touch", "/tmp/ok")
    await until(lambda: newest(pair, "t1").ready, DEADLINE_S)
    docker_daemon.freeze()
    await until(lambda: "state unknown" in told(pair, "t1"), DEADLINE_S)
    # Long enough for several tries of each probe, which are no answers.
    beats = primary_of(pair).stream.heartbeats
    await until(lambda: primary_of(pair).stream.heartbeats >= beats + 20, DEADLINE_S)
    assert newest(pair, "t1").ready
    docker_daemon.thaw()
    await until(lambda: told(pair, "t1") == "", DEADLINE_S)
    await docker_exec(docker_daemon, "rm", "/tmp/ok")
    await until(lambda: not newest(pair, "t1").ready, DEADLINE_S)
    report = newest(pair, "t1")
    assert (report.attempt, report.probe_failures) == (1, 0)


async def docker_exec(daemon: DockerDaemon, *command: str) -> None:
    """Run a command in the one container there is."""

    def run() -> None:
        with contextlib.closing(daemon.client()) as client:
            (row,) = client.containers()
            client.exec_start(client.exec_create(row["Id"], list(command))["Id"])

    await asyncio.to_thread(run)


async def test_a_liveness_probe_that_hangs_in_a_container_starts_it_anew_and_is_ended_with_all_it_started(
    agent: AgentProcess, pair: Pair, docker_daemon: DockerDaemon
) -> None:
    script = "[ -e /tmp/seen ] || exit 0; trap '' TERM; setsid sleep 4711 & sleep 4711"
    probe = exec_probe("sh", "-c", script, timeout_s=0.5, failure_threshold=2)
    assign_all(pair, build_container("t1", liveness_probe=probe))
    start(agent, pair, docker_daemon)
    await until(lambda: state(pair, "t1") == "RUNNING", DEADLINE_S)
    await docker_exec(docker_daemon, "touch", "/tmp/seen")
    await until(lambda: newest(pair, "t1").attempt == 2 and state(pair, "t1") == "RUNNING", DEADLINE_S)
    report = newest(pair, "t1")
    assert report.probe_failures == 1
    messages = {one.message for coordinator in pair for one in coordinator.reports.get("t1", [])}
    assert any("the liveness probe failed 2 times in a row: sh did not end within 0.5 s" in one for one in messages)
    await until(lambda: not [p for p in psutil.process_iter() if _words(p)[:2] == ["sleep", "4711"]], DEADLINE_S)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
