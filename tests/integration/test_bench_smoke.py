"""The benchmark still runs: some of its sections, too short to say anything about speed."""

from __future__ import annotations

import pytest

from tests.bench.bench import Bench
from tests.bench.sections import agents, scheduler, transport

SHORT = Bench(rounds=1, slice_s=0.05)


@pytest.mark.integration
async def test_the_transport_section_measures_calls_and_messages() -> None:
    figures = {figure.name: figure for figure in await transport.measure(SHORT)}
    assert all(figure.median > 0 for figure in figures.values())
    assert {"echo_1", "echo_64", "stream_1", "stream_100"} <= figures.keys()


async def test_the_scheduler_section_places_every_task_of_its_smallest_case() -> None:
    figures = await scheduler.measure(Bench(rounds=1, only=("one-1000n",)))
    assert {figure.name for figure in figures} == {"place_one_1000", "plan_one_1000"}
    assert all(figure.median > 0 for figure in figures)


@pytest.mark.integration
@pytest.mark.timeout(180)
async def test_the_agents_section_gives_tasks_to_simulated_agents_and_holds_them_through_a_leaders_death() -> None:
    figures = {
        figure.name: figure for figure in await agents.measure(Bench(rounds=1, slice_s=0.1, nodes=8, scale=0.02))
    }
    assert figures["placed"].median > 0
    assert figures["unreachable"].median == 0
    assert 0 < figures["primary"].median <= figures["both"].median
