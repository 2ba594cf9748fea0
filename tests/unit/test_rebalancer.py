"""When the leader moves a task: after the calm that operators set, one at a time, with a rest between two."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from cloudless.coordinator.orchestrator import Orchestrator
from cloudless.core import keys
from cloudless.core.model import (
    NodeSpec,
    NodeStatus,
    Placement,
    Reachability,
    Resources,
    SchedulerRecord,
    SpreadTopology,
    TaskState,
)
from cloudless.testing.builders import build_workload
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.leading import CLOCK, Cluster, leading, report

AFTER_S = 40
REST_S = AFTER_S / 10
SPREAD = Placement(spread_topology=SpreadTopology.NODE)


async def obey(cluster: Cluster) -> None:
    """Let agents do what is wanted of their tasks, until cancelled."""
    while True:
        for task in list(cluster.replica.machine.tasks.values()):
            state = TaskState.RUNNING if task.wanted else TaskState.STOPPED
            if not task.ended and task.state is not state:
                sequence = task.observed.sequence + 1 if task.observed else 1
                said = replace(report(task.id, sequence, state), node_id=task.desired.node_id)
                await cluster.put(keys.task_observed(task.id), said)
        await asyncio.sleep(0.5)


def spread(cluster: Cluster) -> Counter[str]:
    return Counter(cluster.wanted().values())


@asynccontextmanager
async def lopsided(after_s: int = AFTER_S, replicas: int = 6) -> AsyncIterator[Cluster]:
    """Lead a cluster whose replicas all run on the node that was there first; the second has just come."""
    async with leading() as cluster:
        await cluster.put(keys.SCHEDULER, SchedulerRecord(rebalance_after_s=after_s))
        await cluster.add_node("n1")
        await cluster.add_workload(build_workload(replicas=replicas, placement=SPREAD))
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(1, cluster.committer), obey(cluster)):
            await eventually(lambda: spread(cluster) == {"n1": replicas})
            await asyncio.sleep(2)
            await cluster.add_node("n2")
            yield cluster


@virtually
async def test_off_by_default() -> None:
    async with lopsided(after_s=0) as cluster:
        await asyncio.sleep(500)
        assert spread(cluster) == {"n1": 6}
        await cluster.put(keys.SCHEDULER, SchedulerRecord(rebalance_after_s=AFTER_S))
        assert await eventually(lambda: spread(cluster)["n2"] > 0) < 1, "all has been calm for long enough"


@virtually
async def test_tasks_come_one_by_one_after_the_calm_that_was_asked_for() -> None:
    async with lopsided() as cluster:
        assert AFTER_S - 1 < await eventually(lambda: spread(cluster)["n2"] == 1, within_s=AFTER_S + 5) < AFTER_S + 2
        assert spread(cluster)["n1"] == 6, "beside the one that it is to replace"
        await eventually(lambda: spread(cluster) == {"n1": 5, "n2": 1}, within_s=5)
        for number in (2, 3):
            took_s = await eventually(lambda count=number: spread(cluster)["n2"] == count, within_s=60)  # type: ignore[misc]
            assert REST_S - 5 < took_s < REST_S + 5
            left = 7 - number
            await eventually(lambda count=left - 1: spread(cluster)["n1"] == count, within_s=5)  # type: ignore[misc]
        await asyncio.sleep(200)
        assert spread(cluster) == {"n1": 3, "n2": 3}


@virtually
async def test_whatever_happens_to_a_node_begins_the_wait_anew_and_reliability_does_not() -> None:
    async with lopsided() as cluster:
        await asyncio.sleep(AFTER_S - 10)
        await cluster.put(keys.node_spec("n1"), NodeSpec(labels={"a": "b"}))
        await asyncio.sleep(AFTER_S - 10)
        assert spread(cluster)["n2"] == 0
        status = NodeStatus(reachability=Reachability.REACHABLE, reliability=0.5)
        await cluster.put(keys.node_status("n1"), status)
        await eventually(lambda: spread(cluster)["n2"] == 1, within_s=15)


@virtually
async def test_who_comes_to_wait_for_a_node_begins_the_calm_anew_and_does_not_hold_it_up_for_ever() -> None:
    async with lopsided() as cluster:
        await asyncio.sleep(AFTER_S - 10)
        await cluster.add_workload(build_workload("vast", uid="v", requests=Resources(cpu_millicores=64_000)))
        await asyncio.sleep(AFTER_S - 5)
        assert spread(cluster)["n2"] == 0
        await eventually(lambda: spread(cluster) == {"n1": 3, "n2": 3}, within_s=300)


@virtually
async def test_nothing_is_moved_while_a_node_is_drained() -> None:
    async with lopsided() as cluster:
        await eventually(lambda: spread(cluster) == {"n1": 5, "n2": 1}, within_s=AFTER_S + 10)
        await cluster.put(keys.node_spec("n3"), NodeSpec(draining=True))
        await asyncio.sleep(3 * AFTER_S)
        assert spread(cluster) == {"n1": 5, "n2": 1}
        await cluster.put(keys.node_spec("n3"), NodeSpec())
        await eventually(lambda: spread(cluster)["n2"] == 2, within_s=AFTER_S + 5)


@virtually
async def test_a_new_leader_waits_anew_and_goes_on_with_a_move_that_was_begun() -> None:
    async with leading() as cluster:
        await cluster.put(keys.SCHEDULER, SchedulerRecord(rebalance_after_s=AFTER_S))
        await cluster.add_node("n1")
        await cluster.add_workload(build_workload(replicas=4, placement=SPREAD))
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(1, cluster.committer)):
            async with running(obey(cluster)):
                await eventually(lambda: spread(cluster) == {"n1": 4})
                await cluster.add_node("n2")
                await asyncio.sleep(AFTER_S - 5)
            await eventually(lambda: spread(cluster) == {"n1": 4, "n2": 1}, within_s=10)
        async with running(orchestrator.run(2, cluster.committer), obey(cluster)):
            await eventually(lambda: spread(cluster) == {"n1": 3, "n2": 1}, within_s=5)
            assert await eventually(lambda: spread(cluster)["n2"] == 2, within_s=AFTER_S + 5) > AFTER_S - 10
