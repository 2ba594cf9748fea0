"""What a coordinator tells of itself: its host, its member, its settings, what it waits for.

Made for people in trouble, so it answers as long as the process runs: before there is a cluster, without a quorum, and
while its own etcd is silent, of which it then says so. Asked by the doctor, and by whoever makes room in the store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

from cloudless import __version__
from cloudless.adapters.etcd.admin import Member, MemberStatus
from cloudless.adapters.host.disk import FsyncTimes, measure_room
from cloudless.adapters.host.machine import open_files_max
from cloudless.core.redaction import redact_mapping
from cloudless.errors import CloudlessError
from cloudless.rpc.v1 import cluster_pb2
from cloudless.rpc.v1 import maintenance_pb2 as pb
from cloudless.settings import CoordinatorSettings

if TYPE_CHECKING:
    from cloudless.coordinator.body import Body
    from cloudless.coordinator.formation import Formation

STORE_TIMEOUT_S = 1.5
ROOM_TIMEOUT_S = 1.0


class Inspector:
    """Answers InspectCoordinator for one process; `body` is there once its member votes."""

    def __init__(self, settings: CoordinatorSettings, etcd_version: str, formation: Formation) -> None:
        self._settings, self._etcd_version, self._formation = settings, etcd_version, formation
        self._started_ms = int(time.time() * 1000)
        self.body: Body | None = None

    async def inspect(self) -> pb.InspectCoordinatorResponse:
        """Return everything there is to tell."""
        formation, settings = self._formation, self._settings
        answer = pb.InspectCoordinatorResponse(
            coordinator_id=settings.node_id,
            version=__version__,
            etcd_version=self._etcd_version,
            phase=formation.standing().phase,
            waiting_for="" if formation.done else formation.waiting_for,
            profile=settings.profile,
            started_at_ms=self._started_ms,
            open_files_max=max(0, open_files_max()),
            quota_hours_left=-1.0,
            settings=_plain_settings(settings),
        )
        await asyncio.gather(self._add_store(answer), self._add_disk(answer, formation.disk_speed))
        self._add_process(answer)
        if self.body is not None:
            _add_body(answer, self.body)
        answer.wall_ms = int(time.time() * 1000)  # last: whoever compares clocks knows when the answer came
        return answer

    async def _add_store(self, answer: pb.InspectCoordinatorResponse) -> None:
        if self._formation.supervisor is None:
            answer.store_error = "etcd has not been started yet"
            return
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                status = await self._formation.admin.status()
        except TimeoutError:
            answer.store_error = f"etcd gave no answer in {STORE_TIMEOUT_S:g} s"
        except CloudlessError as error:
            answer.store_error = error.message
        else:
            answer.store.CopyFrom(to_store_report(status, self._settings.etcd_quota_mb << 20))

    async def _add_disk(self, answer: pb.InspectCoordinatorResponse, speed: FsyncTimes | None) -> None:
        try:
            async with asyncio.timeout(ROOM_TIMEOUT_S):
                room = await asyncio.to_thread(measure_room, self._formation.datadir.path)
        except (OSError, TimeoutError):
            return
        answer.disk.CopyFrom(
            pb.DiskReport(
                free_bytes=room.free_bytes,
                total_bytes=room.total_bytes,
                free_inodes=room.free_inodes,
                total_inodes=room.total_inodes,
                fsync_p50_ms=speed.median_ms if speed else 0.0,
                fsync_p99_ms=speed.worst_ms if speed else 0.0,
            )
        )

    def _add_process(self, answer: pb.InspectCoordinatorResponse) -> None:
        if self._formation.supervisor is not None:
            state = self._formation.supervisor.state
            answer.etcd_phase = state.phase.value
            answer.etcd_restarts = state.restarts
            answer.etcd_last_exit, answer.etcd_last_words = state.last_exit, state.last_words


def _add_body(answer: pb.InspectCoordinatorResponse, body: Body) -> None:
    hours_left = body.space.hours_left
    answer.quota_hours_left = -1.0 if hours_left is None else hours_left
    answer.refuses_writes = body.space.shortage
    answer.hygiene = body.hygiene.said
    others = sorted(id for id in body.replica.machine.coordinators if id != body.settings.node_id)
    answer.linked.extend(id for id in others if body.peers.linked(id))
    answer.ailments.update(body.peers.ailments())
    leader_id = body.members.status.leader_id if body.members.status else 0
    answer.members.extend(to_member(member, leader_id) for member in body.members.list)


def to_store_report(status: MemberStatus, quota_bytes: int) -> pb.StoreReport:
    return pb.StoreReport(
        member_id=status.member_id,
        cluster_id=status.cluster_id,
        version=status.version,
        size_bytes=status.db_size_bytes,
        in_use_bytes=status.db_in_use_bytes,
        quota_bytes=quota_bytes,
        leader_id=status.leader_id,
        raft_term=status.raft_term,
        raft_index=status.raft_index,
        applied_index=status.raft_applied_index,
        learner=status.is_learner,
        revision=status.revision,
        alarms=[f"{alarm.kind} of {alarm.member_id:x}" for alarm in status.alarms],
    )


def to_member(member: Member, raft_leader_id: int) -> cluster_pb2.Member:
    return cluster_pb2.Member(
        id=member.id,
        name=member.name,
        peer_urls=member.peer_urls,
        client_urls=member.client_urls,
        learner=member.is_learner,
        started=bool(member.client_urls),
        raft_leader=member.id == raft_leader_id,
    )


def _plain_settings(settings: CoordinatorSettings) -> dict[str, str]:
    values = {field.name: str(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    return redact_mapping(values)
