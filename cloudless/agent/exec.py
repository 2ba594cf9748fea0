"""Run commands beside tasks for coordinators: one call is one command, and ends with it.

Output goes out as fast as it is taken, input comes in as fast as the command reads; nothing piles up in between. When
the call ends, from whichever side, the executor ends the command and all it started.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from cloudless.agent.tasks import TaskRunner
from cloudless.errors import InvalidSpec, NotFound, Problem
from cloudless.ports import ExecRequest, Execution, Executor, TerminalSize
from cloudless.rpc.v1 import agent_pb2, exec_pb2

SERVICE = agent_pb2.DESCRIPTOR.services_by_name["AgentExecService"]
FIRST_MESSAGE_S = 10.0


class AgentExec:
    """Implements AgentExecService on the node's executors."""

    def __init__(self, node_id: str, runner: TaskRunner) -> None:
        self._node_id, self._runner = node_id, runner

    async def ExecTask(
        self, requests: AsyncIterator[exec_pb2.ExecTaskRequest], context: Any
    ) -> AsyncGenerator[exec_pb2.ExecTaskResponse, None]:
        """Run the command of the first message; the others are its input."""
        start = await read_start(requests)
        executor, request = self._build(start)
        async with executor.exec(request) as execution:
            started = exec_pb2.ExecStarted(task_id=start.task_id, node_id=self._node_id)
            yield exec_pb2.ExecTaskResponse(started=started)
            feeding = asyncio.create_task(_feed(requests, execution), name="exec-input")
            try:
                async with aclosing(execution.output()) as output:
                    async for chunk in output:
                        said = exec_pb2.ExecOutput(stream=chunk.stream, data=chunk.data)
                        yield exec_pb2.ExecTaskResponse(output=said)
                yield exec_pb2.ExecTaskResponse(exit_code=await execution.wait())
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    def _build(self, start: exec_pb2.ExecStart) -> tuple[Executor, ExecRequest]:
        task = self._runner.tasks.get(start.task_id)
        where = self._runner.surroundings_of(task) if task is not None else None
        if where is None:
            raise NotFound(f"no task {start.task_id} runs on this node")
        terminal = to_size(start.terminal) if start.HasField("terminal") else None
        return where.executor, ExecRequest(
            attempt=where.request, command=tuple(start.command), stdin=start.stdin, terminal=terminal
        )


async def read_start(requests: AsyncIterator[exec_pb2.ExecTaskRequest]) -> exec_pb2.ExecStart:
    """Return what the first message starts. Raises InvalidSpec if it does not come, or starts nothing."""
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            first = await anext(requests)
    except (TimeoutError, StopAsyncIteration) as error:
        raise InvalidSpec([Problem("start", "must be given, in the first message")]) from error
    if first.WhichOneof("body") != "start":
        raise InvalidSpec([Problem("start", "must be given, in the first message")])
    return first.start


def to_size(size: exec_pb2.TerminalSize) -> TerminalSize:
    """Return a terminal's size; what cannot be one is the default."""
    standard = TerminalSize()
    columns = size.columns if 0 < size.columns < 2**16 else standard.columns
    rows = size.rows if 0 < size.rows < 2**16 else standard.rows
    return TerminalSize(columns, rows)


async def _feed(requests: AsyncIterator[exec_pb2.ExecTaskRequest], execution: Execution) -> None:
    """Hand on the input, and its end; a caller that sends no more has ended it."""
    async for message in requests:
        match message.WhichOneof("body"):
            case "input" if message.input:
                await execution.write(message.input)
            case "end_of_input":
                await execution.write(b"")
            case "resize":
                await execution.resize(to_size(message.resize))
    await execution.write(b"")
