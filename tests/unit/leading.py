"""A coordinator's state, group commit and controllers over a store in memory, without an election: term 1, no fence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import (
    NodeStatus,
    Reachability,
    Record,
    TaskDesired,
    TaskObserved,
    TaskState,
    WorkloadRecord,
)
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.testing.builders import build_node, build_task_template
from cloudless.testing.faulty_store import FaultyStore
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import VirtualClock, running

CLOCK = VirtualClock()


class Cluster:
    """What a test writes and reads directly, past the coordinator under test."""

    def __init__(self) -> None:
        self.memory = MemoryStore(CLOCK.monotonic_s)
        self.store = FaultyStore(self.memory)
        self.replica = Replica(self.store, CLOCK)
        self.committer = Committer(self.store, CLOCK)

    async def put(self, key: str, record: Record) -> int:
        return (await self.memory.txn(Txn(then=(Put(key, encode_record(record)),)), timeout_s=1)).revision

    async def add_node(self, node_id: str) -> None:
        await self.put(keys.node_info(node_id), build_node(node_id))
        await self.set_reachable(node_id, True)

    async def set_reachable(self, node_id: str, reachable: bool) -> None:
        found = Reachability.REACHABLE if reachable else Reachability.UNREACHABLE
        await self.put(keys.node_status(node_id), NodeStatus(reachability=found))

    async def add_workload(self, record: WorkloadRecord) -> None:
        await self.put(keys.workload(record.namespace, record.name), record)

    async def add_task(self, task_id: str, node_id: str) -> None:
        desired = TaskDesired(
            id=task_id, namespace="default", workload="web", workload_uid="uid-1", task_generation=1, slot=0,
            node_id=node_id, spec=build_task_template(),
        )  # fmt: skip
        await self.put(keys.task_desired(task_id), desired)

    def wanted(self) -> dict[str, str]:
        """Return the node of each task that is to run."""
        return {task.id: task.desired.node_id for task in self.replica.machine.tasks.values() if task.wanted}

    def unreachable(self) -> set[str]:
        return {
            node.id
            for node in self.replica.machine.nodes.values()
            if node.status is not None and node.status.reachability is Reachability.UNREACHABLE
        }


def report(task_id: str, sequence: int, state: TaskState = TaskState.RUNNING, node_id: str = "n1") -> TaskObserved:
    return TaskObserved(task_id=task_id, node_id=node_id, sequence=sequence, state=state)


@asynccontextmanager
async def leading() -> AsyncIterator[Cluster]:
    """Run a replica and a committer over a new store."""
    cluster = Cluster()
    async with running(cluster.replica.run(), cluster.committer.run()):
        await cluster.replica.loaded.wait()
        yield cluster
