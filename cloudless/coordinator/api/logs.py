"""ReadLogs: output of tasks, fetched from the agents they run on, merged into one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from loguru import logger

from cloudless.adapters.grpc.channel import Dialler
from cloudless.coordinator.api.access import Access, deadline_s, not_found
from cloudless.coordinator.api.agents import open_agent
from cloudless.coordinator.api.caller import require_namespace
from cloudless.coordinator.api.workloads import find_workload
from cloudless.core.state import Task
from cloudless.errors import CloudlessError, InvalidSpec, Problem
from cloudless.rpc.v1 import agent_pb2
from cloudless.rpc.v1 import workload_pb2 as pb
from cloudless.rpc.v1.agent_pb2_grpc import AgentLogServiceStub

TAIL_LINES = 100
TASKS_AT_ONCE_MAX = 50
QUEUE_LENGTH_MAX = 64


class Logs:
    """Reads logs through the agents' own log service."""

    def __init__(self, access: Access, dialler: Dialler) -> None:
        self._access, self._dialler = access, dialler

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.ReadLogsResponse]:
        if request.tail_lines < -1:
            raise InvalidSpec([Problem("tail_lines", "must be -1 (all kept), 0 (the default) or more")])
        await self._access.replica.linearize(timeout_s=deadline_s(context))
        tasks = self._choose(request)
        queue: asyncio.Queue[pb.ReadLogsResponse | None] = asyncio.Queue(QUEUE_LENGTH_MAX)
        readers = [asyncio.create_task(self._read(task, request, queue), name=f"logs-{task.id}") for task in tasks]
        try:
            left = len(readers)
            while left:
                chunk = await queue.get()
                if chunk is None:
                    left -= 1
                else:
                    yield chunk
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    def _choose(self, request: pb.ReadLogsRequest) -> list[Task]:
        view = self._access.view
        if request.task_id:
            task = view.tasks.get(request.task_id)
            if task is None:
                raise not_found("task", request.task_id)
            require_namespace(task.desired.namespace)
            return [task]
        workload = find_workload(view, request.namespace, request.workload).record
        tasks = [view.tasks[task_id] for task_id in sorted(view.tasks_of(workload.namespace, workload.name))]
        live = [task for task in tasks if task.observed is not None and not task.ended]
        return (live or [task for task in tasks if task.observed is not None])[:TASKS_AT_ONCE_MAX]

    async def _read(
        self, task: Task, request: pb.ReadLogsRequest, queue: asyncio.Queue[pb.ReadLogsResponse | None]
    ) -> None:
        try:
            await self._pump(task, request, queue)
        except CloudlessError as error:
            await queue.put(pb.ReadLogsResponse(task_id=task.id, stream="error", data=str(error).encode()))
        except Exception as error:  # the other tasks' logs go on; a cancelled reader has nobody to tell
            logger.exception("reading the logs of {} failed", task.id)
            await queue.put(pb.ReadLogsResponse(task_id=task.id, stream="error", data=repr(error).encode()))
        await queue.put(None)

    async def _pump(
        self, task: Task, request: pb.ReadLogsRequest, queue: asyncio.Queue[pb.ReadLogsResponse | None]
    ) -> None:
        async with open_agent(self._access.view, task, self._dialler) as channel:
            call = AgentLogServiceStub(channel).ReadTaskLogs(  # type: ignore[no-untyped-call]
                agent_pb2.ReadTaskLogsRequest(
                    task_id=task.id, tail_lines=request.tail_lines or TAIL_LINES, follow=request.follow
                )
            )
            async for chunk in call:
                await queue.put(pb.ReadLogsResponse(task_id=task.id, stream=chunk.stream, data=chunk.data))
