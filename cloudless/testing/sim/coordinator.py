"""A coordinator's production parts, put together as `coordinator.body` does, without etcd's process and gRPC.

`CoordinatorLife` is one life of the process; what it tells the world (`tell`) is seen from outside its parts: what
its state applied, when its leader scope began and ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.nodes import Nodes
from cloudless.coordinator.api.rollouts import Rollouts
from cloudless.coordinator.api.workloads import Workloads
from cloudless.coordinator.body import EVENT_KEPT_S, REGISTER_RETRY_PAUSE_S, REQUEST_KEPT_S, RESIGN_TIMEOUT_S
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import ClusterNamer, Controller, LivenessController
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.leadership import Leadership, LeadershipSettings
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.coordinator.orchestrator import Orchestrator
from cloudless.coordinator.peer_stream import LinkBroken, PeerStream
from cloudless.coordinator.peers import Peers, PeerSettings
from cloudless.coordinator.reaper import Reaper
from cloudless.coordinator.recorder import Recorder
from cloudless.coordinator.reliability import ReliabilityKeeper
from cloudless.coordinator.replica import Replica
from cloudless.coordinator.sessions import Sessions, SessionSettings
from cloudless.core import keys
from cloudless.core.model import CoordinatorRecord
from cloudless.core.state import Applied
from cloudless.errors import CloudlessError, LeaseLost, MemberRemoved, Unavailable
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.testing.sim.clock import SimClock, SimIds
from cloudless.testing.sim.happenings import LeftOffice, SawRevision, Tell, TookOffice
from cloudless.testing.sim.loop import Process, SimLoop
from cloudless.testing.sim.member_care import MemberCare
from cloudless.testing.sim.network import Network
from cloudless.testing.sim.papers import AgentPapers, CoordinatorPapers
from cloudless.testing.sim.store import SimStore, StoreHost
from cloudless.testing.sim.streams import Connection, Ended

if TYPE_CHECKING:
    from cloudless.agent.phonebook import Seeds
    from cloudless.testing.sim.agent import AgentLife

PEER_BEAT_PERIOD_S = 0.5
"""Twice the usual: links are most of what a quiet cluster does."""
Connect = Callable[[Process, str, str], Connection]
"""Opens a stream of a process to `service` (second) at a coordinator's address (first)."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a life finds: the world's parts it is given. `peers` are the ids of the coordinators that begin.

    `address_of` a coordinator's id is where it can be dialled, `build_seeds` makes an agent's seeds. `find_care` and
    `find_papers` make what cares for a coordinator's members and certificates, None where these are no subject;
    `on_removed` is told of a life that ended because its member was removed.
    """

    loop: SimLoop
    network: Network
    host: StoreHost
    tell: Tell
    connect: Callable[[Process, str, str], Connection]
    peers: frozenset[str]
    node_timeout_s: float
    heartbeat_period_s: float
    lease_ttl_s: int
    address_of: Callable[[str], str]
    build_seeds: Callable[[], Seeds]
    find_care: Callable[[CoordinatorLife], MemberCare | None]
    find_papers: Callable[[CoordinatorLife], CoordinatorPapers | None]
    find_agent_papers: Callable[[AgentLife], AgentPapers | None]
    on_removed: Callable[[CoordinatorLife], None]


class CoordinatorLife:
    """One life of a coordinator's process."""

    def __init__(self, own_id: str, life: int, world: Surroundings, clock: SimClock, seed: str) -> None:
        self.id, self.life, self._world, self.clock = own_id, life, world, clock
        self.process = Process(own_id, world.loop)
        self.ids = SimIds(seed)
        self.store = SimStore(world.loop, world.host, world.network, self.process, Random(seed + "-store"))
        self.replica = Replica(self.store, clock)
        self.committer = Committer(self.store, clock)
        self.heard = HeardTable(clock)
        self.leases = RecordLeases(
            RollingLease(self.store, clock, kept_s=REQUEST_KEPT_S), RollingLease(self.store, clock, kept_s=EVENT_KEPT_S)
        )
        self.leadership = Leadership(
            own_id,
            self.store,
            self.replica,
            clock,
            self._lead,
            on_lease=self._register,
            settings=LeadershipSettings(lease_ttl_s=world.lease_ttl_s),
        )
        self.peers = Peers(
            own_id,
            self.store,
            self.replica,
            self.heard,
            clock,
            lease_id=lambda: self.leadership.lease_id,
            voters=lambda: self.care.members.voters() if self.care else world.peers,
            ailment=lambda: self.care.ailment() if self.care else "",
            dial=self._dial,
            settings=PeerSettings(beat_period_s=PEER_BEAT_PERIOD_S),
        )
        self.sessions = Sessions(
            self.replica,
            self.committer,
            self.heard,
            clock,
            SessionSettings(coordinator_id=own_id, heartbeat_period_s=world.heartbeat_period_s),
            self._list_coordinators,
        )
        self.orchestrator = Orchestrator(self.replica, clock)
        self.access = Access(own_id, self.replica, self.committer, self.leases, clock, self.ids)
        self.workloads = Workloads(self.access)
        self.rollouts = Rollouts(self.access)
        self.nodes = Nodes(self.access, self.heard.find_silence_s)
        self.care = world.find_care(self)
        self.papers = world.find_papers(self)
        if self.care is not None:
            self.care.directory.on_change = self.sessions.tell_coordinators
        self.scope_term = 0
        self.leaving = self.removed = False
        self.error: BaseException | None = None
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._main = self.process.spawn(self._run(), self.id)

    async def _run(self) -> None:
        self.replica.listen(self._on_applied)
        try:
            if self.papers is not None:
                await self.papers.obtain()
            if self.care is not None:
                await self._form(self.care)
            async with asyncio.TaskGroup() as group:
                for part in (self.replica, self.committer, self.peers, self.sessions, self.leadership):
                    group.create_task(part.run(), name=type(part).__name__.lower())
                group.create_task(self.leases.run(self.clock), name="leases")
                if self.papers is not None:
                    group.create_task(self.papers.run(), name="trust")
                if self.care is not None:
                    group.create_task(self.care.members.run(), name="members")
                    group.create_task(self.care.directory.run(), name="directory")
                    group.create_task(self.care.supervise(), name="member-supervision")
        except* MemberRemoved:
            self.removed = True
        except* Exception as error:
            self.error = error
        if self.removed and self.error is None:
            self._world.on_removed(self)

    async def _form(self, care: MemberCare) -> None:
        keeping = asyncio.create_task(self.papers.keep()) if self.papers is not None else None
        try:
            await care.form()
        finally:
            if keeping is not None:
                keeping.cancel()

    @property
    def serves(self) -> bool:
        """Whether it takes part: before it has an identity and its member votes it only says who it is."""
        return (self.care is None or self.care.done) and (self.papers is None or self.papers.ready)

    def _list_coordinators(self) -> dict[str, str]:
        if self.care is not None:
            return self.care.directory.told()
        return {id: self._world.address_of(id) for id in sorted(self._world.peers)}  # all are members for good

    def _controllers(self) -> tuple[Controller, ...]:
        world, replica, clock = self._world, self.replica, self.clock
        return (
            ClusterNamer(
                self.id, replica, clock, self.ids, lambda: self.papers.issuer.cluster_id if self.papers else ""
            ),
            *((self.papers.controller(),) if self.papers else ()),
            LivenessController(replica, self.heard, clock, world.node_timeout_s),
            self.orchestrator,
            Reaper(replica, clock),
            ReliabilityKeeper(replica, clock),
            *((self.care.autopilot,) if self.care else ()),
            Recorder(self.id, replica, self.leases.events, clock, self.ids),
        )

    async def _lead(self, term: int, committer: Committer) -> None:
        """Run the controllers of a term, as the body does."""
        world = self._world
        self.scope_term = term
        world.tell(TookOffice(self, term, self.replica.machine.revision))
        try:
            async with asyncio.TaskGroup() as group:
                for controller in self._controllers():
                    group.create_task(controller.run(term, committer), name=type(controller).__name__.lower())
        finally:
            self.scope_term = 0
            world.tell(LeftOffice(self, term))

    async def _register(self, lease_id: int) -> None:
        """Tell the others where we are, for as long as our lease lives, as the body does."""
        record = CoordinatorRecord(id=self.id, api_address=self._world.address_of(self.id))
        put = Put(keys.coordinator(self.id), encode_record(record), lease_id)
        while self.leadership.lease_id == lease_id:
            try:
                await self.store.txn(Txn(then=(put,)), timeout_s=2.0)
                return
            except LeaseLost:
                raise
            except CloudlessError:
                await self.clock.sleep(REGISTER_RETRY_PAUSE_S)

    async def leave(self) -> None:
        """Hand over what others can take, then end, as after SIGTERM."""
        self.leaving = True
        self.sessions.shed_all("this coordinator is stopping")
        self.leadership.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESIGN_TIMEOUT_S):
                await self.leadership.stopped.wait()
        if self.care is not None:
            await self.care.leave()
        assert self._main is not None
        self._main.cancel()

    def _on_applied(self, applied: Applied) -> None:
        self._world.tell(SawRevision(self, applied.revision, self.replica.machine.digest))

    # --- links and what is served ---

    def _dial(self, address: str) -> PeerStream:
        return _PeerStream(self._world.connect(self.process, address, "peers"))

    def serve(self, service: str) -> Callable[[AsyncIterator[Any], Any], AsyncGenerator[Any, None]]:
        served: Any = {"peers": self.peers.Link, "sessions": self.sessions.Session}[service]
        return served

    def find_method(self, service: str, method: str) -> Callable[[Any, Any], Any]:
        """Return what serves a call. Raises Unavailable before this coordinator's member votes."""
        parts: tuple[object, ...] = ()
        match service:
            case "ClusterService" if self.care is not None:
                parts = self.care.services
            case "IdentityService" if self.papers is not None and self.papers.ready:
                parts = self.papers.services
        if method != "GetFormation" and not self.serves:
            raise Unavailable(f"{self.id} is not a voter of a cluster yet")
        found: Callable[[Any, Any], Any] = next(getattr(part, method) for part in parts if hasattr(part, method))
        return found


class _PeerStream:
    """A PeerStream on a simulated connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.ended = connection.ended

    async def write(self, beat: Any) -> None:
        try:
            await self._connection.write(beat)
        except Ended as error:
            raise LinkBroken(str(error)) from error

    async def read(self) -> Any:
        try:
            return await self._connection.read()
        except Ended as error:
            raise LinkBroken(str(error)) from error

    async def close(self) -> None:
        await self._connection.close()
