"""Links between coordinators: signs of life both ways, news of agents, and quick notice of a lost leader.

Each coordinator dials every other one it finds in the state and beats on that link. A link is *lost* when
it was up and then broke or fell silent, and dialling again failed. Losing the leader's link is recorded
in the store as a suspicion; when a majority of voters has recorded it, the leader's key is deleted at
once instead of waiting for its lease (see `core.election.decide_doubt`). A link that was never up
accuses nobody: a wrong address must not depose a healthy leader again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from loguru import logger

from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.peer_stream import LinkBroken, PeerDial, PeerStream
from cloudless.coordinator.progress import ProgressTable
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.election import decide_doubt
from cloudless.core.model import Suspicion
from cloudless.core.state import Applied, Candidate
from cloudless.errors import CloudlessError
from cloudless.ports import Clock, Compare, Delete, Put, Relation, Store, Target, Txn
from cloudless.rpc.codec import encode_record
from cloudless.rpc.v1 import peer_pb2 as pb

_Beat = TypeVar("_Beat", pb.PeerBeat, pb.PeerBeatAck)
TELLERS_MAX = 16
"""Bounds what is kept of callers that make names up."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """`beat_period_s`: between beats. `silence_max_s`: without an answer the link counts as broken.
    `redial_timeout_s`: for the one try that must fail before it counts as lost."""

    beat_period_s: float = 0.25
    silence_max_s: float = 1.2
    redial_timeout_s: float = 0.4
    redial_pause_s: float = 0.25
    news_within_s: float = 2.0
    store_timeout_s: float = 1.5


@dataclass(frozen=True, slots=True)
class News:
    """What goes with every beat, both ways: who lives, how far the sender's member has got, what ails it."""

    own_id: str
    heard: HeardTable
    progress: ProgressTable
    ailment: Callable[[], str]
    clock: Clock
    within_s: float
    told: dict[str, tuple[str, float]] = field(default_factory=dict)

    def fill(self, beat: _Beat, sequence: int, to: str) -> _Beat:
        """Return the beat with everything there is to tell the coordinator `to`."""
        beat.coordinator_id, beat.sequence, beat.ailment = self.own_id, sequence, self.ailment()
        for node_id, age_s in self.heard.take_news(to, self.within_s).items():
            beat.heard.add(node_id=node_id, age_ms=int(age_s * 1000))
        if (progress := self.progress.tell()) is not None:
            beat.progress.CopyFrom(progress)
        return beat

    def take(self, told: pb.PeerBeat | pb.PeerBeatAck) -> None:
        for agent in told.heard:
            self.heard.hear(agent.node_id, age_s=agent.age_ms / 1000, own=False)
        self.progress.take(told.coordinator_id, told.progress)
        if told.coordinator_id in self.told or len(self.told) < TELLERS_MAX:
            self.told[told.coordinator_id] = told.ailment, self.clock.monotonic_s()

    def ailments(self) -> dict[str, str]:
        """Return what ails whom, of those heard lately and of this one."""
        since_s = self.clock.monotonic_s() - self.within_s
        heard = {id: said for id, (said, at_s) in self.told.items() if at_s > since_s}
        return {id: said for id, said in {**heard, self.own_id: self.ailment()}.items() if said}


class Misled(Exception):
    """Somebody else answers at the address."""


class Link:
    """One dialled link to another coordinator; keeps itself up until cancelled.

    Up only while that very coordinator answers: an address that leads back to ourselves, or to a third one, must not
    make one that is away look alive.
    """

    def __init__(
        self,
        coordinator_id: str,
        address: str,
        news: News,
        clock: Clock,
        changed: Callable[[], None],
        settings: PeerSettings,
        dial: PeerDial,
    ) -> None:
        self._coordinator_id, self.address, self._news, self._clock = coordinator_id, address, news, clock
        self._changed, self._settings, self._dial = changed, settings, dial
        self.up = False
        self.lost = False
        self._was_ever_up = False

    async def run(self) -> None:
        misled = ""
        while True:
            stream = self._dial(self.address)
            try:
                await self._hold(stream)
            except (LinkBroken, TimeoutError) as error:
                logger.debug("link to {}: {!r}", self.address, error)
            except Misled as error:
                if str(error) != misled:
                    misled = str(error)
                    logger.warning("{}: check its CLOUDLESS_ADVERTISE_ADDR", misled)
                # Says nothing of the one that was meant: neither that it lives nor that it is lost.
                self._was_ever_up = False
            finally:
                was_up, self.up = self.up, False
                await stream.close()
            if was_up:
                continue  # dial again at once: only a failure of that makes the link lost
            if not self.lost and self._was_ever_up:
                self.lost = True
                self._changed()
            await self._clock.sleep(self._settings.redial_pause_s)

    async def _hold(self, stream: PeerStream) -> None:
        async with asyncio.timeout(self._settings.redial_timeout_s):
            await self._beat(stream, 0)
        self.up = self._was_ever_up = True
        if self.lost:
            self.lost = False
            self._changed()
        sequence = 0
        while not stream.ended.is_set():
            await self._pause(stream.ended)
            sequence += 1
            async with asyncio.timeout(self._settings.silence_max_s):
                await self._beat(stream, sequence)

    async def _pause(self, ended: asyncio.Event) -> None:
        """Wait for the next beat's time; a link that breaks meanwhile is noticed at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.beat_period_s):
                await ended.wait()

    async def _beat(self, stream: PeerStream, sequence: int) -> None:
        await stream.write(self._news.fill(pb.PeerBeat(), sequence, self._coordinator_id))
        while True:
            answer = await stream.read()
            if answer.coordinator_id != self._coordinator_id:
                raise Misled(f"{self.address} leads to {answer.coordinator_id}, not to {self._coordinator_id}")
            self._news.take(answer)
            if answer.sequence >= sequence:
                return


class Peers:
    """All links of one coordinator, and what it says of the leader. `voters` returns the voting coordinators' ids."""

    def __init__(
        self,
        own_id: str,
        store: Store,
        replica: Replica,
        heard: HeardTable,
        clock: Clock,
        *,
        lease_id: Callable[[], int],
        voters: Callable[[], frozenset[str]],
        progress: ProgressTable | None = None,
        ailment: Callable[[], str] = str,
        dial: PeerDial,
        settings: PeerSettings | None = None,
        on_doubt: Callable[[Candidate], None] = lambda leader: None,
    ) -> None:
        """`on_doubt` is told, now and again, of a leader whose link is lost."""
        self._on_doubt = on_doubt
        self._own_id, self._store, self._replica, self._clock = own_id, store, replica, clock
        self._lease_id, self._voters = lease_id, voters
        self._settings, self._dial = settings or PeerSettings(), dial
        self._news = News(own_id, heard, progress or ProgressTable(), ailment, clock, self._settings.news_within_s)
        self._links: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()
        self.deposed_total = 0

    def linked(self, coordinator_id: str) -> bool:
        """Return whether that coordinator answers this one now; true for itself."""
        held = self._links.get(coordinator_id)
        return coordinator_id == self._own_id or (held is not None and held[0].up)

    def ailments(self) -> dict[str, str]:
        """Return what ails which coordinator's store. Told by it, whether or not it can be dialled."""
        return self._news.ailments()

    # --- served to the others ---

    async def Link(self, requests: AsyncIterator[pb.PeerBeat], context: Any) -> AsyncIterator[pb.PeerBeatAck]:
        """PeerService.Link: answer every beat, take in its news."""
        async for beat in requests:
            self._news.take(beat)
            yield self._news.fill(pb.PeerBeatAck(), beat.sequence, beat.coordinator_id)

    # --- dialling and doubting ---

    async def run(self) -> None:
        """Keep a link to every other coordinator and act on the loss of the leader's."""
        stop_listening = self._replica.listen(self._on_applied)
        try:
            await self._replica.loaded.wait()
            while True:
                self._changed.clear()
                self._match_links()
                pause_s = 1.0
                try:
                    await self._act_on_doubt()
                except CloudlessError as error:
                    logger.debug("recording or withdrawing a suspicion failed: {}", error)
                    pause_s = 0.1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
        finally:
            stop_listening()
            for _, task in self._links.values():
                task.cancel()
            await asyncio.gather(*(task for _, task in self._links.values()), return_exceptions=True)

    def _on_applied(self, applied: Applied) -> None:
        watched = (keys.COORDINATORS, keys.ELECTION, keys.SUSPICIONS)
        if any(transition.key.startswith(watched) for transition in applied.transitions):
            self._changed.set()

    def _match_links(self) -> None:
        """Dial who is new or moved; hang up on who has gone, except the leader while it is doubted."""
        wanted = {
            record.id: record.api_address
            for record in self._replica.machine.coordinators.values()
            if record.id != self._own_id and record.api_address
        }
        leader = self._leader()
        for coordinator_id, (link, task) in list(self._links.items()):
            doubted = link.lost and leader is not None and leader.record.coordinator_id == coordinator_id
            if wanted.get(coordinator_id) != link.address and not (doubted and coordinator_id not in wanted):
                task.cancel()
                del self._links[coordinator_id]
        for coordinator_id in sorted(wanted.keys() - self._links.keys()):
            address = wanted[coordinator_id]
            link = Link(coordinator_id, address, self._news, self._clock, self._changed.set, self._settings, self._dial)
            self._links[coordinator_id] = (link, asyncio.create_task(link.run(), name=f"link-{coordinator_id}"))

    def _leader(self) -> Candidate | None:
        queue = self._replica.machine.candidates()
        return queue[0] if queue else None

    async def _act_on_doubt(self) -> None:
        leader = self._leader()
        held = self._links.get(leader.record.coordinator_id) if leader else None
        doubt = decide_doubt(
            own_id=self._own_id,
            leader=leader,
            link_lost=held is not None and held[0].lost,
            suspicions=frozenset(self._replica.machine.suspicions(leader.term)) if leader else frozenset(),
            voters=self._voters(),
            linked=frozenset(voter for voter in self._voters() if self.linked(voter)),
        )
        if leader is None:
            return
        own_key = keys.suspicion(leader.term, self._own_id)
        still_leads = Compare(leader.key, Target.CREATE, Relation.EQUAL, leader.term)
        if doubt.depose or doubt.suspect:
            self._on_doubt(leader)
        if doubt.depose:
            words = "the majority has lost leader {}: ending term {term}"
            logger.warning(words, leader.record.coordinator_id, term=leader.term)
            said = sorted(self._replica.machine.suspicions(leader.term))
            forgotten = tuple(Delete(keys.suspicion(leader.term, coordinator_id)) for coordinator_id in said)
            self.deposed_total += await self._write(Txn(compares=(still_leads,), then=(Delete(leader.key), *forgotten)))
        elif doubt.suspect and self._lease_id():  # without a lease the word would outlive us
            logger.info("lost the leader {} of term {term}", leader.record.coordinator_id, term=leader.term)
            record = encode_record(Suspicion(coordinator_id=self._own_id, term=leader.term))
            await self._write(Txn(compares=(still_leads,), then=(Put(own_key, record, self._lease_id()),)))
        elif doubt.withdraw:
            await self._write(Txn(then=(Delete(own_key),)))

    async def _write(self, txn: Txn) -> bool:
        return (await self._store.txn(txn, timeout_s=self._settings.store_timeout_s)).succeeded
