"""Probes on a live cluster: what a person sees of readiness, what a liveness failure does, and that hanging ones harm
nobody. Tasks, servers and probing commands are real processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cloudless.adapters.subprocess import ProcessExecutor
from cloudless.adapters.subprocess.launches import MARK_VARIABLE
from cloudless.cli.methods import DELETE_WORKLOAD, EXPLAIN_WORKLOAD, GET_WORKLOAD, LIST_EVENTS
from cloudless.core.model import Probe, ProbeKind
from cloudless.errors import NotFound
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.workload_pb2 import (
    DeleteWorkloadRequest,
    ExplainWorkloadRequest,
    GetWorkloadRequest,
    Task,
    WorkloadSummary,
)
from etcd.find import Found
from tests.integration.agent_process import AgentProcess, until
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary
from tests.integration.scripted_coordinator import ScriptedCoordinator, build_task

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NAME = "probed"
AGENT = "agent-1"
QUICK = {"period": "200ms", "timeout": "1s", "failureThreshold": 2}
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.path.exists("ok") else 503)
        self.end_headers()
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
LISTENER = """
import os, socket, sys, time
while not os.path.exists("ok"): time.sleep(0.02)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True: server.accept()[0].close()
"""


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("probes"), binary.path)
    made.add_coordinators(COORDINATORS[:1])
    made.bootstrap_with(COORDINATORS[0])
    made.add_agent(AGENT)
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(living: LocalCluster) -> Iterator[LocalCluster]:
    yield living
    with suppress(NotFound):  # a test has deleted it itself
        living.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=NAME))
    living.until(lambda: not living.tasks(NAME, all=True), "no task left")


def python(script: str) -> dict[str, Any]:
    return {
        "command": ["python3", "-c", script],
        "args": ["$(CLOUDLESS_PORT_HTTP)"],
        "ports": [{"name": "http"}],
    }


def run(cluster: LocalCluster, **spec: Any) -> Task:
    """Apply a workload of one task and return that once it runs."""
    cluster.apply(manifest_of(NAME, **spec))
    return task_when(cluster, lambda task: task.state == "RUNNING", "the task runs")


def task_when(cluster: LocalCluster, holds: Any, what: str) -> Task:
    def look() -> Task | None:
        return next((task for task in cluster.tasks(NAME) if holds(task)), None)

    return cluster.until(look, what)


def home_of(cluster: LocalCluster, task: Task) -> Path:
    return cluster.processes[AGENT].data_dir / "tasks" / task.desired.id / "home"


def summary(cluster: LocalCluster) -> WorkloadSummary:
    return cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=NAME)).workload.summary


def events_of(cluster: LocalCluster, task: Task) -> list[tuple[str, str]]:
    found = cluster.call(LIST_EVENTS, ListEventsRequest()).events
    return [(event.kind, event.message) for event in found if event.subject == f"task/{task.desired.id}"]


@pytest.mark.parametrize(
    ("spec", "probe", "words"),
    [
        (python(SERVER), {"http": {"path": "/healthz", "port": "http"}}, "GET /healthz answered 503"),
        (python(LISTENER), {"tcp": {"port": "http"}}, "connection refused"),
        ({}, {"exec": {"command": ["test", "-e", "ok"]}}, "test ended with 1"),
    ],
    ids=["http", "tcp", "exec"],
)
def test_a_task_is_available_once_its_readiness_probe_passes_and_everybody_is_told(
    cluster: LocalCluster, spec: dict[str, Any], probe: dict[str, Any], words: str
) -> None:
    task = run(cluster, readinessProbe={**probe, **QUICK}, **spec)
    seen = task_when(cluster, lambda task: words in task.observed.message, words)
    assert (seen.observed.ready, seen.observed.message.startswith("not ready: ")) == (False, True)
    assert (summary(cluster).running, summary(cluster).ready, summary(cluster).state) == (1, 0, "STARTING")
    verdict = cluster.call(EXPLAIN_WORKLOAD, ExplainWorkloadRequest(name=NAME)).verdict
    assert "1 of 1 running, 0 ready" in verdict
    (home_of(cluster, task) / "ok").touch()
    seen = task_when(cluster, lambda task: task.observed.ready, "it is ready")
    assert (seen.observed.attempt, seen.observed.message, seen.observed.ready_since_ms > 0) == (1, "", True)
    assert (summary(cluster).ready, summary(cluster).state) == (1, "RUNNING")
    cluster.until(lambda: "TaskReady" in dict(events_of(cluster, task)), "the event")


def test_readiness_that_is_lost_ends_nothing_and_is_an_event(cluster: LocalCluster) -> None:
    task = run(cluster, readinessProbe={"exec": {"command": ["test", "-e", "ok"]}, **QUICK})
    (home_of(cluster, task) / "ok").touch()
    task_when(cluster, lambda task: task.observed.ready, "it is ready")
    (home_of(cluster, task) / "ok").unlink()
    seen = task_when(cluster, lambda task: not task.observed.ready, "it is no longer ready")
    assert (seen.state, seen.observed.pid, seen.observed.attempt) == ("RUNNING", task.observed.pid, 1)
    assert summary(cluster).state == "DEGRADED"
    cluster.until(lambda: dict(events_of(cluster, task)).get("TaskNotReady") == "not ready: test ended with 1", "event")


def test_a_liveness_failure_starts_the_task_anew_with_a_growing_back_off_and_says_why(cluster: LocalCluster) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo no life >&2; exit 3"]}, **QUICK}
    task = run(cluster, livenessProbe=probe, restartPolicy={"policy": "ON_FAILURE", "backoff": "300ms"})
    why = "the liveness probe failed 2 times in a row: sh ended with 3: no life"
    waiting = task_when(cluster, lambda task: task.state == "BACKOFF", "it waits")
    assert waiting.observed.message.startswith(f"{why}; restart ")
    seen = task_when(cluster, lambda task: task.observed.attempt >= 3 and task.state == "RUNNING", "a third attempt")
    assert seen.desired.id == task.desired.id, "the agent starts the same task anew"
    assert seen.observed.probe_failures == 2
    assert not psutil.pid_exists(task.observed.pid)
    told = events_of(cluster, task)
    assert ("TaskUnhealthy", why) in told
    restarts = [message for kind, message in told if kind == "TaskRestarting"]
    assert {f"{why}; restart 1 in 0.3 s", f"{why}; restart 2 in 0.6 s"} <= {*restarts}


def test_a_probe_that_hangs_is_ended_with_all_it_started(cluster: LocalCluster) -> None:
    script = "trap '' TERM HUP; setsid sleep 4711 & sleep 4711"
    probe = {"exec": {"command": ["sh", "-c", script]}, "period": "200ms", "timeout": "500ms", "failureThreshold": 2}
    task = run(cluster, readinessProbe=probe)
    cluster.until(lambda: len(marked(task.desired.id)) >= 3, "the probe and what it started")
    task_when(cluster, lambda task: "sh did not end within 0.5 s" in task.observed.message, "it failed")
    assert len(marked(task.desired.id)) <= 3, "one try at a time"
    assert task_when(cluster, lambda task: True, "it").observed.pid == task.observed.pid
    cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=NAME))
    cluster.until(lambda: not marked(task.desired.id), "nothing left of it")


def marked(task_id: str) -> list[psutil.Process]:
    """Return the commands beside a task."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if MARK_VARIABLE in environment and environment.get("CLOUDLESS_TASK_ID") == task_id:
            found.append(process)
    return found


# --- one agent, many tasks ----------------------------------------------------------------------


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


def exec_probe(*command: str, **fields: Any) -> Probe:
    return Probe(kind=ProbeKind.EXEC, command=command, **{"period_s": 1.0, "timeout_s": 5.0, **fields})


async def test_two_hundred_tasks_are_probed_while_one_hangs_and_no_heartbeat_is_missed(
    agent: AgentProcess, coordinator: ScriptedCoordinator
) -> None:
    tasks = [
        build_task(f"t{n}", "sleep", "600", readiness_probe=exec_probe("test", "-e", "ok", period_s=3.0))
        for n in range(200)
    ]
    hanging = build_task("slow", "sleep", "600", readiness_probe=exec_probe("sleep", "600", timeout_s=3600.0))
    coordinator.on_primary = lambda stream: stream.assign(hanging, *tasks, revision=10)
    agent.start(coordinator.address)
    names = [task.id for task in tasks]
    await until(lambda: all(coordinator.state(name) == "RUNNING" for name in names), deadline_s=90)
    before, began_s = coordinator.stream.heartbeats, asyncio.get_running_loop().time()
    for name in names:
        (agent.data_dir / "tasks" / name / "home/ok").touch()

    def ready(name: str) -> bool:
        report = coordinator.newest(name)
        return report is not None and report.ready

    await until(lambda: all(ready(name) for name in names), deadline_s=90)
    took_s = asyncio.get_running_loop().time() - began_s
    beats = coordinator.stream.heartbeats - before
    print(f"200 tasks ready {took_s:.2f} s after they could be, probed every 3 s; {beats} heartbeats of 0.2 s")
    assert not ready("slow")
    assert beats >= took_s / 0.2 * 0.5
    assert len(coordinator.streams) == 1, "the session never broke"


async def test_tasks_found_again_are_probed_on_and_never_lose_their_readiness(
    agent: AgentProcess, coordinator: ScriptedCoordinator
) -> None:
    probe = exec_probe("test", "-e", "ok", period_s=0.2)
    task = build_task("t1", "sleep", "600", readiness_probe=probe)
    coordinator.on_primary = lambda stream: stream.assign(task, revision=10)
    agent.start(coordinator.address)
    await until(lambda: coordinator.state("t1") == "RUNNING")
    ok = agent.data_dir / "tasks/t1/home/ok"
    ok.touch()
    await until(lambda: coordinator.reports["t1"][-1].ready)
    first = coordinator.newest("t1")
    assert first is not None
    await agent.end(signal.SIGKILL)
    known = len(coordinator.reports["t1"])
    agent.start(coordinator.address)
    await until(lambda: len(coordinator.streams) == 2 and len(coordinator.reports["t1"]) > known)
    ok.unlink()
    await until(lambda: not coordinator.reports["t1"][-1].ready)
    later = coordinator.reports["t1"][known:]
    assert [report.ready for report in later] == [True] * (len(later) - 1) + [False]
    assert {(report.pid, report.attempt) for report in later} == {(first.pid, 1)}
    assert {report.ready_since_ms for report in later[:-1]} == {first.ready_since_ms}
