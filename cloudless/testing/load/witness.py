"""A witness at the store itself: every revision that touches the load's objects, their requests, or a leader's word.

It watches etcd directly, so that no coordinator can colour what it sees, and moves to the next member when one is
silent, broken or gone. It begins before the first write and misses nothing; if history was compacted under it, it
says so, and the history proves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import EventRecord, NodeStatus, TaskDesired, WorkloadRecord
from cloudless.errors import CloudlessError, Compacted, StoreTimeout, Unavailable
from cloudless.ports import Event, Store, WatchStream
from cloudless.rpc.codec import Malformed, decode_record
from cloudless.testing.history import LeaderWrite, LogEvent
from cloudless.testing.load.objects import value_of

_EVERYTHING = "/cloudless"
"""Both prefixes, state and requests, in one watch: what happened in one revision arrives together."""
_LEADERS_KINDS = (Kind.TASK_DESIRED, Kind.NODE_STATUS, Kind.EVENT)
_SILENCE_S = 2.0
_PROGRESS_S = 0.5
_READ_S = 1.0
_PAUSE_S = 0.1
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Story:
    """What the store says happened up to `last_revision`. `requests`: the ids remembered at each revision."""

    last_revision: int
    log: tuple[LogEvent, ...]
    leader_writes: tuple[LeaderWrite, ...]
    requests: dict[int, tuple[str, ...]]
    gaps: tuple[str, ...]


@dataclass
class _Seen:
    log: list[LogEvent] = field(default_factory=list)
    leader_writes: list[LeaderWrite] = field(default_factory=list)
    requests: dict[int, list[str]] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)


class Witness:
    """Watches from `start` until `stop`. `namespace` and `run` tell the load's objects and requests from others'."""

    def __init__(self, stores: Sequence[EtcdStore], namespace: str, run: str) -> None:
        self._stores = stores
        self._namespace, self._run = namespace, run
        self._turn = 0
        self._revision = 0
        self._seen = _Seen()
        self._task: asyncio.Task[None] | None = None

    async def start(self, timeout_s: float = 10.0) -> None:
        """Return once every later change will be seen. Raises StoreTimeout."""
        self._revision = await self._ask_revision(timeout_s)
        self._task = asyncio.create_task(self._follow(), name="load-witness")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for store in self._stores:
            await store.close()

    async def catch_up(self, timeout_s: float) -> None:
        """Return once everything written before the call has been seen. Raises StoreTimeout."""
        deadline_s = time.monotonic() + timeout_s
        aim = await self._ask_revision(timeout_s)
        while self._revision < aim:
            if self._task is not None and self._task.done():
                await self._task
            if time.monotonic() > deadline_s:
                raise StoreTimeout(f"the witness has seen revision {self._revision}, the store is at {aim}")
            await asyncio.sleep(_POLL_S)

    def story(self) -> Story:
        return Story(
            self._revision, tuple(self._seen.log), tuple(self._seen.leader_writes),
            {revision: tuple(ids) for revision, ids in self._seen.requests.items()}, tuple(self._seen.gaps),
        )  # fmt: skip

    async def _ask_revision(self, timeout_s: float) -> int:
        """Return the store's revision, read linearizably from whichever member can."""
        deadline_s = time.monotonic() + timeout_s
        for store in itertools.cycle(self._stores):
            try:
                return await store.current_revision(timeout_s=_READ_S)
            except CloudlessError as error:
                if time.monotonic() > deadline_s:
                    raise StoreTimeout(f"no etcd member says its revision: {error.message}") from error
                self._renew()
                await asyncio.sleep(_PAUSE_S)
        raise StoreTimeout("there is no etcd member to ask")

    def _renew(self) -> None:
        """Connect with the certificates of now: those of before may be what stands in the way."""
        for store in self._stores:
            with contextlib.suppress(OSError):  # a coordinator that is being emptied has none just now
                store.renew()

    # --- watching ---

    async def _follow(self) -> None:
        while True:
            try:
                await self._watch(self._stores[self._turn % len(self._stores)])
            except Compacted as error:
                self._seen.gaps.append(
                    f"revisions {self._revision + 1} to {error.compact_revision} were compacted away"
                )
                self._revision = max(self._revision, error.compact_revision - 1)
            except (CloudlessError, TimeoutError):
                self._turn += 1
                self._renew()
            await asyncio.sleep(_PAUSE_S)

    async def _watch(self, store: Store) -> None:
        stream = store.watch(_EVERYTHING, start_revision=self._revision + 1)
        asking = asyncio.create_task(_ask_progress(stream))
        try:
            batches = aiter(stream)
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    batch = await anext(batches)
                for event in batch.events:
                    self._note(event)
                self._revision = max(self._revision, batch.revision)
        except StopAsyncIteration:
            raise Unavailable("the watch ended") from None
        finally:
            asking.cancel()
            await stream.close()
            with contextlib.suppress(asyncio.CancelledError, CloudlessError):
                await asking

    def _note(self, event: Event) -> None:
        parsed, revision = keys.parse(event.kv.key), event.kv.mod_revision
        if parsed is None:
            return
        if parsed.kind is Kind.REQUEST and not event.deleted and parsed.parts[0].startswith(self._run):
            self._seen.requests.setdefault(revision, []).append(parsed.parts[0])
        elif parsed.kind is Kind.WORKLOAD and parsed.parts[0] == self._namespace:
            self._seen.log.append(LogEvent(revision, parsed.parts[1], self._value(parsed, event)))
        elif parsed.kind in _LEADERS_KINDS and not event.deleted:
            with contextlib.suppress(Malformed):
                record = decode_record(parsed, event.kv.value)
                assert isinstance(record, (TaskDesired, NodeStatus, EventRecord))
                leader = record.source if isinstance(record, EventRecord) else ""
                if record.term:
                    self._seen.leader_writes.append(LeaderWrite(revision, record.term, event.kv.key, leader))

    @staticmethod
    def _value(parsed: keys.Key, event: Event) -> str | None:
        if event.deleted:
            return None
        try:
            record = decode_record(parsed, event.kv.value)
        except Malformed as error:
            return f"unreadable at {event.kv.mod_revision}: {error}"
        assert isinstance(record, WorkloadRecord)
        return value_of(record)


async def _ask_progress(stream: WatchStream) -> None:
    """Ask for progress marks: silence then means that the member is cut off or frozen."""
    while True:
        await asyncio.sleep(_PROGRESS_S)
        await stream.request_progress()
