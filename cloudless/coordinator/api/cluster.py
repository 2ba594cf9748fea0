"""ClusterService: status, digests, leadership. The members are `api.members'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloudless.coordinator.ailment import STALE_S
from cloudless.coordinator.api.access import Access, deadline_s
from cloudless.coordinator.leadership import Leadership
from cloudless.coordinator.membership import Members
from cloudless.coordinator.peers import Peers
from cloudless.coordinator.space import SpaceWatch
from cloudless.core.backup import describe_trouble, find_status
from cloudless.core.lifecycle import LIVE
from cloudless.core.model import BackupStatus, NodePhase, TaskState
from cloudless.core.orchestration import find_phase
from cloudless.errors import HistoryGone, InvalidSpec, NotFound, Problem, Unavailable
from cloudless.ports import Clock
from cloudless.rpc import codec
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import objects_pb2


@dataclass(frozen=True, slots=True)
class _Counts:
    """What is counted of a state: all of it is the same while nothing changes."""

    of: tuple[int, int]
    phases: tuple[NodePhase, ...]
    running: int
    total: int


class Cluster:
    """What ClusterService answers about the cluster as a whole."""

    def __init__(
        self,
        access: Access,
        leadership: Leadership,
        members: Members,
        peers: Peers,
        clock: Clock,
        version: str,
        space: SpaceWatch,
    ) -> None:
        self._access, self._leadership, self._members, self._peers = access, leadership, members, peers
        self._clock, self._version, self._space = clock, version, space
        self._counts: _Counts | None = None

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        machine = self._access.replica.machine
        queue = machine.candidates()
        leader_id = queue[0].record.coordinator_id if queue else ""
        counts = self._count()
        problems = self._problems(leader_id, counts.phases)
        etcd = self._members.status
        unavailable = self._access.replica.staleness_s > STALE_S
        return pb.GetStatusResponse(
            header=self._access.header(),
            health="unavailable" if unavailable else ("degraded" if problems else "ok"),
            problems=problems,
            coordinators=[
                pb.CoordinatorStatus(
                    record=codec.to_message(record, objects_pb2.CoordinatorRecord),
                    leader=record.id == leader_id,
                    linked=self._peers.linked(record.id),
                    member_role=self._members.role_of(record.id),
                )
                for record in sorted(machine.coordinators.values(), key=lambda record: record.id)
            ],
            nodes_total=len(counts.phases),
            nodes_ready=sum(phase is NodePhase.READY for phase in counts.phases),
            workloads_total=len(machine.workloads),
            tasks_running=counts.running,
            tasks_total=counts.total,
            digest=f"{machine.digest:032x}",
            quarantined=len(machine.quarantined),
            quarantine={entry.key: entry.reason for entry in list(machine.quarantined.values())[:20]},
            etcd_cluster_id=etcd.cluster_id if etcd else 0,
            etcd_leader_member_id=etcd.leader_id if etcd else 0,
            etcd_raft_term=etcd.raft_term if etcd else 0,
            etcd_db_bytes=etcd.db_size_bytes if etcd else 0,
            etcd_version=etcd.version if etcd else "",
            version=self._version,
            feature_level=machine.cluster.feature_level if machine.cluster else "",
            etcd_db_in_use_bytes=etcd.db_in_use_bytes if etcd else 0,
            etcd_quota_bytes=self._space.quota_bytes,
            quota_hours_left=-1.0 if self._space.hours_left is None else self._space.hours_left,
            backup=_to_backup_message(find_status(machine)),
        )

    def _count(self) -> _Counts:
        """Return the sums, counted once per revision: whoever looks at a page asks every second, or several do."""
        replica = self._access.replica
        now = (replica.machine.revision, replica.resets_total)
        if self._counts is None or self._counts.of != now:
            machine = replica.machine
            states = Counter(task.state for task in machine.tasks.values())
            total = sum(count for state, count in states.items() if state is None or state in LIVE)
            phases = tuple(find_phase(machine, node_id) for node_id in machine.nodes)
            self._counts = _Counts(now, phases, states[TaskState.RUNNING], total)
        return self._counts

    def _problems(self, leader_id: str, phases: Sequence[NodePhase]) -> list[str]:
        machine = self._access.replica.machine
        ailments = self._peers.ailments()
        found = [f"{coordinator_id} {said}" for coordinator_id, said in sorted(ailments.items())]
        if not leader_id:
            found.append("there is no leader at the moment")
        backups = describe_trouble(machine, self._clock.wall_ms())
        if backups:
            found.append(backups)
        voters = self._members.voters()
        silent = sorted(voter for voter in voters if voter not in ailments and not self._peers.linked(voter))
        if silent:
            found.append(f"no answer from {', '.join(silent)}")
        if len(voters) in (1, 2):
            found.append(f"{len(voters)} voter(s): the loss of one stops the cluster; three survive it")
        offline = sum(phase is NodePhase.OFFLINE for phase in phases)
        if offline:
            found.append(f"{offline} of {len(phases)} nodes offline")
        if machine.quarantined:
            found.append(f"{len(machine.quarantined)} stored values cannot be read and are ignored")
        if self._space.shortage:
            found.append(f"users' writes are refused: {self._space.shortage}")
        found.extend(f"etcd: {error}" for error in (self._members.status.errors if self._members.status else ()))
        return found

    async def GetDigest(self, request: pb.GetDigestRequest, context: Any) -> pb.GetDigestResponse:
        replica = self._access.replica
        if request.revision < 0:
            raise InvalidSpec([Problem("revision", "must not be negative")])
        if request.revision:
            await replica.wait_for(request.revision, timeout_s=deadline_s(context))
        revision = request.revision or replica.machine.revision
        digest = replica.find_digest(revision)
        if digest is None:
            raise HistoryGone(f"the digest of revision {revision} is no longer known", hint="ask for a newer revision")
        return pb.GetDigestResponse(
            header=self._access.header(),
            revision=revision,
            digest=f"{digest:032x}",
            entries=replica.machine.entry_count,
        )

    async def TransferLeader(self, request: pb.TransferLeaderRequest, context: Any) -> pb.TransferLeaderResponse:
        """Answer once the new leader is known here."""
        replica = self._access.replica
        await replica.linearize(timeout_s=deadline_s(context))
        target = request.to_coordinator_id
        if target and target not in replica.machine.coordinators:
            raise NotFound(f"there is no coordinator {target}", hint="see cloudless cluster status")
        before = replica.machine.candidates()
        if before and target == before[0].record.coordinator_id:
            return self._transferred()
        await self._leadership.transfer(target, timeout_s=2.0)
        ends_s = self._clock.monotonic_s() + deadline_s(context)
        while not self._moved(before[0].term if before else 0):
            if self._clock.monotonic_s() > ends_s:
                raise Unavailable("the old leader has left, the new one is not seen yet")
            await self._clock.sleep(0.005)
        return self._transferred()

    def _moved(self, old_term: int) -> bool:
        queue = self._access.replica.machine.candidates()
        return bool(queue) and queue[0].term > old_term

    def _transferred(self) -> pb.TransferLeaderResponse:
        header = self._access.header()
        return pb.TransferLeaderResponse(header=header, leader_id=header.leader_id, term=header.term)


def _to_backup_message(status: BackupStatus | None) -> objects_pb2.BackupStatus | None:
    message: objects_pb2.BackupStatus | None = (
        None if status is None else codec.to_message(status, objects_pb2.BackupStatus)
    )
    return message
