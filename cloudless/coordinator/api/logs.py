"""Read the output of tasks: this coordinator dials the agents' own log service and merges what they say.

Which tasks is decided by `log_choice`; when followed, that is asked again with every change of the workload's tasks, so
that an update's new tasks, and attempts after a crash, are followed as they come. One agent that cannot be reached does
not hide the others' output: its part of the stream says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from loguru import logger

from cloudless.adapters.grpc.channel import Dialler
from cloudless.coordinator.api.access import Access, deadline_s, not_found
from cloudless.coordinator.api.agents import open_agent
from cloudless.coordinator.api.caller import require_namespace
from cloudless.coordinator.api.log_choice import Choice, Reading, find_readings, is_over
from cloudless.coordinator.api.workloads import find_workload
from cloudless.core.state import Applied
from cloudless.errors import CloudlessError, InvalidSpec, NotFound, Problem
from cloudless.rpc.v1 import agent_pb2
from cloudless.rpc.v1 import workload_pb2 as pb
from cloudless.rpc.v1.agent_pb2_grpc import AgentLogServiceStub

TAIL_LINES = 100
QUEUE_LENGTH_MAX = 64
LOOK_PAUSE_S = 0.2
"""A workload that changes all the time is looked at no more often."""
SINCE_MAX_S = 10 * 365 * 86_400.0


class Logs:
    """The part of WorkloadService that reads logs."""

    def __init__(self, access: Access, dialler: Dialler) -> None:
        self._access, self._dialler = access, dialler

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.ReadLogsResponse]:
        problems = list(_find_problems(request))
        if problems:
            raise InvalidSpec(problems)
        await self._access.replica.linearize(timeout_s=deadline_s(context))
        stream = _Stream(self._access, self._dialler, request, self._choose(request))
        stop_listening = self._access.replica.listen(stream.on_applied)
        try:
            async for part in stream.run():
                yield part
        finally:
            stop_listening()
            await stream.close()

    def _choose(self, request: pb.ReadLogsRequest) -> Choice:
        view = self._access.view
        if not request.task_id:
            workload = find_workload(view, request.namespace, request.workload).record
            return Choice(workload.namespace, workload.name, uid=workload.uid)
        task = view.tasks.get(request.task_id)
        if task is None:
            raise not_found("task", request.task_id)
        require_namespace(task.desired.namespace)
        return Choice(task.desired.namespace, task.desired.workload, task_id=task.id)


@dataclass(frozen=True, slots=True)
class _Ended:
    """Comes after the last part of a task's reader."""

    task_id: str


class _Stream:
    """One caller's stream: a reader for each task chosen, and one queue of what they read. None in it: look again."""

    def __init__(self, access: Access, dialler: Dialler, request: pb.ReadLogsRequest, choice: Choice) -> None:
        self._access, self._dialler, self._request, self._choice = access, dialler, request, choice
        self._queue: asyncio.Queue[pb.ReadLogsResponse | _Ended | None] = asyncio.Queue(QUEUE_LENGTH_MAX)
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._read: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._first = True

    def on_applied(self, applied: Applied) -> None:
        self._changed.set()

    async def run(self) -> AsyncIterator[pb.ReadLogsResponse]:
        """Yield parts until all is read, or for as long as there may be more to follow."""
        looking = asyncio.create_task(self._look_again()) if self._request.follow else None
        try:
            self._begin_readers()
            while self._readers or (self._request.follow and not is_over(self._access.view, self._choice, self._read)):
                part = await self._queue.get()
                if isinstance(part, pb.ReadLogsResponse):
                    yield part
                    continue
                if part is not None:
                    del self._readers[part.task_id]
                if self._request.follow:
                    self._begin_readers()
        finally:
            if looking is not None:
                looking.cancel()

    async def close(self) -> None:
        readers = list(self._readers.values())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    def _begin_readers(self) -> None:
        """Begin to read what is there to be read by now."""
        found = find_readings(self._access.view, self._choice, self._read, self._readers, first=self._first)
        self._first = False
        for reading in found:
            reader = asyncio.create_task(self._follow(reading), name=f"logs-{reading.task.id}")
            self._readers[reading.task.id] = reader

    async def _look_again(self) -> None:
        """Have the choice made again whenever the state has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._queue.put(None)
            await asyncio.sleep(LOOK_PAUSE_S)

    async def _follow(self, reading: Reading) -> None:
        task_id = reading.task.id
        self._read[task_id] = max(self._read.get(task_id, 0), reading.attempt)
        try:
            await self._pump(reading)
        except NotFound as error:
            if self._request.follow and not reading.begun:
                # It has no output yet: to be looked at again when it has begun.
                self._read[task_id] = reading.attempt - 1
            else:
                await self._say_error(task_id, str(error))
        except CloudlessError as error:
            await self._say_error(task_id, str(error))
        except Exception as error:  # the other tasks' logs go on; a cancelled reader has nobody to tell
            logger.exception("reading the logs of {task} failed", task=task_id)
            await self._say_error(task_id, repr(error))
        await self._queue.put(_Ended(task_id))

    async def _say_error(self, task_id: str, words: str) -> None:
        await self._queue.put(pb.ReadLogsResponse(task_id=task_id, stream="error", data=words.encode()))

    async def _pump(self, reading: Reading) -> None:
        request, task_id = self._request, reading.task.id
        async with open_agent(self._access.view, reading.task, self._dialler) as channel:
            call = AgentLogServiceStub(channel).ReadTaskLogs(  # type: ignore[no-untyped-call]
                agent_pb2.ReadTaskLogsRequest(
                    task_id=task_id,
                    tail_lines=-1 if reading.whole else request.tail_lines or (-1 if request.since_s else TAIL_LINES),
                    follow=request.follow,
                    since_s=request.since_s,
                    timestamps=request.timestamps,
                )
            )
            async for chunk in call:
                self._read[task_id] = max(self._read[task_id], chunk.attempt)
                await self._queue.put(
                    pb.ReadLogsResponse(task_id=task_id, stream=chunk.stream, data=chunk.data, at_ms=chunk.at_ms)
                )


def _find_problems(request: pb.ReadLogsRequest) -> list[Problem]:
    problems = []
    if request.tail_lines < -1:
        problems.append(Problem("tail_lines", "must be -1 (all kept), 0 (the default) or more"))
    if not 0 <= request.since_s <= SINCE_MAX_S:
        problems.append(Problem("since_s", f"must be seconds, from 0 to {SINCE_MAX_S:g}"))
    return problems
