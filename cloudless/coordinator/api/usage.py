"""UsageService: what nodes and tasks use now, through whichever coordinator is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.nodes import find_node
from cloudless.coordinator.api.workloads import find_workload
from cloudless.coordinator.usage import NODES_MAX, UsageCollector
from cloudless.core.state import Task, View
from cloudless.core.usage import UNKNOWN
from cloudless.errors import InvalidSpec, Problem
from cloudless.rpc.v1 import usage_pb2 as pb

_NOT_KNOWN = pb.Usage(cpu_millicores=UNKNOWN, memory_bytes=UNKNOWN)


class UsageCalls:
    """UsageService."""

    def __init__(self, access: Access, collector: UsageCollector) -> None:
        self._access, self._collector = access, collector

    async def ReadNodeUsage(self, request: pb.ReadNodeUsageRequest, context: Any) -> pb.ReadNodeUsageResponse:
        _check_count(request.node_ids)
        view = await self._access.settle(request.read, context)
        wanted = [find_node(view, node_id).id for node_id in request.node_ids] or sorted(view.nodes)
        found = await self._collector.collect(wanted)
        for usage in found.values():
            del usage.tasks[:]  # who may see nodes may not see every namespace
        return pb.ReadNodeUsageResponse(
            header=self._access.header(),
            nodes=[found[node_id] for node_id in wanted if node_id in found],
            silent_node_ids=[node_id for node_id in wanted if node_id not in found],
        )

    async def ReadTaskUsage(self, request: pb.ReadTaskUsageRequest, context: Any) -> pb.ReadTaskUsageResponse:
        view = await self._access.settle(request.read, context)
        tasks = [task for task in _choose(view, request) if not task.ended]
        nodes = sorted({task.desired.node_id for task in tasks})
        found = await self._collector.collect(nodes)
        used = {one.task_id: one.usage for usage in found.values() for one in usage.tasks}
        return pb.ReadTaskUsageResponse(
            header=self._access.header(),
            tasks=[_entry(task, used.get(task.id, _NOT_KNOWN)) for task in tasks],
            silent_node_ids=[node_id for node_id in nodes if node_id not in found],
        )

    async def CollectUsage(self, request: pb.CollectUsageRequest, context: Any) -> pb.CollectUsageResponse:
        _check_count(request.node_ids)
        return pb.CollectUsageResponse(nodes=await self._collector.collect_own(sorted(set(request.node_ids))))


def _choose(view: View, request: pb.ReadTaskUsageRequest) -> list[Task]:
    names: Iterable[str] = view.tasks
    if request.workload:
        workload = find_workload(view, request.namespace, request.workload).record
        names = view.tasks_of(workload.namespace, workload.name)
    tasks = (view.tasks[task_id] for task_id in sorted(names))
    chosen = [task for task in tasks if request.namespace in ("", task.desired.namespace) or request.workload]
    return sorted(chosen, key=lambda task: (task.desired.namespace, task.desired.workload, task.desired.slot, task.id))


def _entry(task: Task, usage: pb.Usage) -> pb.ReadTaskUsageResponse.Entry:
    desired = task.desired
    return pb.ReadTaskUsageResponse.Entry(
        task_id=task.id,
        namespace=desired.namespace,
        workload=desired.workload,
        slot=desired.slot,
        node_id=desired.node_id,
        usage=usage,
        cpu_limit_millicores=desired.spec.limits.cpu_millicores,
        memory_limit_mb=desired.spec.limits.memory_mb,
    )


def _check_count(node_ids: Iterable[str]) -> None:
    if len(list(node_ids)) > NODES_MAX:
        raise InvalidSpec([Problem("node_ids", f"at most {NODES_MAX}")])
