"""One stream to one coordinator, from dialling to its end, as WARM or PRIMARY.

A session begins WARM and is told to be PRIMARY by `links` once it is welcomed and no other is. It ends when the
stream breaks, the coordinator says nothing for several heartbeat periods (TCP may live on while the process is
stopped), sends us away, or sends what must not be followed; `run` then returns why, and is not run again.

A coordinator that is cut off from its store is left for another, but only once there is one: when all are slow at the
same time, because of too much work or because the store has no quorum, all agents coming again would make it worse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, ClassVar, Protocol

from loguru import logger

from cloudless.agent.assignments import Cursor, Gate, Refused, TaskFollower
from cloudless.agent.config import AgentLimits
from cloudless.agent.dialling import Dial, SessionStream, StreamBroken
from cloudless.agent.phonebook import read_told
from cloudless.agent.reports import Outbox, ReportBook
from cloudless.core.model import NodeInfo, TaskObserved
from cloudless.errors import FormationRefused
from cloudless.ports import Clock
from cloudless.rpc.codec import to_message
from cloudless.rpc.v1 import agent_pb2, objects_pb2, usage_pb2

PRIMARY = agent_pb2.SESSION_ROLE_PRIMARY
WARM = agent_pb2.SESSION_ROLE_WARM
BEAT_JITTER = 0.1
_BUSY_S = 0.3


class EndKind(Enum):
    """Why a session ended; also the metric's label."""

    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    SILENT = "silent"
    SHED = "shed"
    REFUSED = "refused"
    FOREIGN = "foreign"
    DUPLICATE = "duplicate"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """`late`: the coordinator is there and takes too long, so that others who knock may be why."""

    kind: EndKind
    message: str
    late: bool = False


class SessionOver(Exception):
    """Leaves the session's tasks with its end."""

    def __init__(self, kind: EndKind, message: str, *, late: bool = False) -> None:
        self.end = SessionEnd(kind, message, late)
        super().__init__(message)


class SessionOwner(Protocol):
    """What a session tells the keeper of all sessions."""

    async def on_welcome(self, session: Session, welcome: agent_pb2.Welcome) -> None:
        """Take the session in. Raises SessionOver to end it."""
        ...

    async def on_coordinators(self, told: Mapping[str, str]) -> None:
        """Take in the list of all coordinators, id → address."""
        ...

    def is_useless(self, session: Session) -> bool:
        """Return whether that one's coordinator is cut off from its store and nothing is gained by staying."""
        ...

    def has_other(self, session: Session) -> bool:
        """Return whether another session is welcomed, to a coordinator that is not cut off from its store."""
        ...

    def on_end(self, session: Session, end: SessionEnd) -> None:
        """The session's stream is cancelled; nothing more of it will be followed."""
        ...


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What every session of an agent shares. `random` draws pauses and the order of coordinators.

    `measure` returns what the node uses (None: questions for it go unanswered).
    `info` returns the facts of now; whoever changes them sets `reports.changed`, so that they are told. `on_heard` is
    called with every word of a coordinator that serves us: not of one that is cut off from its store.
    """

    info: Callable[[], NodeInfo]
    limits: AgentLimits
    clock: Clock
    random: Random
    dial: Dial
    gate: Gate
    runner: TaskFollower
    reports: ReportBook
    on_round_trip: Callable[[float], None]
    on_refused: Callable[[str], None]
    on_resent: Callable[[int], None]
    on_heard: Callable[[], None] = lambda: None
    measure: Callable[[], Awaitable[usage_pb2.NodeUsage]] | None = None


class Session:
    """See the module. `coordinator_id` is known once `welcomed`; `patience_s`: how long one may take who is there."""

    def __init__(self, address: str, parts: SessionParts, owner: SessionOwner, patience_s: float) -> None:
        self.address = address
        self.coordinator_id = ""
        self.welcomed = False
        self.cut_off = False
        self.role = WARM
        self._patience_s = patience_s
        self._parts = parts
        self._owner = owner
        self.period_s = parts.limits.heartbeat_period_default_s
        self._promoted = asyncio.Event()
        self._cursor = Cursor()
        self._silent_periods = 0
        self._handling = False
        self._beats: dict[int, float] = {}
        self._writing = asyncio.Lock()
        self._stream: SessionStream | None = None
        self._told: NodeInfo | None = None
        self._answering: asyncio.Task[None] | None = None

    def promote(self) -> None:
        """Make this the PRIMARY session; tells the coordinator at once and then everything about all tasks."""
        self.role = PRIMARY
        self._promoted.set()

    async def run(self) -> SessionEnd:
        """Dial, serve until it ends, and return why."""
        self._stream = stream = self._parts.dial(self.address)
        end = SessionEnd(EndKind.LEFT, "the agent leaves")
        try:
            await self._open_in_time()
            await self._serve()
        except SessionOver as over:
            end = over.end
        except StreamBroken as error:
            end = self._end_of(error)
        finally:
            stream.cancel()
            if self._answering is not None:
                self._answering.cancel()
            self._owner.on_end(self, end)
            await stream.close()
        return end

    def _end_of(self, broken: StreamBroken) -> SessionEnd:
        if isinstance(broken.refusal, FormationRefused):  # another cluster's coordinator does not even welcome us
            return SessionEnd(EndKind.FOREIGN, broken.refusal.message)
        return SessionEnd(EndKind.BROKEN if self.welcomed else EndKind.UNREACHABLE, str(broken))

    # --- parts of a session's life --------------------------------------------------------------

    async def _open_in_time(self) -> None:
        """Open the session; whoever is there and slow gets all our patience. Raises SessionOver if that ends."""
        assert self._stream is not None
        limits = self._parts.limits
        opening, knocking = asyncio.create_task(self._open()), None
        try:
            await self._wait(opening, limits.knock_after_s)
            if not opening.done():
                knocking = asyncio.create_task(self._stream.knock())
                busy_here = await self._wait(opening, limits.connect_timeout_s - limits.knock_after_s)
                there = busy_here or (knocking.done() and knocking.result())
                waited_s = self._patience_s if there else limits.connect_timeout_s
                await self._wait(opening, waited_s - limits.connect_timeout_s)
                if not opening.done():
                    raise SessionOver(EndKind.UNREACHABLE, f"no answer within {waited_s:g} s", late=there)
            opening.result()
        finally:
            tasks = [task for task in (opening, knocking) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, opening: asyncio.Task[None], seconds: float) -> bool:
        """Wait for so long; return whether this machine was too busy to look at its clock in time.

        Such a one has not looked at what came either, and does not judge: it waits again. What it waits for ends by
        itself in the end, as the connection's own tries do.
        """
        was_busy = False
        while not opening.done():
            began_s = self._now_s()
            await asyncio.wait({opening}, timeout=seconds)
            if self._now_s() - began_s < 1.1 * seconds + _BUSY_S:
                break
            was_busy = True
        return was_busy

    async def _open(self) -> None:
        """Say hello and take in the welcome."""
        head = self._parts.gate.head
        self._told = self._parts.info()
        hello = agent_pb2.AgentHello(
            info=to_message(self._told, objects_pb2.NodeInfo),
            role=WARM,
            term_seen=head.term_seen,
            revision_seen=head.revision_seen,
            cluster_id=head.cluster_id,
            incarnation=head.incarnation,
        )
        await self._write(agent_pb2.AgentMessage(hello=hello))
        message = await self._read()
        if message.WhichOneof("body") == "shed":
            raise SessionOver(EndKind.SHED, message.shed.reason)
        if message.WhichOneof("body") != "welcome":
            raise SessionOver(EndKind.BROKEN, "did not begin with a welcome")
        self._take_period(message.welcome.heartbeat_period_s)
        self.coordinator_id = message.welcome.coordinator_id
        await self._owner.on_welcome(self, message.welcome)
        self._parts.on_heard()

    async def _serve(self) -> None:
        """Run the session's three loops until one of them ends it."""
        loops: list[Coroutine[Any, Any, None]] = [self._listen(), self._beat(), self._tell()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            message = await self._read()
            self._silent_periods = 0
            if message.WhichOneof("body") == "heartbeat_ack":
                self.cut_off = message.heartbeat_ack.cut_off
            # Before it is handled, which a slow disk may hold up: what is to stop in time must not gain time by that.
            if message.WhichOneof("body") != "shed" and not self.cut_off:
                self._parts.on_heard()
            self._handling = True
            await self._handlers[message.WhichOneof("body")](self, message)
            self._handling = False

    async def _beat(self) -> None:
        """Beat at once, then every period; count the periods in which nothing came back.

        A silent PRIMARY is held on to for longer while there is no other: leaving it would gain nothing, and when a
        coordinator is slow because of its many agents, all of them coming again would keep it so.

        A little early at random: agents that came back together would else go on beating in step.
        """
        sequence = useless_periods = 0
        writing: asyncio.Future[None] | None = None
        while self._silent_periods < self._silence_max():
            # Not at once: what is cut off may be all of them, and the others only have not said so yet.
            useless_periods = useless_periods + 1 if self._owner.is_useless(self) else 0
            if useless_periods > 1:
                raise SessionOver(EndKind.SHED, "cut off from its store")
            # While a slow disk holds our own reader up, the silence is not the coordinator's.
            self._silent_periods += not self._handling
            # A stopped coordinator does not read either: the periods are counted though a write is stuck.
            if writing is None or writing.done():
                sequence += 1
                self._beats[sequence] = self._now_s()
                self._beats.pop(sequence - 2 * self._parts.limits.silent_periods_max, None)
                beat = agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat(sequence=sequence))
                writing = asyncio.ensure_future(self._write(beat))
                # What fails to be written is told by the reader; not asked for, asyncio would complain.
                writing.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.sleep(self.period_s * self._parts.random.uniform(1.0 - BEAT_JITTER, 1.0))
        raise SessionOver(EndKind.SILENT, f"silent for {self._silent_periods * self.period_s:g} s", late=True)

    def _silence_max(self) -> int:
        limits = self._parts.limits
        alone = self.role == PRIMARY and not self._owner.has_other(self)
        return limits.silent_periods_alone_max if alone else limits.silent_periods_max

    async def _tell(self) -> None:
        """As PRIMARY: report all tasks, then every change, conflated; repeat what is not acknowledged."""
        await self._promoted.wait()
        head = self._parts.gate.head
        change = agent_pb2.ChangeRole(role=PRIMARY, term_seen=head.term_seen, revision_seen=head.revision_seen)
        await self._write(agent_pb2.AgentMessage(change_role=change))
        limits, book = self._parts.limits, self._parts.reports
        outbox = Outbox(book, limits.report_resend_s)
        everything = outbox.take_all(self._now_s())
        for first in range(0, len(everything), limits.reports_per_message_max):
            await self._send_reports(everything[first : first + limits.reports_per_message_max])
        while True:
            book.changed.clear()
            await self._tell_info()
            resent = outbox.resent
            due = outbox.take_due(self._now_s(), limits.reports_per_message_max)
            self._parts.on_resent(outbox.resent - resent)
            if due:
                await self._send_reports(due)
                await asyncio.sleep(limits.report_gap_s)
                continue
            try:
                async with asyncio.timeout(limits.report_resend_s / 2 if book.pending_count else None):
                    await book.changed.wait()
            except TimeoutError:
                continue

    async def _tell_info(self) -> None:
        """Tell the facts of this node again if they have changed."""
        info = self._parts.info()
        if info != self._told:
            self._told = info
            await self._write(agent_pb2.AgentMessage(info=to_message(info, objects_pb2.NodeInfo)))

    def _take_period(self, period_s: float) -> None:
        if 0 < period_s <= self._parts.limits.heartbeat_period_max_s:
            self.period_s = period_s

    def _now_s(self) -> float:
        return self._parts.clock.monotonic_s()

    # --- messages -------------------------------------------------------------------------------

    async def _on_assignments(self, message: agent_pb2.CoordinatorMessage) -> None:
        if self.role != PRIMARY:
            logger.debug("{}: assignments on a warm session are not followed", self.address)
            return
        try:
            await self._parts.gate.follow(message.assignments, self._cursor, self._parts.runner)
        except Refused as error:
            self._parts.on_refused(error.kind)
            raise SessionOver(EndKind.REFUSED, str(error)) from error

    async def _on_heartbeat_ack(self, message: agent_pb2.CoordinatorMessage) -> None:
        self._take_period(message.heartbeat_ack.heartbeat_period_s)
        sent_s = self._beats.pop(message.heartbeat_ack.sequence, None)
        if sent_s is not None:
            self._parts.on_round_trip(self._now_s() - sent_s)

    async def _on_reports_ack(self, message: agent_pb2.CoordinatorMessage) -> None:
        for entry in message.reports_ack.entries:
            self._parts.reports.acknowledge(entry.task_id, entry.sequence)

    async def _on_coordinators(self, message: agent_pb2.CoordinatorMessage) -> None:
        await self._owner.on_coordinators(read_told(message.coordinators))

    async def _on_usage_asked(self, message: agent_pb2.CoordinatorMessage) -> None:
        # Apart: it takes a while, and the reader has more to do. Asked again meanwhile, one answer does.
        if self._parts.measure is not None and (self._answering is None or self._answering.done()):
            self._answering = asyncio.create_task(self._answer_usage(self._parts.measure), name="usage-answer")

    async def _answer_usage(self, measure: Callable[[], Awaitable[usage_pb2.NodeUsage]]) -> None:
        with suppress(StreamBroken):  # the reader tells
            await self._write(agent_pb2.AgentMessage(usage=await measure()))

    async def _on_shed(self, message: agent_pb2.CoordinatorMessage) -> None:
        raise SessionOver(EndKind.SHED, message.shed.reason)

    async def _on_other(self, message: agent_pb2.CoordinatorMessage) -> None:
        """A message of a later version, or a second welcome: harmless."""

    _handlers: ClassVar[dict[str | None, Callable[[Session, agent_pb2.CoordinatorMessage], Awaitable[None]]]] = {
        "assignments": _on_assignments,
        "heartbeat_ack": _on_heartbeat_ack,
        "reports_ack": _on_reports_ack,
        "coordinators": _on_coordinators,
        "shed": _on_shed,
        "usage_asked": _on_usage_asked,
        "welcome": _on_other,
        None: _on_other,
    }

    async def _send_reports(self, reports: list[TaskObserved]) -> None:
        messages = [to_message(report, objects_pb2.TaskObserved) for report in reports]
        await self._write(agent_pb2.AgentMessage(reports=agent_pb2.TaskReports(reports=messages)))

    async def _write(self, message: agent_pb2.AgentMessage) -> None:
        assert self._stream is not None
        async with self._writing:
            await self._stream.write(message)

    async def _read(self) -> agent_pb2.CoordinatorMessage:
        assert self._stream is not None
        return await self._stream.read()
