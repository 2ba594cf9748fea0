"""Reports of tasks: the newest one is written, an older one never over it, and each is acknowledged when done with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cloudless.coordinator.reports import ReportWriter
from cloudless.core import keys
from cloudless.core.model import TaskState
from cloudless.ports import Delete, Txn
from cloudless.testing.faulty_store import ANSWER_LOST, REFUSED, REQUEST_LOST, Fault, always, script
from cloudless.testing.virtual_time import eventually, virtually
from tests.unit.leading import CLOCK, Cluster, leading, report

OBSERVED = keys.task_observed("t1")


@asynccontextmanager
async def reporting(node_id: str = "n1") -> AsyncIterator[tuple[Cluster, ReportWriter, list[tuple[str, int]]]]:
    async with leading() as cluster:
        await cluster.add_task("t1", "n1")
        await cluster.replica.linearize(timeout_s=5)
        done: list[tuple[str, int]] = []
        writer = ReportWriter(node_id, cluster.committer, cluster.replica, CLOCK, lambda *ack: done.append(ack))
        yield cluster, writer, done
        await writer.close()


def written(cluster: Cluster) -> int:
    """Return how often the task's report was written to the store."""
    return sum(event.kv.key == OBSERVED for event in cluster.memory._log)


def sequence(cluster: Cluster) -> int:
    task = cluster.replica.machine.tasks["t1"]
    return task.observed.sequence if task.observed else 0


@virtually
async def test_reports_that_come_while_one_is_written_are_conflated_to_the_newest() -> None:
    async with reporting() as (cluster, writer, done):
        cluster.store.choose = always(Fault(answer_delay_s=0.05))
        for number in range(1, 1001):
            writer.take(report("t1", number))
            await asyncio.sleep(0.001)
        await eventually(lambda: ("t1", 1000) in done)
        assert sequence(cluster) == 1000
        assert written(cluster) < 30
        assert [number for _, number in done] == sorted(number for _, number in done)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2), (3, 3, 3)])
@pytest.mark.parametrize("pause_s", [0.0, 0.01, 1.0])
@virtually
async def test_an_older_report_never_overwrites_a_newer_one(order: tuple[int, ...], pause_s: float) -> None:
    async with reporting() as (cluster, writer, done):
        cluster.store.choose = always(Fault(answer_delay_s=0.02))
        for number in order:
            writer.take(report("t1", number))
            await asyncio.sleep(pause_s)
        await eventually(lambda: ("t1", 3) in done)
        await asyncio.sleep(2)
        assert sequence(cluster) == 3
        assert written(cluster) <= 3


@virtually
async def test_two_coordinators_with_reports_of_one_task_keep_the_newest() -> None:
    async with reporting() as (cluster, newer, done):
        older = ReportWriter("n1", cluster.committer, cluster.replica, CLOCK, lambda *ack: done.append(ack))
        cluster.store.choose = script(ANSWER_LOST, REQUEST_LOST)
        older.take(report("t1", 4))
        newer.take(report("t1", 5, TaskState.FAILED))
        await eventually(lambda: {("t1", 4), ("t1", 5)} <= set(done))
        assert sequence(cluster) == 5


@pytest.mark.parametrize("fault", [REFUSED, REQUEST_LOST, ANSWER_LOST])
@virtually
async def test_a_report_is_kept_until_the_store_has_it(fault: Fault) -> None:
    async with reporting() as (cluster, writer, done):
        cluster.store.choose = always(fault)
        writer.take(report("t1", 1))
        await asyncio.sleep(15)
        assert not done or fault is ANSWER_LOST
        cluster.store.choose = script()
        await eventually(lambda: done == [("t1", 1)])
        assert (sequence(cluster), written(cluster)) == (1, 1)


@pytest.mark.parametrize(("task_id", "node_id"), [("unknown", "n1"), ("t1", "n2")])
@virtually
async def test_reports_of_unknown_tasks_and_of_other_nodes_tasks_are_done_with_unwritten(
    task_id: str, node_id: str
) -> None:
    async with reporting(node_id) as (cluster, writer, done):
        writer.take(report(task_id, 7, node_id=node_id))
        await eventually(lambda: done == [(task_id, 7)])
        assert not written(cluster)


@virtually
async def test_a_task_removed_while_its_report_is_on_the_way_ends_the_report() -> None:
    async with reporting() as (cluster, writer, done):
        cluster.store.choose = always(Fault(request_delay_s=0.2))
        writer.take(report("t1", 1))
        await asyncio.sleep(0.1)
        await cluster.memory.txn(Txn(then=(Delete(keys.task_desired("t1")),)), timeout_s=1)
        await eventually(lambda: done == [("t1", 1)])
        assert not written(cluster), "a report must not bring back what the leader has forgotten"


@virtually
async def test_tasks_do_not_wait_for_each_other_and_closing_ends_all() -> None:
    async with reporting() as (cluster, writer, done):
        for number in range(2, 52):
            await cluster.add_task(f"t{number}", "n1")
        await cluster.replica.linearize(timeout_s=5)
        cluster.store.transactions.clear()
        cluster.store.choose = always(Fault(answer_delay_s=0.05))
        for number in range(1, 52):
            writer.take(report(f"t{number}", 1))
        assert await eventually(lambda: len(done) == 51) < 0.3
        assert len(cluster.store.transactions) <= 3
        cluster.store.choose = always(REQUEST_LOST)
        writer.take(report("t1", 2))
        await asyncio.sleep(0.1)
        await asyncio.wait_for(writer.close(), 1)
        assert ("t1", 2) not in done
