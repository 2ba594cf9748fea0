"""The agent's own gRPC server: coordinators read task output here, and run commands beside tasks."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from cloudless.adapters.grpc.server import GrpcServer
from cloudless.adapters.pki.certificate import read_peer
from cloudless.adapters.system import SystemClock
from cloudless.agent.config import AgentLimits
from cloudless.agent.exec import SERVICE as EXEC_SERVICE
from cloudless.agent.exec import AgentExec
from cloudless.agent.tasks import TaskRunner
from cloudless.core.identity.names import IdentityKind
from cloudless.errors import Denied, NotFound
from cloudless.ports import CredentialSource, LogQuery
from cloudless.rpc.v1 import agent_pb2

SERVICE = agent_pb2.DESCRIPTOR.services_by_name["AgentLogService"]


class AgentLogs:
    """Implements AgentLogService on the node's executors."""

    def __init__(self, runner: TaskRunner) -> None:
        self._runner, self._clock = runner, SystemClock()

    async def ReadTaskLogs(
        self, request: agent_pb2.ReadTaskLogsRequest, context: Any
    ) -> AsyncIterator[agent_pb2.ReadTaskLogsResponse]:
        """Stream the newest attempt's output."""
        executor = self._runner.find_executor(request.task_id)
        if executor is None:
            raise NotFound(f"no task {request.task_id} on this node")
        since_ms = round(self._clock.wall_ms() - request.since_s * 1000) if request.since_s > 0 else 0
        query = LogQuery(
            tail_lines=max(-1, request.tail_lines),
            follow=request.follow,
            since_ms=max(0, since_ms),
            timestamps=request.timestamps,
        )
        async with aclosing(executor.read_logs(request.task_id, query)) as log:
            async for chunk in log:
                yield agent_pb2.ReadTaskLogsResponse(
                    stream=chunk.stream, data=chunk.data, attempt=chunk.attempt, at_ms=chunk.at_ms
                )


class _CoordinatorsOnly:
    """The door of an agent: it knows no records, and answers coordinators of its cluster."""

    def enter(self, method: str, context: Any) -> None:
        shown = context.auth_context().get("x509_pem_cert") or (b"",)
        caller = read_peer(bytes(shown[0])).identity
        if caller.kind is not IdentityKind.COORDINATOR:
            raise Denied(f"{caller.subject} may not call {method}: an agent answers coordinators only")

    def check(self, method: str, message: Any, context: Any) -> None:
        return None


async def start_server(
    address: str, node_id: str, runner: TaskRunner, limits: AgentLimits, credentials: CredentialSource | None = None
) -> tuple[GrpcServer, int]:
    """Serve on `address` (host:port; port 0: any) and return the server and its port. Raises PortInUse.

    With credentials only coordinators are answered.
    """
    server = GrpcServer(
        address,
        node_id,
        rpcs_at_once_max=limits.log_streams_max + limits.execs_max,
        credentials=credentials,
        door=_CoordinatorsOnly() if credentials else None,
    )
    server.add(SERVICE, functools.partial(getattr, AgentLogs(runner)))
    server.add(EXEC_SERVICE, functools.partial(getattr, AgentExec(node_id, runner)))
    port = await server.start()
    await server.set_serving(True)
    return server, port
