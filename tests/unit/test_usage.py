"""What is used is asked for over the sessions, shared by all who ask, and never waited for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.host.load import read_machine_usage
from cloudless.agent.usage import WINDOW_MAX_S, WINDOW_S, UsageMeter
from cloudless.coordinator.usage import AGENT_TIMEOUT_S, UsageDesk
from cloudless.core.usage import UNKNOWN, Usage, cpu_millicores
from cloudless.rpc.v1 import usage_pb2 as pb
from cloudless.testing.virtual_time import virtually
from tests.unit.coordinators import CLOCK


@pytest.mark.parametrize(
    ("before_s", "after_s", "between_s", "rate"),
    [
        (1.0, 1.5, 1.0, 500),
        (1.0, 5.0, 2.0, 2000),
        (UNKNOWN, 1.0, 1.0, UNKNOWN),
        (2.0, 1.0, 1.0, UNKNOWN),
        (1.0, 1.0, 0.0, UNKNOWN),
    ],
)
def test_a_rate_needs_two_looks_at_one_counter(before_s: float, after_s: float, between_s: float, rate: int) -> None:
    assert cpu_millicores(Usage(before_s), Usage(after_s), between_s) == rate


def test_the_machine_is_measured() -> None:
    used = read_machine_usage()
    assert used.cpu_s > 0
    assert used.memory_bytes > 1024**2


@virtually
async def test_a_node_measures_twice_and_once_for_all_who_ask() -> None:
    looks = 0

    async def measure() -> dict[str, Usage]:
        nonlocal looks
        looks += 1
        return {"t1": Usage(looks * 0.1, 1000), **({"t2": Usage(1.0, 5)} if looks > 1 else {})}

    async def at_once(work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    meter = UsageMeter("n1", Path("/"), measure, CLOCK, at_once)
    began_s = CLOCK.monotonic_s()
    one, other = await asyncio.gather(meter.measure(), meter.measure())
    assert one == other
    assert looks == 2
    assert CLOCK.monotonic_s() - began_s == pytest.approx(WINDOW_S, abs=0.1)
    assert {task.task_id: task.usage.cpu_millicores for task in one.tasks} == {"t1": 200, "t2": UNKNOWN}
    assert one.disk_total_bytes > one.disk_free_bytes > 0
    await CLOCK.sleep(10)
    await meter.measure()
    assert looks == 3, "the look of before does"
    await CLOCK.sleep(WINDOW_MAX_S + 1)
    await meter.measure()
    assert looks == 5


@virtually
async def test_askers_share_an_answer_and_a_silent_agent_holds_nobody_up() -> None:
    desk, sent = UsageDesk(), list[str]()

    def send(node_id: str) -> bool:
        sent.append(node_id)
        return node_id != "elsewhere"

    asking = [asyncio.create_task(desk.ask(["n1", "silent", "elsewhere"], send)) for _ in range(2)]
    await asyncio.sleep(0.1)
    desk.take("n1", pb.NodeUsage(node_id="forged", disk_free_bytes=7))
    desk.take("n1", pb.NodeUsage())
    desk.take("nobody-asked", pb.NodeUsage())
    began_s = CLOCK.monotonic_s()
    for answers in await asyncio.gather(*asking):
        assert [(answer.node_id, answer.disk_free_bytes) for answer in answers] == [("n1", 7)]
    assert CLOCK.monotonic_s() - began_s <= AGENT_TIMEOUT_S
    given_up = asyncio.create_task(desk.ask(["silent"], send))
    await asyncio.sleep(0.1)
    given_up.cancel()
    again = asyncio.create_task(desk.ask(["silent"], send))
    await asyncio.sleep(0.1)
    desk.take("silent", pb.NodeUsage())
    assert len(await again) == 1
    assert sent.count("silent") == 4, "it is asked anew"
