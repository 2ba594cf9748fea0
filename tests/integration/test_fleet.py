"""Simulated agents keep the contract of real ones, under the scripted coordinators that real ones are tested with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from cloudless.adapters.grpc.channel import INSECURE
from cloudless.adapters.system import SystemClock
from cloudless.core.model import Desired, Port
from cloudless.testing.fleet import FleetAgent, LightTasks
from tests.integration.agent_process import Pair, assign_all, both_open, other_of, primary_of, until
from tests.integration.scripted_coordinator import ScriptedCoordinator, build_task

pytestmark = pytest.mark.integration


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    first, second = ScriptedCoordinator("c1"), ScriptedCoordinator("c2")
    await first.start()
    await second.start()
    first.peers = second.peers = [first.address, second.address]
    yield first, second
    await first.stop()
    await second.stop()


@pytest.fixture
async def tasks(pair: Pair) -> AsyncIterator[LightTasks]:
    made: list[LightTasks] = []

    def build(settings: object, reports: object) -> LightTasks:
        made.append(LightTasks("n1", reports, SystemClock()))  # type: ignore[arg-type]
        return made[0]

    agent = FleetAgent("n1", (pair[0].address,), "zone-a", INSECURE, build)
    assign_all(pair, build_task("t1", "run"), build_task("t2", "run", ports=(Port(name="http"),)))
    running = asyncio.create_task(agent.links.run())
    yield made[0]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_assigned_tasks_run_and_ended_ones_are_told_and_forgotten(pair: Pair, tasks: LightTasks) -> None:
    await both_open(pair)
    one = primary_of(pair)
    await until(lambda: [one.state("t1"), one.state("t2")] == ["RUNNING", "RUNNING"])
    await until(lambda: tasks.acknowledged == 2)
    listening = one.newest("t2")
    assert listening is not None
    assert listening.ports["http"] >= 20_000
    assert listening.ready
    stopped = replace(build_task("t1", "run"), desired=Desired.STOPPED)
    one.stream.assign(stopped, revision=11, complete=False, removed=("t2",))
    await until(lambda: one.state("t1") == "STOPPED")
    await until(lambda: tasks.running == 0)
    sequences = [report.sequence for report in one.reports["t1"]]
    assert sequences == sorted(set(sequences)), "a sequence only grows"
    one.stream.assign(revision=12)
    await until(lambda: tasks.known == 0)


async def test_the_warm_session_takes_over_and_nothing_is_begun_anew(pair: Pair, tasks: LightTasks) -> None:
    await both_open(pair)
    one = primary_of(pair)
    other = other_of(pair, one)
    await until(lambda: one.state("t1") == "RUNNING")
    await one.stop()
    await until(lambda: other.state("t1") == "RUNNING")
    assert tasks.started_total == 2
    assert [change.revision_seen for change in other.stream.changes] == [10]


async def test_a_silent_coordinator_is_left(pair: Pair, tasks: LightTasks) -> None:
    await both_open(pair)
    one = primary_of(pair)
    one.mute = True
    await until(lambda: other_of(pair, one).has_primary)
    assert tasks.started_total == 2


async def test_an_unacknowledged_report_is_sent_again(pair: Pair, tasks: LightTasks) -> None:
    for coordinator in pair:
        coordinator.ack_reports = False
    await both_open(pair)
    one = primary_of(pair)
    await until(lambda: len(one.reports.get("t1", [])) >= 2)
    assert tasks.acknowledged == 0
    for coordinator in pair:
        coordinator.ack_reports = True
    await until(lambda: tasks.acknowledged == 2)
