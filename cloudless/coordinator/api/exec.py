"""TaskService.ExecTask: commands beside tasks, through whichever coordinator was asked, by the task's own agent.

::

    person ──requests──► this coordinator ──the same──► agent ──► executor
           ◄─answers───                   ◄─the same──

A message goes on when the next side takes it, so nothing piles up here. Either side's end ends the other's, and so the
command. Who may do this may do anything that the task may: operators of its namespace, each time with an event. That
names the program alone: arguments may hold secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc.aio
from loguru import logger

from cloudless.adapters.grpc.channel import Dialler
from cloudless.coordinator.api.access import Access, Decided, deadline_s, not_found
from cloudless.coordinator.api.agents import open_agent
from cloudless.coordinator.api.caller import current_actor, require_namespace
from cloudless.core.plan import Change, Precondition
from cloudless.core.state import Task, View
from cloudless.errors import CloudlessError, Conflict, InvalidSpec, Problem, Unavailable
from cloudless.rpc.v1 import exec_pb2 as pb
from cloudless.rpc.v1.agent_pb2_grpc import AgentExecServiceStub
from cloudless.rpc.v1.common_pb2 import WriteOptions

EXECS_AT_ONCE_MAX = 100
"""Of one coordinator."""
FIRST_MESSAGE_S = 10.0
COMMAND_WORDS_MAX = 1_000
COMMAND_BYTES_MAX = 64 * 1024
INPUT_BYTES_MAX = 64 * 1024
PROGRAM_SHOWN_MAX = 100

Requests = AsyncIterator[pb.ExecTaskRequest]


class Execs:
    """The part of TaskService that runs commands."""

    def __init__(self, access: Access, dialler: Dialler, *, at_once_max: int = EXECS_AT_ONCE_MAX) -> None:
        self._access, self._dialler, self._at_once_max = access, dialler, at_once_max
        self._under_way = 0

    async def ExecTask(self, requests: Requests, context: Any) -> AsyncGenerator[pb.ExecTaskResponse, None]:
        """Run the command of the first message; the others are its input."""
        first = await _read_first(requests)
        await self._access.replica.linearize(timeout_s=deadline_s(context))
        task = self._find(first.start.task_id)
        if self._under_way >= self._at_once_max:
            raise Unavailable(f"{self._at_once_max} commands run through this coordinator", hint="ask another")
        self._under_way += 1
        try:
            async with open_agent(self._access.view, task, self._dialler) as channel:
                await self._record(task, first.start.command, context)
                call = AgentExecServiceStub(channel).ExecTask()  # type: ignore[no-untyped-call]
                async for answer in _relay(first, requests, call):
                    yield answer
        finally:
            self._under_way -= 1

    def _find(self, task_id: str) -> Task:
        task = self._access.view.tasks.get(task_id)
        if task is None:
            raise not_found("task", task_id)
        require_namespace(task.desired.namespace)
        if task.ended:
            raise Conflict(f"task {task_id} has ended", hint="`cloudless task list` shows what runs")
        return task

    async def _record(self, task: Task, command: Sequence[str], context: Any) -> None:
        """Write who runs what where, before it runs. Raises what a write does: what cannot be audited is not done."""
        program = command[0].rpartition("/")[2][:PROGRAM_SHOWN_MAX]
        words = f"runs {program!r} beside it on {task.desired.node_id}"
        logger.info("{} {}: task {task}", current_actor() or "somebody", words, task=task.id)

        def decide(view: View) -> Decided:
            event = self._access.event("TaskExec", f"task/{task.id}", words)
            return Decided(Change(puts=(event,), preconditions=(Precondition(event.key, 0),), reason="exec"), {})

        await self._access.write(WriteOptions(), task.id.encode(), decide, context, makes_room=True)


async def _relay(first: pb.ExecTaskRequest, requests: Requests, call: Any) -> AsyncGenerator[pb.ExecTaskResponse, None]:
    """Hand messages on both ways until the agent has said its last, or the caller says what cannot be."""
    sending = asyncio.create_task(_send(first, requests, call), name="exec-input")
    try:
        async for answer in call:
            yield answer
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        if sending.done() and not sending.cancelled() and isinstance(refusal := sending.exception(), CloudlessError):
            raise refusal from None
        raise
    finally:
        call.cancel()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(first: pb.ExecTaskRequest, requests: Requests, call: Any) -> None:
    """Send what the caller says to the agent; what cannot be said ends the call. Raises InvalidSpec, Denied."""
    try:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended: its reader knows why
            await call.write(first)
            async for request in requests:
                _check(request, first.start)
                await call.write(request)
            await call.done_writing()
    except CloudlessError:
        call.cancel()
        raise


async def _read_first(requests: Requests) -> pb.ExecTaskRequest:
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            first = await anext(requests)
    except (TimeoutError, StopAsyncIteration) as error:
        raise InvalidSpec([Problem("start", "must be given, in the first message")]) from error
    if first.WhichOneof("body") != "start":
        raise InvalidSpec([Problem("start", "must be given, in the first message")])
    if problems := list(_find_problems(first.start)):
        raise InvalidSpec(problems)
    return first


def _find_problems(start: pb.ExecStart) -> Iterator[Problem]:
    if not start.task_id:
        yield Problem("start.task_id", "must be given")
    if not start.command or not start.command[0]:
        yield Problem("start.command", "must be given: the program and its arguments")
    if len(start.command) > COMMAND_WORDS_MAX or sum(len(word) for word in start.command) > COMMAND_BYTES_MAX:
        yield Problem("start.command", f"has at most {COMMAND_WORDS_MAX} words and {COMMAND_BYTES_MAX} characters")
    if any("\0" in word for word in start.command):
        yield Problem("start.command", "must not contain NUL characters")


def _check(request: pb.ExecTaskRequest, start: pb.ExecStart) -> None:
    match request.WhichOneof("body"):
        case "start":
            raise InvalidSpec([Problem("start", "must be given once")])
        case "input" if not start.stdin:
            raise InvalidSpec([Problem("input", "was not asked for: start.stdin is not set")])
        case "input" if len(request.input) > INPUT_BYTES_MAX:
            raise InvalidSpec([Problem("input", f"has at most {INPUT_BYTES_MAX} bytes in one message")])
