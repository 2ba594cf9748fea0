"""The parts of a coordinator whose member votes, and what is built from what.

`Body` makes all parts and runs them; anything that ends by itself with an error ends them all. What
happens before there is a body, and how it is stopped, is `runtime`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial

from loguru import logger

from cloudless import __version__
from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.member.supervisor import Phase
from cloudless.adapters.system import RandomIds, SystemClock
from cloudless.coordinator.ailment import describe_ailment
from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.autopilot import AutopilotCalls
from cloudless.coordinator.api.backups import Backups
from cloudless.coordinator.api.cluster import Cluster
from cloudless.coordinator.api.events import Events
from cloudless.coordinator.api.exec import Execs
from cloudless.coordinator.api.logs import Logs
from cloudless.coordinator.api.maintenance import Maintenance
from cloudless.coordinator.api.members import MemberCalls
from cloudless.coordinator.api.names import Names
from cloudless.coordinator.api.nodes import Nodes
from cloudless.coordinator.api.rollouts import Rollouts
from cloudless.coordinator.api.scheduler import SchedulerCalls
from cloudless.coordinator.api.tasks import Tasks
from cloudless.coordinator.api.upgrade import UpgradeCalls
from cloudless.coordinator.api.usage import UsageCalls
from cloudless.coordinator.api.workloads import Workloads
from cloudless.coordinator.asking import ask_formation
from cloudless.coordinator.autopilot import Autopilot
from cloudless.coordinator.backups import BackupController, BackupMaker
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.commit_figures import CommitFigures
from cloudless.coordinator.controllers import ClusterNamer, Controller, LivenessController
from cloudless.coordinator.credentials import OwnCredentials
from cloudless.coordinator.departure import REMOVED_HINT, Departure
from cloudless.coordinator.directory import Directory
from cloudless.coordinator.failover_trace import FailoverTrace
from cloudless.coordinator.feature_level import watch_level
from cloudless.coordinator.formation import Formation
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.hygiene import Hygiene, HygieneController
from cloudless.coordinator.inspection import Inspector
from cloudless.coordinator.leadership import Leadership, LeadershipSettings
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.coordinator.member_restart import MemberRestart
from cloudless.coordinator.membership import Members
from cloudless.coordinator.orchestrator import Orchestrator
from cloudless.coordinator.peer_stream import grpc_dial
from cloudless.coordinator.peers import Peers
from cloudless.coordinator.progress import ProgressNotes
from cloudless.coordinator.reaper import Reaper
from cloudless.coordinator.recorder import Recorder
from cloudless.coordinator.reliability import ReliabilityKeeper
from cloudless.coordinator.replica import Replica
from cloudless.coordinator.sessions import Sessions, SessionSettings
from cloudless.coordinator.space import SpaceWatch
from cloudless.coordinator.task_tally import TaskTally
from cloudless.coordinator.trust import Trust
from cloudless.coordinator.usage import UsageCollector
from cloudless.core import keys
from cloudless.core.discovery.addresses import reachable_at
from cloudless.core.model import CoordinatorRecord
from cloudless.core.versions import level_of
from cloudless.errors import CloudlessError, LeaseLost, MemberRemoved
from cloudless.observability.registry import ProcessMetrics
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.settings import CoordinatorSettings
from etcd.profiles import PROFILES

RESIGN_TIMEOUT_S = 1.5
REQUEST_KEPT_S = 600
EVENT_KEPT_S = 3600
MEMBER_PROBE_PERIOD_S = 2.0
REGISTER_RETRY_PAUSE_S = 0.1


class Body:
    """All parts of a coordinator whose member votes."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        formation: Formation,
        etcd_version: str,
        own: OwnCredentials,
        inspector: Inspector,
        metrics: ProcessMetrics,
    ) -> None:
        assert formation.supervisor is not None
        self.own = own
        self.settings, self.admin, self.supervisor = settings, formation.admin, formation.supervisor
        self._etcd_version = etcd_version
        self.clock, self.ids = SystemClock(), RandomIds()
        self.store = EtcdStore(settings.etcd_client_address, own.etcd_client)
        self.replica = Replica(self.store, self.clock, on_catch_up=metrics.observer("state_catch_up_seconds"))
        self.task_tally = TaskTally()
        self.committer = Committer(self.store, self.clock, figures=_figures(metrics, "users"))
        self.heard = HeardTable(self.clock)
        self.leases = RecordLeases(
            RollingLease(self.store, self.clock, kept_s=REQUEST_KEPT_S),
            RollingLease(self.store, self.clock, kept_s=EVENT_KEPT_S),
        )
        self._failover = FailoverTrace()
        self.leadership = Leadership(
            settings.node_id,
            self.store,
            self.replica,
            self.clock,
            self._lead,
            on_lease=self._register,
            settings=LeadershipSettings(lease_ttl_s=max(4, 2 * PROFILES[settings.profile].lease_ttl_min_s)),
            figures=_figures(metrics, "leader"),
            failover=self._failover,
        )
        self.peers = self._build_peers(formation)
        self._build_member_care(formation, inspector)
        self.notes = ProgressNotes(
            settings.node_id, formation.datadir.progress, formation.progress, self.members, self.replica
        )
        self.directory = Directory(formation.datadir.coordinators, self.replica, self.members, self.clock)
        self.sessions = Sessions(
            self.replica,
            self.committer,
            self.heard,
            self.clock,
            SessionSettings(coordinator_id=settings.node_id, heartbeat_period_s=settings.heartbeat_period_s),
            self.directory.told,
        )
        self.directory.on_change = self.sessions.tell_coordinators
        self.trust = Trust(
            settings, own, self.replica, self.committer, self.leases.events, self.clock, self.ids, self.members
        )
        self.orchestrator = Orchestrator(
            self.replica,
            self.clock,
            on_planned=metrics.observer("planning_seconds"),
            on_placed=metrics.observer("placing_seconds"),
        )
        self._started_ms = self.clock.wall_ms()
        self.services = self._build_services(formation)

    def _build_peers(self, formation: Formation) -> Peers:
        return Peers(
            self.settings.node_id,
            self.store,
            self.replica,
            self.heard,
            self.clock,
            lease_id=lambda: self.leadership.lease_id,
            voters=lambda: self.members.voters(),
            progress=formation.progress,
            ailment=lambda: describe_ailment(self.supervisor.state, self.replica.staleness_s),
            dial=grpc_dial(self.own.dialler),
            on_doubt=self._failover.doubted,
        )

    def _build_member_care(self, formation: Formation, inspector: Inspector) -> None:
        """Make what cares for the members of etcd and the room in them."""
        own = self.own
        self.members = Members(
            self.admin,
            self.replica,
            self.clock,
            self.peers.linked,
            ailments=self.peers.ailments,
            heard=formation.progress.heard.get,
            own=own,
        )
        self.departure = Departure(self.settings.node_id, self.replica, self.leadership, self.members, self.clock)
        self.autopilot = Autopilot(
            self.members, self.admin, self.replica, self.clock, ask=partial(ask_formation, own.dialler)
        )
        self.space = SpaceWatch(self.members, self.clock, self.settings.etcd_quota_mb << 20)
        self.hygiene = Hygiene(
            self.settings.node_id,
            self.store,
            self.admin,
            self.members,
            self.replica,
            inspector.inspect,
            self.clock,
            self._hand_over,
            own.dialler,
        )
        self.member_restart = MemberRestart(
            self.settings.node_id, self.supervisor, self.members, self._hand_over, self.clock
        )

    def _build_services(self, formation: Formation) -> dict[str, tuple[object, ...]]:
        """Return, by service, the objects whose methods serve it."""
        self.backups = BackupMaker(
            self.settings, self.store, self.replica, self.members, self.clock, formation.binary, __version__,
            self.trust.issuer.key_names,
        )  # fmt: skip
        access = Access(
            self.settings.node_id,
            self.replica,
            self.committer,
            self.leases,
            self.clock,
            self.ids,
            self.space.require_room,
        )
        members = MemberCalls(access, self.members, self.departure)
        usage = UsageCollector(
            self.settings.node_id, self.replica, self.sessions.usage, self.sessions.ask_usage, self.own.dialler
        )
        return {
            "cluster": (
                Cluster(access, self.leadership, self.members, self.peers, self.clock, __version__, self.space),
                members,
                AutopilotCalls(access, self.members, members),
                SchedulerCalls(access),
                UpgradeCalls(access, self.members),
            ),
            "names": (Names(access),),
            "nodes": (Nodes(access, self.heard.find_silence_s),),
            "workloads": (Workloads(access), Rollouts(access), Logs(access, self.own.dialler)),
            "tasks": (Tasks(access), Execs(access, self.own.dialler)),
            "usage": (UsageCalls(access, usage),),
            "events": (Events(access),),
            "sessions": (self.sessions,),
            "peers": (self.peers,),
            "maintenance": (Maintenance(access, self.hygiene, self.admin, self.space, self.own.dialler),),
            "backups": (Backups(access, self.backups),),
            "identity": self.trust.services(access),
        }

    async def run(self) -> None:
        """Run all parts until one fails or this is cancelled."""
        self.replica.listen(self.task_tally.on_applied)
        async with asyncio.TaskGroup() as group:
            for part in (self.replica, self.committer, self.members, self.peers, self.sessions, self.leadership):
                group.create_task(part.run(), name=type(part).__name__.lower())
            group.create_task(self.leases.run(self.clock), name="leases")
            group.create_task(self.trust.run(self.store, self.member_restart), name="trust")
            group.create_task(self.notes.run(self.clock), name="progress-notes")
            group.create_task(self.space.run(), name="space-watch")
            group.create_task(self.hygiene.run(), name="hygiene")
            group.create_task(self.directory.run(), name="directory")
            group.create_task(watch_level(self.replica, __version__), name="feature-level")
            group.create_task(self._supervise(), name="member-supervision")
            group.create_task(self._probe_member(), name="member-probe")

    async def _lead(self, term: int, committer: Committer) -> None:
        """Run the controllers of a term."""
        own_id, replica, clock = self.settings.node_id, self.replica, self.clock
        controllers: tuple[Controller, ...] = (
            ClusterNamer(own_id, replica, clock, self.ids, lambda: self.trust.issuer.cluster_id, level_of(__version__)),
            *self.trust.controllers(),
            LivenessController(
                replica, self.heard, clock, self.settings.node_timeout_s, self.settings.heartbeat_period_s
            ),
            self.orchestrator,
            Reaper(replica, clock),
            ReliabilityKeeper(replica, clock),
            self.autopilot,
            HygieneController(self.hygiene, self.space, clock),
            Recorder(own_id, replica, self.leases.events, clock, self.ids),
            BackupController(own_id, self.backups, replica, self.leases.events, clock, self.ids),
        )
        async with asyncio.TaskGroup() as group:
            for controller in controllers:
                group.create_task(controller.run(term, committer), name=type(controller).__name__.lower())
            await asyncio.sleep(0)  # now each has begun
            self._failover.step("running")
            self._failover.tell(term, own_id)

    async def _register(self, lease_id: int) -> None:
        """Tell the others where we are, for as long as our lease lives. Raises LeaseLost.

        Not given up while we hold the lease: a coordinator that nobody knows of is linked by nobody.
        """
        while self.leadership.lease_id == lease_id:
            try:
                return await self._write_record(lease_id)
            except LeaseLost:
                raise
            except CloudlessError as error:
                logger.debug("not registered yet: {}", error)
                await self.clock.sleep(REGISTER_RETRY_PAUSE_S)

    async def _write_record(self, lease_id: int) -> None:
        status = await self.admin.status()
        advertised = self.settings.advertise_address
        record = CoordinatorRecord(
            id=self.settings.node_id,
            api_address=advertised,
            http_address=reachable_at(self.settings.http_address, advertised),
            metrics_address=reachable_at(self.settings.metrics_address, advertised),
            raft_address=self.settings.raft_address,
            member_id=status.member_id,
            version=__version__,
            etcd_version=self._etcd_version,
            pid=os.getpid(),
            started_at_ms=self._started_ms,
        )
        put = Put(keys.coordinator(record.id), encode_record(record), lease_id)
        await self.store.txn(Txn(then=(put,)), timeout_s=2.0)

    async def _supervise(self) -> None:
        """Keep the member running. Raises MemberRemoved if the cluster has removed it."""
        await self.supervisor.run()
        if self.supervisor.state.phase is Phase.REMOVED:
            raise MemberRemoved(
                f"the cluster has removed the member of {self.settings.node_id}",
                hint=REMOVED_HINT,
            )

    async def _probe_member(self) -> None:
        """Say in the log when the member stops answering, and when it answers again."""
        answered = True
        while True:
            await self.clock.sleep(MEMBER_PROBE_PERIOD_S)
            answers = await self.supervisor.probe(1.0)
            if answers != answered:
                answered = answers
                logger.log(
                    "INFO" if answers else "WARNING", "etcd {}", "answers again" if answers else "does not answer"
                )

    async def _hand_over(self) -> None:
        """Let another coordinator lead, if this one does and there is another. Raises CloudlessError."""
        others = [id for id in self.replica.machine.coordinators if id != self.settings.node_id]
        if self.leadership.leading_term and any(self.peers.linked(id) for id in others):
            await self.leadership.transfer("", timeout_s=RESIGN_TIMEOUT_S)

    async def leave(self) -> None:
        """Hand over what others can take: agents, office, etcd's leadership."""
        self.sessions.shed_all("this coordinator is stopping")
        self.leadership.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESIGN_TIMEOUT_S):
                await self.leadership.stopped.wait()
        with contextlib.suppress(CloudlessError, TimeoutError):
            async with asyncio.timeout(RESIGN_TIMEOUT_S):
                await self.members.hand_raft_leadership_over()


def _figures(metrics: ProcessMetrics, writer: str) -> CommitFigures:
    """Return figures of a committer whose transactions go into the histograms, too."""

    size, duration = metrics.observer("commit_batch_changes", writer), metrics.observer("commit_seconds", writer)

    def observe(changes: int, took_s: float) -> None:
        size(changes)
        duration(took_s)

    return CommitFigures(on_transaction=observe)
