"""This coordinator's copy of the state: read once, then kept up to date by a watch.

Loads a range at one fixed revision in pages, then watches from the next revision on. A watch that
breaks is resumed; one whose start is compacted leads to a fresh read and a diff, deletions included; a
changed cluster id or a revision that went back means the store was restored, and everything is
discarded. A watch that hangs in silence is found by the freshness check: a linearizable read whose
revision does not arrive in time ends the stream.

`fresh_at_s` is the last moment at which this copy is known to have held every acknowledged write.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from loguru import logger

from cloudless.core import keys
from cloudless.core.state import Applied, Malformed, Removed, StateEvent, StateMachine, Stored, fingerprint
from cloudless.errors import CloudlessError, Compacted, Stale, Unavailable
from cloudless.ports import Clock, Event, KeyValue, Page, Store, WatchStream
from cloudless.rpc import codec

_DECODED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Timings and bounds of the copy.

    `check_period_s`: between freshness checks. `catch_up_timeout_s`: how long a linearizable revision may
    take to arrive before the watch counts as hung. `digests_kept`: revisions whose digest is remembered.
    `history_length_max`: changes kept for watchers that resume. `progress_pause_s`: how long a revision may be on
    its way before a progress mark is asked for, doubled each time up to `progress_pause_max_s`.
    """

    page_size: int = 5000
    check_period_s: float = 1.0
    catch_up_timeout_s: float = 3.0
    read_timeout_s: float = 0.5
    read_retry_pause_s: float = 0.05
    progress_pause_s: float = 0.05
    progress_pause_max_s: float = 0.4
    retry_pause_s: float = 0.2
    digests_kept: int = 4096
    history_length_max: int = 20_000


class WatchReset(Enum):
    """Why the watch had to be opened anew; also the metric's label.

    BROKEN     its stream ended
    HUNG       it did not deliver what was known to be written
    COMPACTED  the history it was to go on from is gone
    RESTORED   the store was put back to an older state, or replaced
    """

    BROKEN = "broken"
    HUNG = "hung"
    COMPACTED = "compacted"
    RESTORED = "restored"


def _nobody_asks(took_s: float) -> None:
    return None


class Replica:
    """The state machine of one coordinator and everything that waits for it. `run` it first.

    `on_catch_up` is told the seconds that each freshness check took: a linearizable read, then applying up to it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: ReplicaSettings | None = None,
        *,
        on_catch_up: Callable[[float], None] = _nobody_asks,
    ) -> None:
        self._store, self._clock, self._on_catch_up = store, clock, on_catch_up
        self._settings = settings or ReplicaSettings()
        self.machine = StateMachine()
        self.loaded = asyncio.Event()
        self.fresh_at_s = float("-inf")
        self.resets_total = 0
        self.watch_resets: Counter[WatchReset] = Counter()
        self._hung = False
        self._store_cluster_id = 0
        self._stream: WatchStream | None = None
        self._listeners: list[Callable[[Applied], None]] = []
        self._waiters: dict[int, _Waiters] = {}
        self._digests: deque[tuple[int, int]] = deque(maxlen=self._settings.digests_kept)
        self._history: deque[Applied] = deque()
        self._history_length = 0
        self._history_from = 0
        self._linearizable = _SharedRead(store, self._settings.read_timeout_s)

    # --- for readers ---

    @property
    def staleness_s(self) -> float:
        """Seconds since this copy last knew itself complete; infinite before it was loaded."""
        return max(0.0, self._clock.monotonic_s() - self.fresh_at_s)

    def listen(self, listener: Callable[[Applied], None]) -> Callable[[], None]:
        """Call `listener` with every change, synchronously, in order; return a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def listener_count(self) -> int:
        return len(self._listeners)

    async def wait_for(self, revision: int, *, timeout_s: float) -> None:
        """Return once this copy holds `revision`. Raises Stale after `timeout_s`."""
        if self.machine.revision >= revision and self.loaded.is_set():
            return
        waiters = self._waiters.setdefault(revision, _Waiters())
        waiters.count += 1
        try:
            async with asyncio.timeout(timeout_s):
                pause_s = self._settings.progress_pause_s
                while not await _happens(waiters.arrived, pause_s):
                    # The revision may be of a write outside our prefix: only a progress mark brings it. The store
                    # gives none while it is behind, and a watch that is just being opened cannot ask: ask again.
                    await self.request_progress()
                    pause_s = min(2 * pause_s, self._settings.progress_pause_max_s)
        except TimeoutError as error:
            raise Stale(
                f"this coordinator has revision {self.machine.revision}, {revision} was asked for",
                hint="ask another coordinator, or with --consistency stale",
            ) from error
        finally:
            waiters.count -= 1
            if not waiters.count and self._waiters.get(revision) is waiters:
                del self._waiters[revision]

    async def linearize(self, *, timeout_s: float) -> int:
        """Bring this copy up to every write acknowledged before the call; return that revision.

        Raises Unavailable without a quorum, Stale if the copy does not catch up in time, or is of a store that
        was restored to an older state since.
        """
        started_s, held = self._clock.monotonic_s(), self.machine.revision
        revision = await self._read_revision(started_s + timeout_s)
        if revision < held:
            raise Stale(f"the store is at revision {revision}, this copy was at {held} before: it was restored")
        await self.wait_for(revision, timeout_s=max(0.01, timeout_s - (self._clock.monotonic_s() - started_s)))
        self.fresh_at_s = max(self.fresh_at_s, started_s)
        return revision

    async def _read_revision(self, deadline_s: float) -> int:
        """Ask the store for its revision, again while it fails: a member without a leader refuses at once."""
        while True:
            try:
                return await self._linearizable.read(max(0.01, deadline_s - self._clock.monotonic_s()))
            except Unavailable:
                if self._clock.monotonic_s() + self._settings.read_retry_pause_s >= deadline_s:
                    raise
                await self._clock.sleep(self._settings.read_retry_pause_s)

    async def request_progress(self) -> None:
        if self._stream is not None:
            await self._stream.request_progress()

    def find_digest(self, revision: int) -> int | None:
        """Return the digest the state had at `revision`, None if it is no longer (or not yet) known."""
        if revision > self.machine.revision:
            return None
        for known, digest in reversed(self._digests):
            if known <= revision:
                return digest
        return None

    def find_history(self, from_revision: int) -> list[Applied] | None:
        """Return all kept batches with changes from `from_revision` on, None if that is too long ago or yet to come."""
        if not self._history_from <= from_revision <= self.machine.revision + 1:
            return None
        return [applied for applied in self._history if applied.revision >= from_revision]

    # --- keeping up ---

    async def run(self) -> None:
        """Load, follow, check, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="replica-follow")
            group.create_task(self._check(), name="replica-check")

    async def _follow(self) -> None:
        must_load = True
        while True:
            try:
                if must_load:
                    await self._load()
                    must_load = False
                await self._watch()
                self._note_end(WatchReset.BROKEN)
            except Compacted:
                self._note_end(WatchReset.COMPACTED)
                logger.info(
                    "history before our revision {revision} is compacted: reading afresh",
                    revision=self.machine.revision,
                )
                must_load = True
            except CloudlessError as error:
                self._note_end(WatchReset.BROKEN)
                logger.debug("watch interrupted: {}", error)
            await self._clock.sleep(self._settings.retry_pause_s)
            if not must_load:
                must_load = await self._store_was_restored()
                if must_load:
                    self.watch_resets[WatchReset.RESTORED] += 1

    def _note_end(self, cause: WatchReset) -> None:
        """Count an end of the watch, or a read that failed; one ended because it hung has that for its cause."""
        self.watch_resets[WatchReset.HUNG if self._hung else cause] += 1
        self._hung = False

    async def _store_was_restored(self) -> bool:
        """Ask until there is an answer: following a store without knowing that it is the same one is no use."""
        while True:
            try:
                page = await self._store.read_page(keys.CLUSTER, limit=1, timeout_s=self._settings.read_timeout_s)
                break
            except CloudlessError as error:
                logger.debug("the store does not say which one it is: {}", error)
                await self._clock.sleep(self._settings.retry_pause_s)
        restored = page.cluster_id != self._store_cluster_id or page.revision < self.machine.revision
        if restored:
            logger.warning("the store was restored or replaced: discarding everything held")
        return restored

    async def _load(self) -> None:
        started_s = self._clock.monotonic_s()
        first, entries = await self._read_all()
        applied = self.machine.reset(first.revision, entries)
        self._store_cluster_id = first.cluster_id
        self._history.clear()
        self._history_length, self._history_from = 0, first.revision + 1
        self._digests.clear()
        self.resets_total += 1
        self.loaded.set()
        self.fresh_at_s = max(self.fresh_at_s, started_s)
        self._publish(applied, keep=False)
        count = self.machine.entry_count
        logger.info("state loaded at revision {revision}: {} entries", count, revision=first.revision)

    async def _read_all(self) -> tuple[Page, list[Stored | Malformed]]:
        """Return the first page, and the entries of all at its revision; the store reads on while we decode."""
        first = page = await self._store.read_page(keys.PREFIX, limit=self._settings.page_size)
        entries: list[Stored | Malformed] = []
        following: asyncio.Task[Page] | None = None
        try:
            while page.more:
                following = asyncio.create_task(self._read_after(page, first.revision), name="replica-page")
                await _decode_into(entries, page.kvs)
                page = await following
            await _decode_into(entries, page.kvs)
        finally:
            if following is not None:
                following.cancel()
        return first, entries

    async def _read_after(self, page: Page, revision: int) -> Page:
        return await self._store.read_page(
            keys.PREFIX, start_after=page.kvs[-1].key, revision=revision, limit=self._settings.page_size
        )

    async def _watch(self) -> None:
        # From our own revision, not the next: etcd before 3.4.34 and 3.5.15 lets a watch begin at the very revision
        # it compacted and does not tell what was deleted at it. What comes twice is ignored.
        self._stream = self._store.watch(keys.PREFIX, start_revision=self.machine.revision)
        try:
            async for batch in self._stream:
                for revision, events in itertools.groupby(batch.events, key=lambda event: event.kv.mod_revision):
                    decoded = [_decode_event(event) for event in events]
                    self._publish(self.machine.apply(revision, decoded), keep=True)
                if not batch.events:
                    self._publish(self.machine.apply(batch.revision, ()), keep=False)
        finally:
            stream, self._stream = self._stream, None
            await stream.close()

    def _publish(self, applied: Applied, *, keep: bool) -> None:
        self._digests.append((applied.revision, self.machine.digest))
        if keep and applied.transitions:
            self._remember(applied)
        for revision in [revision for revision in self._waiters if revision <= applied.revision]:
            self._waiters.pop(revision).arrived.set()
        for listener in tuple(self._listeners):
            listener(applied)

    def _remember(self, applied: Applied) -> None:
        self._history.append(applied)
        self._history_length += len(applied.transitions)
        while self._history_length > self._settings.history_length_max:
            dropped = self._history.popleft()
            self._history_length -= len(dropped.transitions)
            self._history_from = dropped.revision + 1

    async def _check(self) -> None:
        """Prove freshness now and then; end a watch that does not deliver what is known to be written."""
        await self.loaded.wait()
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self.linearize(timeout_s=self._settings.catch_up_timeout_s)
                self._on_catch_up(self._clock.monotonic_s() - began_s)
            except Stale:
                revision = self.machine.revision
                logger.warning(
                    "the watch is behind or hangs at revision {revision}: opening it anew", revision=revision
                )
                if self._stream is not None:
                    self._hung = True
                    await self._stream.close()
            except CloudlessError as error:
                logger.debug("freshness check failed: {}", error)
            await self._clock.sleep(self._settings.check_period_s)


class _Waiters:
    """All who wait for one revision: those of a group commit share it."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.count = 0


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


class _SharedRead:
    """Linearizable reads that wait at the same time share one request, sent after the last of them began."""

    def __init__(self, store: Store, timeout_s: float) -> None:
        self._store, self._timeout_s = store, timeout_s
        self._next: asyncio.Task[int] | None = None
        self._under_way: asyncio.Task[int] | None = None

    async def read(self, timeout_s: float) -> int:
        if self._next is None:
            self._next = asyncio.create_task(self._read_after(self._under_way), name="linearizable-read")
            self._next.add_done_callback(_consume_error)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._next)
        except TimeoutError as error:
            raise Unavailable("the store did not answer a linearizable read in time") from error

    async def _read_after(self, before: asyncio.Task[int] | None) -> int:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._under_way, self._next = self._next, None  # whoever comes from now on waits for the next request
        return await self._store.current_revision(timeout_s=self._timeout_s)


def _consume_error(task: asyncio.Task[int]) -> None:
    if not task.cancelled():
        task.exception()


# --- decoding at the edge -----------------------------------------------------------------------


def _decode_event(event: Event) -> StateEvent:
    if event.deleted:
        return Removed(event.kv.key, event.kv.mod_revision)
    return _decode(event.kv)


async def _decode_into(entries: list[Stored | Malformed], kvs: Sequence[KeyValue]) -> None:
    """Decode a few at a time: leases are renewed meanwhile, and the next page comes in."""
    for start in range(0, len(kvs), _DECODED_AT_ONCE):
        await asyncio.sleep(0)
        entries.extend(map(_decode, kvs[start : start + _DECODED_AT_ONCE]))


def _decode(kv: KeyValue) -> Stored | Malformed:
    mark = fingerprint(kv.key, kv.value, kv.create_revision, kv.mod_revision)
    parsed = keys.parse(kv.key)
    if parsed is None:
        return Malformed(kv.key, "a key this version does not know", kv.create_revision, kv.mod_revision, mark)
    try:
        record = codec.decode_record(parsed, kv.value)
    except codec.Malformed as error:
        return Malformed(kv.key, str(error), kv.create_revision, kv.mod_revision, mark)
    return Stored(kv.key, parsed, record, kv.create_revision, kv.mod_revision, mark)
