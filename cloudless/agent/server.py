"""The agent's own gRPC server: coordinators read task output here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from cloudless.agent.config import AgentLimits
from cloudless.agent.tasks import TaskRunner
from cloudless.errors import CloudlessError, NotFound, PortInUse, outcome_of
from cloudless.rpc.v1 import agent_pb2
from cloudless.rpc.v1.agent_pb2_grpc import AgentLogServiceServicer, add_AgentLogServiceServicer_to_server


class AgentLogs(AgentLogServiceServicer):
    """Implements AgentLogService on the node's executors."""

    def __init__(self, runner: TaskRunner) -> None:
        self._runner = runner

    async def ReadTaskLogs(
        self, request: agent_pb2.ReadTaskLogsRequest, context: Any
    ) -> AsyncIterator[agent_pb2.ReadTaskLogsResponse]:
        """Stream the newest attempt's output."""
        try:
            executor = self._runner.find_executor(request.task_id)
            if executor is None:
                raise NotFound(f"no task {request.task_id} on this node")
            tail_lines = max(-1, request.tail_lines)
            # A stream that is closed early must end the reader at once: it holds files open.
            async with aclosing(
                executor.read_logs(request.task_id, tail_lines=tail_lines, follow=request.follow)
            ) as log:
                async for chunk in log:
                    yield agent_pb2.ReadTaskLogsResponse(stream=chunk.stream, data=chunk.data)
        except CloudlessError as error:
            await context.abort(getattr(grpc.StatusCode, outcome_of(type(error)).grpc_status), str(error))


async def start_server(address: str, runner: TaskRunner, limits: AgentLimits) -> tuple[grpc.aio.Server, int]:
    """Serve on `address` (host:port; port 0: any) and return the server and its port. Raises PortInUse."""
    server = grpc.aio.server(
        # Without this two agents share a port in silence.
        options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", limits.message_bytes_max)],
        maximum_concurrent_rpcs=limits.log_streams_max,
    )
    add_AgentLogServiceServicer_to_server(AgentLogs(runner), server)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _taken(address) from error
    if bound == 0 or (bound != int(address.rpartition(":")[2]) and not address.endswith(":0")):
        raise _taken(address)
    await server.start()
    return server, bound


def _taken(address: str) -> PortInUse:
    return PortInUse(
        f"cannot listen on {address} for the agent's gRPC server",
        hint="another process uses the port, or the address is not this host's: set CLOUDLESS_AGENT_ADDR",
    )
