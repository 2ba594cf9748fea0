"""A large, quiet cluster's records, written straight into etcd: nodes, workloads, tasks and their reports.

Everything fits together (each task has its workload, its node and a report that it runs), so a leader that finds
them has nothing to do but to note that no agent stands behind these nodes; their workloads wait an hour for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.core import keys
from cloudless.core.model import (
    NodeInfo,
    Port,
    Record,
    Resources,
    TaskDesired,
    TaskObserved,
    TaskSpec,
    TaskState,
    WorkloadRecord,
    WorkloadSpec,
)
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record

TASKS_A_WORKLOAD = 100
NODES = 100
_STARTED_MS = 1_700_000_000_000
_SPEC = TaskSpec(
    command=("python3", "-u", "serve.py"),
    args=("--listen", "$(CLOUDLESS_PORT_HTTP)"),
    env={"LOG_LEVEL": "info", "POOL_SIZE": "16"},
    ports=(Port(name="http"),),
    requests=Resources(cpu_millicores=10, memory_mb=16),
)


async def populate(endpoint: str, tasks: int) -> None:
    """Write `tasks` tasks and what belongs to them through the member at `endpoint`."""
    store = EtcdStore(endpoint)
    try:
        for together in _records(tasks):
            puts = tuple(Put(key, encode_record(record)) for key, record in together)
            await store.txn(Txn(then=puts), timeout_s=30.0)
    finally:
        await store.close()


def report(task: int, sequence: int) -> tuple[str, TaskObserved]:
    """Return a report of a running task, and its key."""
    record = TaskObserved(
        task_id=task_id(task), node_id=_node(task), sequence=sequence, state=TaskState.RUNNING, attempt=1,
        pid=1000 + task % 30_000, host="127.0.0.1", ports={"http": 20_000 + task % 10_000}, started_at_ms=_STARTED_MS,
    )  # fmt: skip
    return keys.task_observed(record.task_id), record


def task_id(task: int) -> str:
    return f"load-{task // TASKS_A_WORKLOAD:04d}-{task % TASKS_A_WORKLOAD:03d}-0000000"


def _records(tasks: int) -> Iterator[list[tuple[str, Record]]]:
    """Give what belongs in one transaction.

    A leader must see neither a workload without its tasks, which it would make, nor tasks without their workload,
    which it would stop.
    """
    yield list(_nodes())
    for first in range(0, tasks, TASKS_A_WORKLOAD):
        numbers = range(first, min(first + TASKS_A_WORKLOAD, tasks))
        tasks_and_reports = [pair for task in numbers for pair in (_desired(task), report(task, 1))]
        yield [*tasks_and_reports, _workload(first, len(numbers))]


def _nodes() -> Iterator[tuple[str, Record]]:
    for n in range(NODES):
        node = NodeInfo(
            id=_node(n), name=_node(n), zone=f"zone-{n % 3}", address="127.0.0.1:1", executors=("process",),
            capacity=Resources(cpu_millicores=100_000, memory_mb=100_000), enrolled_at_ms=_STARTED_MS,
        )  # fmt: skip
        yield keys.node_info(node.id), node


def _desired(task: int) -> tuple[str, Record]:
    record = TaskDesired(
        id=task_id(task), namespace="load", workload=_workload_name(task), workload_uid=f"uid-{_workload_name(task)}",
        task_generation=1, slot=task % TASKS_A_WORKLOAD, node_id=_node(task), spec=_SPEC, term=1,
        reason="replica missing", created_at_ms=_STARTED_MS,
    )  # fmt: skip
    return keys.task_desired(record.id), record


def _workload(first: int, replicas: int) -> tuple[str, Record]:
    name, made_ms = _workload_name(first), time.time_ns() // 1_000_000
    spec = WorkloadSpec(
        command=_SPEC.command, args=_SPEC.args, env=_SPEC.env, ports=_SPEC.ports, requests=_SPEC.requests,
        replicas=replicas, lost_after_s=3600.0,
    )  # fmt: skip
    record = WorkloadRecord(
        namespace="load", name=name, uid=f"uid-{name}", spec=spec, created_at_ms=made_ms, updated_at_ms=made_ms
    )
    return keys.workload("load", name), record


def _node(number: int) -> str:
    return f"load-{number % NODES:03d}"


def _workload_name(task: int) -> str:
    return f"load-{task // TASKS_A_WORKLOAD:04d}"
