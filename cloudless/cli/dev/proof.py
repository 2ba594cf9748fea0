"""What must still be true after a fault: tasks untouched, every acknowledged write readable at every coordinator."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev import table
from cloudless.cli.dev.report import Ack
from cloudless.cli.dev.writer import ANNOTATION, NAMESPACE
from cloudless.cli.methods import GET_WORKLOAD, LIST_TASKS
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_LINEARIZABLE, ReadOptions
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest, ListTasksRequest

_READ_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A running task as it must be found again: attempt, and its process by pid and start time."""

    attempt: int
    pid: int
    start_ticks: int | None
    node_id: str
    addresses: tuple[tuple[str, int], ...]


async def running_tasks(client: AsyncClient, namespace: str, workload: str) -> dict[str, Running]:
    """Return the workload's running tasks by id."""
    request = ListTasksRequest(namespace=namespace, workload=workload)
    tasks = (await client.call(LIST_TASKS, request, timeout_s=_READ_TIMEOUT_S)).tasks
    return {
        t.desired.id: Running(
            t.observed.attempt, t.observed.pid, table.ticks(t.observed.pid), t.desired.node_id,
            tuple((t.observed.host or "127.0.0.1", port) for port in t.observed.ports.values()),
        )
        for t in tasks
        if t.state == "RUNNING"
    }  # fmt: skip


async def restarted_tasks(client: AsyncClient, namespace: str, workload: str, before: dict[str, Running]) -> list[str]:
    """Return the tasks of `before` that are gone, changed, or whose process is another one now."""
    now = await running_tasks(client, namespace, workload)
    found = []
    for task_id, was in before.items():
        seen = now.get(task_id)
        if seen is None:
            found.append(f"{task_id} does not run any more")
        elif (seen.attempt, seen.pid) != (was.attempt, was.pid):
            found.append(f"{task_id} was attempt {was.attempt} pid {was.pid}, is attempt {seen.attempt} pid {seen.pid}")
        elif table.ticks(was.pid) is None or table.ticks(was.pid) != was.start_ticks:
            found.append(f"{task_id}: pid {was.pid} is gone or another process, though it is reported as running")
    return found


async def final_reads_lost(clients: dict[str, AsyncClient], last: dict[str, Ack]) -> list[str]:
    """Return where a linearizable read does not show the newest acknowledged write, or a later one."""
    found = []
    for coordinator_id, client in clients.items():
        for ack in last.values():
            text = await _read_back(client, ack)
            if text:
                found.append(f"{ack.name} value {ack.number} at revision {ack.revision}: {coordinator_id} {text}")
    return found


async def _read_back(client: AsyncClient, ack: Ack) -> str:
    request = GetWorkloadRequest(
        read=ReadOptions(consistency=CONSISTENCY_LINEARIZABLE), namespace=NAMESPACE, name=ack.name
    )
    try:
        read = (await client.call(GET_WORKLOAD, request, timeout_s=_READ_TIMEOUT_S)).workload
    except CloudlessError as error:
        return f"answers {error.code}: {error.message}"
    number = int(read.record.annotations.get(ANNOTATION, "0"))
    # The load goes on: a later value at a later revision is as good.
    if read.revision < ack.revision or number < ack.number:
        return f"has value {number} at revision {read.revision}"
    return ""
