"""Sessions with agents: take heartbeats and reports, hand out assignments from replicated state.

No decision is made here. What a node has to run is what the state says, stamped with its revision and
the leader's term; any coordinator can serve any agent. An agent is never served a state older than one
it has seen. Whoever reads too slowly gets the newest state of each task instead of every step. A
coordinator that is cut off from its store says so: its agents go to another if they have one, and stay if
not, so that all being slow at once, or no quorum, does not make all agents come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from cloudless.coordinator.commit import Committer, PreconditionFailed
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.node_facts import check_info
from cloudless.coordinator.replica import Replica
from cloudless.coordinator.reports import ReportWriter
from cloudless.coordinator.usage import UsageDesk
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import Desired, NodeInfo, TaskDesired, TaskObserved
from cloudless.core.orchestration.heartbeats import heartbeat_period_s
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import Applied, Task, View
from cloudless.errors import Conflict, FormationRefused, InvalidSpec, Problem, Unavailable
from cloudless.ports import Clock
from cloudless.rpc import codec
from cloudless.rpc.v1 import agent_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

SESSIONS_MAX = 10_000
ENROL_TIMEOUT_S = 5.0
CATCH_UP_TIMEOUT_S = 5.0
REPORTS_A_MESSAGE_MAX = 1_000
CUT_OFF_AFTER_STALE_S = 5.0
# Silent for so many heartbeat periods, an agent no longer keeps another of its node id out.
NAMESAKE_PERIODS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """`heartbeat_period_s` is told to agents, a longer one in large clusters. `coordinator_id` is ours.

    `admissions_max`: how many agents are being let in at once. Each may wait for the store; beyond that they are sent
    away and come back after a random pause, here or elsewhere, so that a store that is slow after a failover does not
    face all of them.
    """

    coordinator_id: str
    heartbeat_period_s: float = 1.0
    admissions_max: int = 500


class AgentSession:
    """One agent's stream: what is to be sent to it, conflated."""

    def __init__(self, info: NodeInfo, incarnation: int) -> None:
        self.node_id, self.agent_id, self.incarnation = info.id, info.agent_id, incarnation
        self.primary = False
        self.sequence = 0
        self.complete_due = False
        self.changed: dict[str, None] = {}
        self.acks: dict[str, int] = {}
        self.beat_due = 0
        self.beat_s = 0.0
        self.period_told_s = 0.0
        self.service_due = False
        self.addresses_due = False
        self.usage_due = False
        self.shed_reason = ""
        self.closed = False
        self.wake = asyncio.Event()

    def beat(self, now_s: float) -> int:
        """Take a heartbeat; return how many should have come since the one before."""
        since_s, self.beat_s = now_s - (self.beat_s or now_s), now_s
        return max(0, round(since_s / self.period_told_s) - 1) if self.period_told_s else 0

    def acknowledge(self, task_id: str, sequence: int) -> None:
        self.acks[task_id] = sequence
        self.wake.set()

    def become(self, role: int) -> None:
        """Take the role the agent gives this session; a primary one starts with the complete assignments."""
        self.primary = role == pb.SESSION_ROLE_PRIMARY
        self.complete_due = self.primary
        self.sequence = 0
        self.changed.clear()
        self.wake.set()

    def end(self, reason: str) -> None:
        self.shed_reason = self.shed_reason or reason
        self.wake.set()


class Sessions:
    """Serves AgentService. `run` watches the state for it.

    `list_coordinators` returns id → API address of all who belong to the cluster; whoever gives it also calls
    `tell_coordinators` when that changes. Without it agents are told of the living ones.
    """

    def __init__(
        self,
        replica: Replica,
        committer: Committer,
        heard: HeardTable,
        clock: Clock,
        settings: SessionSettings,
        list_coordinators: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self._replica, self._committer, self._heard, self._clock = replica, committer, heard, clock
        self._settings = settings
        self._list_coordinators = list_coordinators or self._list_living
        self._lists_living = list_coordinators is None
        self._sessions: dict[str, AgentSession] = {}
        self._stopping = ""
        self._cut_off = False
        self._admitting = 0
        self.heartbeats_missed_total = 0
        self.usage = UsageDesk()

    @property
    def count(self) -> int:
        return len(self._sessions)

    def shed_all(self, reason: str) -> None:
        """Send every agent to another coordinator, now and from now on ("" takes new ones again)."""
        self._stopping = reason
        if reason:
            for session in list(self._sessions.values()):
                session.end(reason)

    async def run(self) -> None:
        """Hand state changes to the sessions; tell agents while this coordinator is stale."""
        stop_listening = self._replica.listen(self._on_applied)
        try:
            while True:
                self._tell_service(self._replica.loaded.is_set() and self._replica.staleness_s > CUT_OFF_AFTER_STALE_S)
                await self._clock.sleep(0.5)
        finally:
            stop_listening()

    def _tell_service(self, cut_off: bool) -> None:
        """Tell every agent whether this coordinator can serve it, if that has changed."""
        if cut_off == self._cut_off:
            return
        self._cut_off = cut_off
        if cut_off:
            logger.warning("cut off from the store: its {} agents shall use another coordinator", self.count)
        else:
            logger.info("the store is back: {} agents have stayed", self.count)
        for session in self._sessions.values():
            session.service_due = True
            session.wake.set()

    def _on_applied(self, applied: Applied) -> None:
        for transition in applied.transitions:
            if transition.kind is Kind.TASK_DESIRED:
                for record in (transition.before, transition.after):
                    if isinstance(record, TaskDesired) and (session := self._sessions.get(record.node_id)):
                        session.changed[record.id] = None
                        session.wake.set()
            elif transition.kind is Kind.COORDINATOR and self._lists_living:
                self.tell_coordinators()

    def tell_coordinators(self) -> None:
        """Send every agent the list of coordinators: it has changed."""
        for session in self._sessions.values():
            session.addresses_due = True
            session.wake.set()

    def ask_usage(self, node_id: str) -> bool:
        """Ask a node's agent what it uses; `usage` gets the answer. False: its primary session is not here."""
        session = self._sessions.get(node_id)
        if session is None or not session.primary:
            return False
        session.usage_due = True
        session.wake.set()
        return True

    # --- one session ---

    async def Session(
        self, requests: AsyncIterator[pb.AgentMessage], context: Any
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        """AgentService.Session."""
        hello = await self._first(requests)
        info = codec.from_message(hello.info, NodeInfo)
        if self._admitting >= self._settings.admissions_max:
            raise Unavailable(f"{self._admitting} agents are being let in already", hint="come back in a moment")
        self._admitting += 1
        try:
            await self._admit(hello, info)
        finally:
            self._admitting -= 1
        session = self._open(info, hello.incarnation)
        session.become(hello.role)  # before anything is read: a change of role must not be undone
        writer = ReportWriter(info.id, self._committer, self._replica, self._clock, session.acknowledge)
        reading = asyncio.create_task(self._read(requests, session, writer), name=f"session-read-{info.id}")
        try:
            self._heard.hear(info.id, own=True)
            yield self._welcome(session)
            async for message in self._outgoing(session):
                yield message
        finally:
            # An agent that hangs up while we end cancels us at the first await: nothing may be left to do after it.
            session.closed = True
            if self._sessions.get(info.id) is session:
                del self._sessions[info.id]
            reading.cancel()
            await asyncio.gather(reading, writer.close(), return_exceptions=True)

    async def _first(self, requests: AsyncIterator[pb.AgentMessage]) -> pb.AgentHello:
        try:
            async with asyncio.timeout(ENROL_TIMEOUT_S):
                message = await anext(requests)
        except (TimeoutError, StopAsyncIteration) as error:
            raise InvalidSpec([Problem("hello", "must be the first message of a session")]) from error
        if message.WhichOneof("body") != "hello":
            raise InvalidSpec([Problem("hello", "must be the first message of a session")])
        return message.hello

    async def _admit(self, hello: pb.AgentHello, info: NodeInfo) -> None:
        """Check who it is, wait until this coordinator knows at least what the agent knows, enrol it."""
        check_info(info)
        self._refuse_if_useless()
        if len(self._sessions) >= SESSIONS_MAX:
            raise Unavailable(f"this coordinator serves {SESSIONS_MAX} agents already", hint="use another coordinator")
        # At once if it can be: another cluster's revision may never be reached here.
        self._refuse_stranger(hello, info)
        await self._replica.wait_for(max(1, hello.revision_seen), timeout_s=CATCH_UP_TIMEOUT_S)
        if self._replica.machine.cluster is None:
            raise Unavailable("the cluster has no name yet")
        self._refuse_stranger(hello, info)
        await self._enrol(info)

    def _refuse_if_useless(self) -> None:
        if why := self._stopping or ("it is cut off from the store" if self._cut_off else ""):
            raise Unavailable(f"this coordinator takes no agents: {why}")

    def _refuse_stranger(self, hello: pb.AgentHello, info: NodeInfo) -> None:
        cluster = self._replica.machine.cluster
        if cluster is not None and hello.cluster_id and hello.cluster_id != cluster.id:
            raise FormationRefused(
                f"node {info.id} belongs to cluster {hello.cluster_id}, this is {cluster.id}",
                hint="give the agent an empty CLOUDLESS_DATA_DIR to move it to this cluster",
            )

    async def _enrol(self, info: NodeInfo) -> None:
        """Write the node's facts if they changed."""
        while True:
            node = self._replica.machine.nodes.get(info.id)
            known = node.info if node else None
            self._refuse_namesake(known, info)
            enrolled_ms = known.enrolled_at_ms if known else self._clock.wall_ms()
            info = replace(info, enrolled_at_ms=enrolled_ms)
            if known == info:
                return
            key = keys.node_info(info.id)
            change = Change(
                puts=(PutRecord(key, info),),
                preconditions=(Precondition(key, self._replica.machine.mod_revision(key)),),
                reason=f"node {info.id} enrols",
            )
            try:
                committed = await self._committer.commit(change, timeout_s=ENROL_TIMEOUT_S)
                await self._replica.wait_for(committed.revision, timeout_s=CATCH_UP_TIMEOUT_S)
                what = "changed" if known else "enrolled"
                logger.info("node {node} {} (zone {})", what, info.zone or "-", node=info.id)
                return
            except PreconditionFailed as error:
                await self._replica.wait_for(error.revision, timeout_s=CATCH_UP_TIMEOUT_S)

    def _refuse_namesake(self, known: NodeInfo | None, info: NodeInfo) -> None:
        """Two agents with one node id would each run the node's tasks; the second waits until the first is silent."""
        if known is None or "" in (known.agent_id, info.agent_id) or known.agent_id == info.agent_id:
            return
        silence_s = self._heard.find_silence_s(info.id)
        if silence_s is not None and silence_s < NAMESAKE_PERIODS * self._period_s():
            raise Conflict(
                f"another agent with the node id {info.id} is alive (at {known.address})",
                hint="give this one its own CLOUDLESS_NODE_ID, or stop the other",
            )

    def _open(self, info: NodeInfo, incarnation: int) -> AgentSession:
        """Register the session; of two for one node the later life of the agent wins."""
        self._refuse_if_useless()
        held = self._sessions.get(info.id)
        if held is not None:
            if held.incarnation > incarnation:
                raise Conflict(f"a newer agent process of node {info.id} has a session here")
            held.end("a newer session of this node took its place")
        session = AgentSession(info, incarnation)
        self._sessions[info.id] = session
        return session

    async def _take_info(self, info: NodeInfo, session: AgentSession) -> None:
        """Write the facts that an agent says have changed. Raises InvalidSpec if they are not its own."""
        check_info(info)
        if (info.id, info.agent_id) != (session.node_id, session.agent_id):
            raise InvalidSpec([Problem("info.id", f"must be {session.node_id}, as in the hello, not {info.id}")])
        await self._enrol(info)

    async def _read(
        self, requests: AsyncIterator[pb.AgentMessage], session: AgentSession, writer: ReportWriter
    ) -> None:
        try:
            async for message in requests:
                self._heard.hear(session.node_id, own=True)
                match message.WhichOneof("body"):
                    case "heartbeat":
                        # Only the newest: an agent that beats and never reads must not fill our memory.
                        session.beat_due = max(session.beat_due, message.heartbeat.sequence)
                        self.heartbeats_missed_total += session.beat(self._clock.monotonic_s())
                        session.wake.set()
                    case "reports":
                        for report in message.reports.reports[:REPORTS_A_MESSAGE_MAX]:
                            _take_report(report, session, writer)
                    case "change_role":
                        await self._replica.wait_for(message.change_role.revision_seen, timeout_s=CATCH_UP_TIMEOUT_S)
                        session.become(message.change_role.role)
                    case "info":
                        await self._take_info(codec.from_message(message.info, NodeInfo), session)
                    case "usage":
                        self.usage.take(session.node_id, message.usage)
            session.end("the agent closed the session")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever an agent sends ends its own session only
            logger.warning("session of {node} ends: {!r}", error, node=session.node_id)
            session.end(f"this coordinator could not go on: {error}")

    async def _outgoing(self, session: AgentSession) -> AsyncIterator[pb.CoordinatorMessage]:
        while True:
            await session.wake.wait()
            session.wake.clear()
            if session.beat_due or session.service_due:
                sequence, session.beat_due, session.service_due = session.beat_due, 0, False
                yield pb.CoordinatorMessage(heartbeat_ack=self._heartbeat_ack(session, sequence))
            if session.acks:
                entries = [pb.ReportsAck.Entry(task_id=task_id, sequence=n) for task_id, n in session.acks.items()]
                session.acks.clear()
                yield pb.CoordinatorMessage(reports_ack=pb.ReportsAck(entries=entries))
            if session.shed_reason:
                yield pb.CoordinatorMessage(shed=pb.Shed(reason=session.shed_reason))
                return
            if session.addresses_due:
                session.addresses_due = False
                told = pb.CoordinatorList(addresses=self._addresses(), coordinators=self._known())
                yield pb.CoordinatorMessage(coordinators=told)
            if session.usage_due:
                session.usage_due = False
                yield pb.CoordinatorMessage(usage_asked=pb.UsageAsked())
            if session.primary and (session.complete_due or session.changed):
                yield pb.CoordinatorMessage(assignments=self._assignments(session))

    # --- messages ---

    def _period_s(self) -> float:
        return heartbeat_period_s(len(self._replica.machine.nodes), self._settings.heartbeat_period_s)

    def _heartbeat_ack(self, session: AgentSession, sequence: int) -> pb.HeartbeatAck:
        """Return the answer to a heartbeat; it says whether we can serve, and how often to beat if that has changed."""
        period_s = self._period_s()
        if period_s == session.period_told_s:
            return pb.HeartbeatAck(sequence=sequence, cut_off=self._cut_off)
        session.period_told_s = period_s
        return pb.HeartbeatAck(sequence=sequence, heartbeat_period_s=period_s, cut_off=self._cut_off)

    def _welcome(self, session: AgentSession) -> pb.CoordinatorMessage:
        session.period_told_s = self._period_s()
        cluster = self._replica.machine.cluster
        return pb.CoordinatorMessage(
            welcome=pb.Welcome(
                coordinator_id=self._settings.coordinator_id,
                cluster_id=cluster.id if cluster else "",
                heartbeat_period_s=session.period_told_s,
                coordinator_addresses=self._addresses(),
                coordinators=self._known(),
            )
        )

    def _addresses(self) -> list[str]:
        return sorted(
            record.api_address for record in self._replica.machine.coordinators.values() if record.api_address
        )

    def _known(self) -> list[pb.KnownCoordinator]:
        return [pb.KnownCoordinator(id=id, address=address) for id, address in self._list_coordinators().items()]

    def _list_living(self) -> dict[str, str]:
        return {record.id: record.api_address for record in self._replica.machine.coordinators.values()}

    def _assignments(self, session: AgentSession) -> pb.Assignments:
        """Return the complete assignments, or those that changed since the last message. Made without awaiting."""
        machine = self._replica.machine
        complete, session.complete_due = session.complete_due, False
        wanted = list(machine.tasks_on(session.node_id)) if complete else list(session.changed)
        session.changed.clear()
        session.sequence += 1
        tasks, removed = [], []
        for task_id in wanted:
            task = machine.tasks.get(task_id)
            if task is not None and task.desired.node_id == session.node_id:
                tasks.append(codec.to_message(_as_assigned(task), objects_pb2.TaskDesired))
            else:
                removed.append(task_id)
        return pb.Assignments(
            kind=pb.Assignments.COMPLETE if complete else pb.Assignments.INCREMENTAL,
            sequence=session.sequence,
            revision=machine.revision,
            term=self._leaders_term(),
            tasks=tasks,
            removed_task_ids=removed,
            unreadable_task_ids=_unreadable_tasks(machine) if complete else [],
        )

    def _leaders_term(self) -> int:
        """Return the leader's term, 0 while there is none.

        Never the last one that this coordinator has seen: between two leaders another may have come and gone, and
        agents that have heard of it refuse a term that goes back.
        """
        queue = self._replica.machine.candidates()
        return queue[0].term if queue else 0


def _take_report(report: objects_pb2.TaskObserved, session: AgentSession, writer: ReportWriter) -> None:
    observed = codec.from_message(report, TaskObserved)
    if observed.node_id != session.node_id:
        raise InvalidSpec([Problem("reports.node_id", f"must be {session.node_id}, not {observed.node_id}")])
    writer.take(observed)


def _as_assigned(task: Task) -> TaskDesired:
    """An ended task is never to run again, not even by an agent that has lost its memory of it."""
    return replace(task.desired, desired=Desired.STOPPED) if task.ended else task.desired


def _unreadable_tasks(view: View) -> list[str]:
    """Return the ids of tasks whose record this version cannot read: whoever runs them shall leave them alone."""
    parsed = (keys.parse(key) for key in view.quarantined)
    return [key.parts[0] for key in parsed if key is not None and key.kind is Kind.TASK_DESIRED]
