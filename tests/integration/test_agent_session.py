"""A real agent process under scripted coordinators: what it runs, survives, refuses, and how fast it fails over.

The agent is a process of its own, as in life: killed, stopped and started again. Tasks are real processes.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest

from cloudless.adapters.subprocess import ProcessExecutor
from cloudless.agent.config import AgentLimits
from cloudless.core.model import Desired, Port, RestartCondition, RestartPolicy
from cloudless.rpc.v1 import agent_pb2
from cloudless.rpc.v1.agent_pb2_grpc import AgentLogServiceStub
from tests.integration.agent_process import (
    DEADLINE_S,
    AgentProcess,
    Pair,
    assign_all,
    both_open,
    other_of,
    primary_of,
    until,
)
from tests.integration.scripted_coordinator import ScriptedCoordinator, build_task

pytestmark = pytest.mark.integration


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent")
    yield agent
    if agent.process and agent.process.poll() is None:
        agent.process.send_signal(signal.SIGCONT)
        await agent.end(signal.SIGKILL)
    executor = ProcessExecutor(agent.data_dir / "tasks")
    for instance in await executor.adopt():
        if instance.running:
            await executor.stop(instance.task_id, instance.attempt, grace_s=0)
            await executor.wait(instance.task_id, instance.attempt)
    executor.close()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[ScriptedCoordinator, ScriptedCoordinator]]:
    first, second = ScriptedCoordinator("c1"), ScriptedCoordinator("c2")
    await first.start()
    await second.start()
    first.peers = second.peers = [first.address, second.address]
    yield first, second
    await first.stop()
    await second.stop()


async def test_assignments_start_processes_and_ends_are_reported(agent: AgentProcess, pair: Pair) -> None:
    lasting = build_task("t1", "sh", "-c", "echo $CLOUDLESS_WORKLOAD on $CLOUDLESS_NODE_ID; sleep 600")
    listening = build_task("t2", "sleep", "600", ports=(Port(name="http"),))
    failing = build_task("t3", "sh", "-c", "exit 3")
    broken = build_task("t4", "no-such-command")
    assign_all(pair, lasting, listening, failing, broken)
    agent.start(pair[0].address)
    await until(lambda: any(one.has_primary for one in pair))
    one = primary_of(pair)
    await until(lambda: [one.state(f"t{n}") for n in (1, 2, 3, 4)] == ["RUNNING", "RUNNING", "FAILED", "FAILED"])
    report, failed = one.newest("t2"), one.newest("t3")
    assert report is not None
    assert failed is not None
    assert psutil.Process(report.pid).cmdline() == ["sleep", "600"]
    assert 20000 <= report.ports["http"] <= 32000
    assert (report.node_id, report.attempt, report.restarts) == ("n1", 1, 0)
    assert failed.exit_code == 3
    assert "no-such-command" in (one.newest("t4") or failed).message
    assert "web on n1" in (agent.data_dir / "tasks/t1/1/stdout.log").read_text()

    one.stream.assign(replace(lasting, desired=Desired.STOPPED), revision=11, complete=False, removed=("t2",))
    await until(lambda: one.state("t1") == "STOPPED")
    await until(lambda: not (agent.data_dir / "journal/t2").exists() and not (agent.data_dir / "tasks/t2").exists())
    assert (agent.data_dir / "journal/t1").exists(), "kept until the coordinator no longer lists it"
    one.stream.assign(failing, revision=12)
    await until(lambda: sorted(path.name for path in (agent.data_dir / "journal").iterdir()) == ["t3"])
    assert not psutil.pid_exists(report.pid)


async def test_the_warm_session_takes_over_within_a_second_and_nothing_is_restarted(
    agent: AgentProcess, pair: Pair
) -> None:
    assign_all(pair, build_task("t1", "sleep", "600"))
    # One address is enough: the other is learned from the welcome.
    agent.start(pair[0].address)
    await both_open(pair)
    one = primary_of(pair)
    other = other_of(pair, one)
    await until(lambda: one.state("t1") == "RUNNING")
    assert not other.has_primary
    assert other.reports == {}
    before = one.newest("t1")
    began = time.monotonic()
    await one.stop()
    await until(lambda: other.state("t1") == "RUNNING", deadline_s=1.0)
    print(f"failover, primary stopped: {time.monotonic() - began:.3f} s")
    after = other.newest("t1")
    assert before is not None
    assert after is not None
    assert (after.pid, after.attempt) == (before.pid, before.attempt)
    assert [change.revision_seen for change in other.stream.changes] == [10]

    await one.start(one.address)
    await until(lambda: one.stream.open and one.stream.heartbeats > 1)
    assert not one.has_primary, "the returning one is only warm"


async def test_a_silent_coordinator_is_left_though_its_connection_lives(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair, build_task("t1", "sleep", "600"))
    agent.start(pair[0].address, pair[1].address)
    await both_open(pair)
    one = primary_of(pair)
    began = time.monotonic()
    one.mute = True
    await until(lambda: other_of(pair, one).has_primary)
    took_s = time.monotonic() - began
    print(f"failover, primary silent: {took_s:.3f} s ({one.period_s} s period)")
    assert took_s >= 2 * one.period_s
    await until(lambda: not any(stream.open and stream.is_primary for stream in one.streams))


async def test_a_coordinator_that_sheds_is_left_at_once(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair)
    agent.start(pair[0].address, pair[1].address)
    await both_open(pair)
    one = primary_of(pair)
    one.stream.send(shed=agent_pb2.Shed(reason="stopping"))
    await until(lambda: other_of(pair, one).has_primary, deadline_s=1.0)


async def test_a_killed_agent_finds_its_tasks_again_and_reports_what_ended_meanwhile(
    agent: AgentProcess, pair: Pair
) -> None:
    lasting = build_task("t1", "sleep", "600")
    ending = build_task("t2", "sh", "-c", "while [ ! -e go ]; do sleep 0.01; done; exit 7")
    assign_all(pair, lasting, ending)
    agent.start(pair[0].address, pair[1].address)
    await both_open(pair)
    one = primary_of(pair)
    await until(lambda: one.state("t1") == one.state("t2") == "RUNNING")
    before = one.newest("t1")
    await agent.end(signal.SIGKILL)
    (agent.data_dir / "tasks/t2/home/go").touch()
    await until(lambda: (agent.data_dir / "tasks/t2/1/exit.json").exists())
    for each in pair:
        each.reports.clear()
    agent.start(pair[0].address, pair[1].address)
    await until(lambda: any(one.state("t1") == "RUNNING" and one.state("t2") == "FAILED" for one in pair))
    one = primary_of(pair)
    after, ended = one.newest("t1"), one.newest("t2")
    assert before is not None
    assert after is not None
    assert ended is not None
    assert (after.pid, after.attempt, after.restarts) == (before.pid, 1, 0)
    assert after.sequence > before.sequence
    assert (ended.exit_code, ended.attempt) == (7, 1)
    assert one.stream.hello.revision_seen == 10
    assert len({stream.hello.incarnation for each in pair for stream in each.streams}) == 2


async def test_an_agent_that_starts_without_any_coordinator_goes_on_with_its_journal(
    agent: AgentProcess, pair: Pair
) -> None:
    """As after a power cut at a place that is cut off: one task was killed with the machine, the other lives."""
    policy = RestartPolicy(condition=RestartCondition.ALWAYS, backoff_s=0.1)
    killed = build_task("t1", "sh", "-c", "echo $$ >> pids; exec sleep 600", restart_policy=policy)
    assign_all(pair, killed, build_task("t2", "sleep", "600"))
    agent.start(pair[0].address, pair[1].address)
    await both_open(pair)
    one = primary_of(pair)
    await until(lambda: one.state("t1") == one.state("t2") == "RUNNING")
    before = one.newest("t2")
    assert before is not None
    await agent.end(signal.SIGKILL)
    for each in pair:
        await each.stop()
    pids = agent.data_dir / "tasks/t1/home/pids"
    os.kill(int(pids.read_text()), signal.SIGKILL)
    await until(lambda: (agent.data_dir / "tasks/t1/1/exit.json").exists())

    agent.start(pair[0].address, pair[1].address)
    await until(lambda: len(pids.read_text().split()) == 2)
    os.kill(int(pids.read_text().split()[1]), signal.SIGKILL)
    await until(lambda: len(pids.read_text().split()) == 3)
    for each in pair:
        each.reports.clear()
        await each.start(each.address)
    await until(lambda: any(one.state("t1") == one.state("t2") == "RUNNING" for one in pair))
    one = primary_of(pair)
    restarted, adopted = one.newest("t1"), one.newest("t2")
    assert restarted is not None
    assert adopted is not None
    assert (restarted.attempt, str(restarted.pid)) == (3, pids.read_text().split()[2])
    assert (adopted.attempt, adopted.pid) == (1, before.pid)


async def test_a_stopped_agent_leaves_its_tasks_running_unless_told_otherwise(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair, build_task("t1", "sleep", "600"))
    agent.start(pair[0].address, pair[1].address)
    await until(lambda: any(one.state("t1") == "RUNNING" for one in pair))
    report = primary_of(pair).newest("t1")
    assert report is not None
    began = time.monotonic()
    assert await agent.end(signal.SIGTERM) == 0
    print(f"exit after SIGTERM: {time.monotonic() - began:.3f} s")
    assert psutil.Process(report.pid).is_running()
    for each in pair:
        each.reports.clear()
    agent.start(pair[0].address, pair[1].address, CLOUDLESS_STOP_TASKS_ON_EXIT="true")
    await until(lambda: any(one.state("t1") == "RUNNING" for one in pair))
    assert await agent.end(signal.SIGTERM) == 0
    assert not psutil.pid_exists(report.pid)


async def test_a_list_older_than_the_newest_seen_never_stops_anything(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair, build_task("t1", "sleep", "600"), revision=10, term=2)
    agent.start(pair[0].address, pair[1].address)
    await both_open(pair)
    one = primary_of(pair)
    await until(lambda: one.state("t1") == "RUNNING")
    report = one.newest("t1")
    left = one.stream
    left.assign(revision=9, term=2)
    await until(lambda: agent.logged("assigns at revision 9, seen 10"))
    await until(lambda: not left.open)  # else it would be taken for the primary of now
    await both_open(pair)
    primary_of(pair).stream.assign(revision=99, term=1)
    await until(lambda: agent.logged("assigns under term 1, seen 2"))
    await both_open(pair)
    assert report is not None
    assert psutil.Process(report.pid).is_running()
    assert primary_of(pair).state("t1") == "RUNNING"


async def test_a_gap_in_the_sequence_leads_to_a_new_session(agent: AgentProcess, pair: Pair) -> None:
    one, other = pair
    await other.stop()
    task = build_task("t1", "sleep", "600")
    assign_all(pair, task)
    agent.start(one.address)
    await until(lambda: one.state("t1") == "RUNNING")
    opened = len(one.streams)
    one.stream.assign(build_task("t2", "sleep", "600"), revision=11, complete=False, skip=1)
    await until(lambda: len(one.streams) > opened and one.has_primary)
    assert agent.logged("sent message 3, expected 2")
    assert one.state("t2") == "", "a change to a list it does not have is not followed"
    # Nor is a change before any complete list.
    one.on_primary = lambda stream: stream.assign(task, revision=12, complete=False)
    one.stream.end()
    await until(lambda: agent.logged("sent message 1, expected 0"))


async def test_another_clusters_coordinator_is_refused(agent: AgentProcess, pair: Pair) -> None:
    one, other = pair
    assign_all(pair, build_task("t1", "sleep", "600"))
    agent.start(one.address)
    await until(lambda: one.state("t1") == "RUNNING" and other.streams)
    await other.stop()
    stranger = ScriptedCoordinator("s1", cluster_id="another")
    stranger.on_primary = lambda stream: stream.assign(revision=99, term=99)
    await stranger.start(other.address)
    try:
        await until(lambda: agent.logged("belongs to cluster another"))
        await one.stop()
        await asyncio.sleep(0)
        assert not stranger.has_primary
        assert stranger.stream.hello.cluster_id == "cluster-1"
    finally:
        await stranger.stop()


async def test_a_task_that_ignores_the_polite_signal_is_gone_with_its_grandchildren(
    agent: AgentProcess, pair: Pair
) -> None:
    script = """trap "" TERM; setsid sh -c 'trap "" TERM; sleep 600 & echo $$ $! > pids; wait' & echo up; wait; wait"""
    stubborn = build_task("t1", "sh", "-c", script, stop_grace_s=0.5)
    assign_all(pair, stubborn)
    agent.start(pair[0].address, pair[1].address)
    pids = agent.data_dir / "tasks/t1/home/pids"
    await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    await until(lambda: any(one.state("t1") == "RUNNING" for one in pair))
    one = primary_of(pair)
    report = one.newest("t1")
    one.stream.assign(replace(stubborn, desired=Desired.STOPPED), revision=11, complete=False)
    await until(lambda: one.state("t1") == "STOPPED")
    assert report is not None
    assert not [pid for pid in (report.pid, *map(int, pids.read_text().split())) if psutil.pid_exists(pid)]
    assert (one.newest("t1") or report).signal == signal.SIGKILL


async def test_many_changes_travel_as_few_reports_and_are_repeated_until_acknowledged(
    agent: AgentProcess, pair: Pair
) -> None:
    one, other = pair
    await other.stop()
    one.ack_reports = False
    policy = RestartPolicy(condition=RestartCondition.ALWAYS, backoff_s=0.0)
    assign_all(pair, build_task("t1", "true", restart_policy=policy))
    agent.start(one.address)
    await until(lambda: "t1" in one.reports)
    first, began_s = one.reports["t1"][0].sequence, time.monotonic()
    await until(lambda: one.reports["t1"][-1].sequence - first >= 60)
    changes = {report.sequence for report in one.reports["t1"]}
    assert len(changes) <= (time.monotonic() - began_s) / AgentLimits().report_gap_s + 3, "conflated"
    one.stream.assign(build_task("t1", "true", desired=Desired.STOPPED), revision=11, complete=False)
    await until(lambda: one.state("t1") == "STOPPED")
    final = one.newest("t1")
    assert final is not None
    await until(lambda: sum(report.sequence == final.sequence for report in one.reports["t1"]) >= 2)
    one.ack_reports = True
    await until(lambda: sum(report.sequence == final.sequence for report in one.reports["t1"]) >= 3)


async def test_a_corrupt_journal_entry_costs_its_memory_not_its_process(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair, build_task("t1", "sleep", "600"), build_task("t2", "sleep", "600"))
    agent.start(pair[0].address, pair[1].address)
    await until(lambda: any(one.state("t1") == one.state("t2") == "RUNNING" for one in pair))
    before = primary_of(pair).newest("t1")
    await agent.end(signal.SIGKILL)
    entry = agent.data_dir / "journal/t1"
    entry.write_bytes(entry.read_bytes()[:-1] + b"!")
    for each in pair:
        each.reports.clear()
    agent.start(pair[0].address, pair[1].address)
    await until(lambda: any(one.state("t1") == one.state("t2") == "RUNNING" for one in pair))
    after = primary_of(pair).newest("t1")
    assert before is not None
    assert after is not None
    assert after.pid == before.pid
    assert after.sequence > before.sequence
    assert (agent.data_dir / "quarantine/t1").exists()
    assert agent.logged("journal: t1 cannot be read")


async def test_a_journal_that_cannot_be_written_is_reported_and_nothing_is_started(
    agent: AgentProcess, pair: Pair
) -> None:
    agent.data_dir.mkdir()
    (agent.data_dir / "journal").write_text("a file where the directory belongs")
    assign_all(pair, build_task("t1", "sleep", "600", restart_policy=RestartPolicy(backoff_s=0.2)))
    agent.start(pair[0].address, pair[1].address)
    await until(lambda: any(one.state("t1") == "BACKOFF" for one in pair))
    report = primary_of(pair).newest("t1")
    assert report is not None
    assert "journal cannot be written" in report.message
    assert not (agent.data_dir / "tasks/t1").exists()
    (agent.data_dir / "journal").unlink()
    await until(lambda: any(one.state("t1") == "RUNNING" for one in pair))


async def test_a_second_agent_on_the_same_data_directory_names_the_first(agent: AgentProcess, pair: Pair) -> None:
    agent.start(pair[0].address)
    await until(lambda: pair[0].streams)
    second = AgentProcess(agent.data_dir)
    second.log = second.log.with_name("second.log")
    second.start(pair[0].address)
    assert second.process
    assert await asyncio.to_thread(second.process.wait, DEADLINE_S) == 8
    assert f"pid {agent.pid}" in second.log.read_text()


async def test_a_taken_port_is_named_at_start_and_by_the_task(agent: AgentProcess, pair: Pair) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        agent.start(pair[0].address, CLOUDLESS_AGENT_ADDR=f"127.0.0.1:{port}")
        assert agent.process
        assert await asyncio.to_thread(agent.process.wait, DEADLINE_S) == 8
        assert f"127.0.0.1:{port}" in agent.log.read_text()
        assign_all(pair, build_task("t1", "sleep", "600", ports=(Port(name="web", host_port=port),)))
        agent.start(pair[0].address)
        await until(lambda: any(one.state("t1") == "BACKOFF" for one in pair))
        report = primary_of(pair).newest("t1")
        assert report is not None
        assert f"port {port} (web) is in use" in report.message
    finally:
        server.close()
        await server.wait_closed()


async def test_task_output_is_served_to_coordinators(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair, build_task("t1", "sh", "-c", "seq 1 100; while [ ! -e go ]; do sleep 0.01; done; echo end"))
    agent.start(pair[0].address, pair[1].address)
    await until(lambda: any(one.state("t1") == "RUNNING" for one in pair))
    # It runs before it has printed; the last two lines of less would be others.
    await until(lambda: (agent.data_dir / "tasks/t1/1/stdout.log").read_bytes().endswith(b"\n100\n"))
    async with grpc.aio.insecure_channel(primary_of(pair).stream.hello.info.address) as channel:
        logs = AgentLogServiceStub(channel)
        seen = b""
        async for part in logs.ReadTaskLogs(agent_pb2.ReadTaskLogsRequest(task_id="t1", tail_lines=2, follow=True)):
            seen += part.data
            (agent.data_dir / "tasks/t1/home/go").touch()
        assert seen == b"99\n100\nend\n"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await logs.ReadTaskLogs(agent_pb2.ReadTaskLogsRequest(task_id="t9")).read()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_paused_agent_goes_on_with_its_sessions(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair, build_task("t1", "sleep", "600"))
    agent.start(pair[0].address, pair[1].address)
    await both_open(pair)
    await until(lambda: any(one.state("t1") == "RUNNING" for one in pair))
    streams = [len(one.streams) for one in pair]
    assert agent.process
    agent.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 5 * pair[0].period_s)
    agent.process.send_signal(signal.SIGCONT)
    beats = [one.stream.heartbeats for one in pair]
    await until(lambda: all(one.stream.heartbeats > before + 4 for one, before in zip(pair, beats, strict=True)))
    assert [len(one.streams) for one in pair] == streams


async def test_metrics_show_sessions_and_tasks_and_the_agent_is_small(agent: AgentProcess, pair: Pair) -> None:
    assign_all(pair, build_task("t1", "sleep", "600"))
    with_port = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = with_port.sockets[0].getsockname()[1]
    with_port.close()
    await with_port.wait_closed()
    agent.start(pair[0].address, pair[1].address, CLOUDLESS_METRICS_ADDR=f"127.0.0.1:{port}")
    await both_open(pair)
    await until(lambda: any(one.state("t1") == "RUNNING" for one in pair))

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(scrape)
    assert "cloudless_agent_up 1.0" in text
    assert 'cloudless_agent_tasks{state="RUNNING"} 1.0' in text
    assert 'cloudless_agent_sessions{role="primary"} 1.0' in text
    assert 'cloudless_agent_sessions{role="warm"} 1.0' in text
    assert re.search(r"cloudless_agent_asyncio_tasks [1-9]", text)
    rss_mb = psutil.Process(agent.pid).memory_info().rss / 1024**2
    print(f"agent RSS: {rss_mb:.1f} MB")
    assert rss_mb < 64  # a process is half a megabyte larger in some environments than in others
