"""A coordinator that does what a test tells it: a real gRPC server, no state machine behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from cloudless.core.model import Desired, ExecutorKind, RestartCondition, RestartPolicy, TaskDesired, TaskSpec
from cloudless.rpc.codec import to_message
from cloudless.rpc.v1 import agent_pb2, objects_pb2
from cloudless.rpc.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server

CLUSTER = "cluster-1"


def build_task(task_id: str, *command: str, **fields: Any) -> TaskDesired:
    """Return a task of node n1 that runs `command`; `fields` go to the task or its spec."""
    spec_names = TaskSpec.__dataclass_fields__.keys()
    spec: dict[str, Any] = {
        "executor": ExecutorKind.PROCESS,
        "command": command,
        "stop_grace_s": 1.0,
        "restart_policy": RestartPolicy(condition=RestartCondition.NEVER),
    }
    spec.update({name: value for name, value in fields.items() if name in spec_names})
    own = {name: value for name, value in fields.items() if name not in spec_names}
    made: dict[str, Any] = {
        "id": task_id, "namespace": "default", "workload": "web", "workload_uid": "u1", "task_generation": 1,
        "slot": 0, "node_id": "n1", "spec": TaskSpec(**spec), "desired": Desired.RUNNING,
    }  # fmt: skip
    return TaskDesired(**{**made, **own})


class AgentStream:
    """The coordinator's end of one session."""

    def __init__(self, hello: agent_pb2.AgentHello) -> None:
        self.hello = hello
        self.role = hello.role
        self.infos = [hello.info]
        self.changes: list[agent_pb2.ChangeRole] = []
        self.heartbeats = 0
        self.report_messages = 0
        self.open = True
        self.sequence = 0
        self.outbox: asyncio.Queue[agent_pb2.CoordinatorMessage | None] = asyncio.Queue()

    def send(self, **body: Any) -> None:
        self.outbox.put_nowait(agent_pb2.CoordinatorMessage(**body))

    def assign(
        self,
        *tasks: TaskDesired,
        revision: int,
        complete: bool = True,
        term: int = 1,
        skip: int = 0,
        removed: tuple[str, ...] = (),
    ) -> None:
        """Send assignments; `skip` leaves a gap in the sequence."""
        self.sequence += 1 + skip
        kind = agent_pb2.Assignments.COMPLETE if complete else agent_pb2.Assignments.INCREMENTAL
        self.send(
            assignments=agent_pb2.Assignments(
                kind=kind,
                sequence=self.sequence,
                revision=revision,
                term=term,
                tasks=[to_message(task, objects_pb2.TaskDesired) for task in tasks],
                removed_task_ids=removed,
            )
        )

    def end(self) -> None:
        self.outbox.put_nowait(None)

    @property
    def is_primary(self) -> bool:
        return self.role == agent_pb2.SESSION_ROLE_PRIMARY


class ScriptedCoordinator(AgentServiceServicer):
    """Welcomes every agent, acknowledges heartbeats and reports, and remembers all it was told.

    `peers` are told in the welcome; `mute` stops every answer; `ack_reports` may be turned off.
    """

    def __init__(self, coordinator_id: str, *, cluster_id: str = CLUSTER, period_s: float = 0.2) -> None:
        self.id = coordinator_id
        self.cluster_id = cluster_id
        self.period_s = period_s
        self.peers: list[str] = []
        self.mute = False
        self.ack_reports = True
        self.streams: list[AgentStream] = []
        self.reports: dict[str, list[objects_pb2.TaskObserved]] = {}
        self.on_primary: Callable[[AgentStream], None] = lambda stream: None
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str = "127.0.0.1:0") -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_AgentServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(address)
        assert port
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server:
            await self._server.stop(None)
            self._server = None

    @property
    def stream(self) -> AgentStream:
        """Return the newest session."""
        return self.streams[-1]

    @property
    def has_primary(self) -> bool:
        return any(stream.open and stream.is_primary for stream in self.streams)

    def newest(self, task_id: str) -> objects_pb2.TaskObserved | None:
        reports = self.reports.get(task_id)
        return max(reports, key=lambda report: report.sequence) if reports else None

    def state(self, task_id: str) -> str:
        report = self.newest(task_id)
        return objects_pb2.TaskState.Name(report.state).removeprefix("TASK_STATE_") if report else ""

    async def Session(self, messages: AsyncIterator[agent_pb2.AgentMessage], context: Any) -> AsyncIterator[Any]:
        first = await anext(messages)
        stream = AgentStream(first.hello)
        self.streams.append(stream)
        reading = asyncio.create_task(self._read(stream, messages))
        try:
            if not self.mute:
                yield agent_pb2.CoordinatorMessage(
                    welcome=agent_pb2.Welcome(
                        coordinator_id=self.id,
                        cluster_id=self.cluster_id,
                        heartbeat_period_s=self.period_s,
                        coordinator_addresses=self.peers,
                    )
                )
            while (message := await stream.outbox.get()) is not None:
                if not self.mute:
                    yield message
        finally:
            stream.open = False
            reading.cancel()

    async def _read(self, stream: AgentStream, messages: AsyncIterator[agent_pb2.AgentMessage]) -> None:
        async for message in messages:
            match message.WhichOneof("body"):
                case "heartbeat":
                    stream.heartbeats += 1
                    stream.send(heartbeat_ack=agent_pb2.HeartbeatAck(sequence=message.heartbeat.sequence))
                case "change_role":
                    stream.role = message.change_role.role
                    stream.changes.append(message.change_role)
                    stream.sequence = 0
                    self.on_primary(stream)
                case "info":
                    stream.infos.append(message.info)
                case "reports":
                    stream.report_messages += 1
                    self._take_reports(stream, message.reports.reports)

    def _take_reports(self, stream: AgentStream, reports: Any) -> None:
        for report in reports:
            self.reports.setdefault(report.task_id, []).append(report)
        if self.ack_reports:
            entry = agent_pb2.ReportsAck.Entry
            entries = [entry(task_id=report.task_id, sequence=report.sequence) for report in reports]
            stream.send(reports_ack=agent_pb2.ReportsAck(entries=entries))
