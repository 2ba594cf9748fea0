"""Group commit: the one place where anything is written to the store.

Writes waiting at this coordinator travel together in one transaction: an outer compare (the fence of a
leader's writes) and one nested transaction per change with the change's own preconditions, so that
changes succeed or fail independently. A lone write leaves at once; writes that arrive while
`in_flight_max` transactions are under way wait for the next.

Guarantees: a change happens whole or not at all; under one request id at most once, whatever is retried
here or by the caller; a fenced change never after a newer term has begun. A transaction without an
answer is sent again (the same request ids and preconditions make that harmless) until the change's
deadline, then its outcome is reported as uncertain. A change without a request id whose first try was
done unheard therefore ends as PreconditionFailed: look again before doing it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from cloudless.coordinator.commit_figures import CommitFigures
from cloudless.coordinator.round_trip import RoundTrip
from cloudless.core import keys
from cloudless.core.model import RequestRecord
from cloudless.core.plan import Change, PutRecord
from cloudless.errors import (
    CloudlessError,
    CommitUncertain,
    Conflict,
    Fenced,
    InvariantBroken,
    LeaseLost,
    TooLarge,
    Unavailable,
)
from cloudless.ports import Clock, Compare, Delete, Get, Got, Put, Relation, Store, Target, Txn, TxnResult
from cloudless.rpc.codec import Malformed, decode_record, encode_record

ATTEMPT_MIN_S = 0.01


@dataclass(frozen=True, slots=True)
class CommitSettings:
    """Bounds of group commit.

    `batch_ops_max`: operations a transaction (etcd's --max-txn-ops must allow it). `batch_bytes_max`:
    bytes a transaction; one change may not exceed it. `attempt_timeout_least_s`, `attempt_timeout_s`: how long
    one transaction may take before it is sent again, depending on how long they usually take (a request in
    flight while etcd's leader dies is lost, but would hang 5 s and more; so does one sent before the death is
    noticed). After `patience_s` without an answer the store is slow rather than between two leaders, and each
    further attempt gets twice the time, so that repeating does not add to its load.
    """

    batch_ops_max: int = 512
    batch_bytes_max: int = 1 << 20
    in_flight_max: int = 3
    queue_length_max: int = 10_000
    attempt_timeout_least_s: float = 0.12
    attempt_timeout_s: float = 0.4
    attempt_timeout_max_s: float = 3.0
    patience_s: float = 2.0
    retry_pause_s: float = 0.03


@dataclass(frozen=True, slots=True)
class Fence:
    """A leader's key and term: its writes count only while that key has that create revision."""

    key: str
    term: int


class PreconditionFailed(CloudlessError):
    """An object a change relied on has moved; decide again from a newer view. `revision` is the store's."""

    code = "precondition-failed"

    def __init__(self, key: str, revision: int) -> None:
        self.key, self.revision = key, revision
        super().__init__(f"{key} changed meanwhile")


@dataclass(frozen=True, slots=True)
class Committed:
    """A change is durable at `revision`. `replayed`: an earlier request of the same id did it and got `answer`."""

    revision: int
    replayed: bool = False
    answer: str = ""


@dataclass(slots=True)
class _Waiting:
    change: Change
    request: RequestRecord | None
    deadline_s: float
    item: Txn
    written: frozenset[str]
    relied_on: frozenset[str]
    ops: int
    size_bytes: int
    done: asyncio.Future[Committed] = field(repr=False)
    uncertain: bool = False
    """Whether it may have been done already: it is under way, or was and got no answer."""


class Committer:
    """Commits changes under one fence (None: users' and agents' writes). `run` it; `commit` from any task."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        fence: Fence | None = None,
        settings: CommitSettings | None = None,
        figures: CommitFigures | None = None,
    ) -> None:
        self._store, self._clock, self._fence = store, clock, fence
        self._settings = settings or CommitSettings()
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(self._settings.in_flight_max)
        self._closed: CloudlessError | None = None
        self._round_trip = RoundTrip(self._settings.attempt_timeout_least_s, self._settings.attempt_timeout_s)
        self.figures = figures or CommitFigures()

    @property
    def queue_length(self) -> int:
        return len(self._queue)

    async def commit(
        self, change: Change, *, request: RequestRecord | None = None, timeout_s: float = 10.0
    ) -> Committed:
        """Write `change` durably and return its revision.

        Raises PreconditionFailed, Conflict (request id used for something else), Fenced, TooLarge,
        Unavailable (surely not done), CommitUncertain (no answer within `timeout_s`), NoSpace, LeaseLost.
        """
        waiting = self._enqueue(change, request, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting.done
        except TimeoutError as error:
            raise _unanswered(waiting, "the store did not answer in time") from error

    async def commit_all(
        self, changes: Sequence[Change], *, timeout_s: float = 10.0
    ) -> list[Committed | CloudlessError]:
        """Write independent changes, each with preconditions of its own; return what became of each, in order.

        The errors are those that `commit` raises. One wait for all of them costs half of as many single ones.
        """
        outcomes: list[_Waiting | CloudlessError] = []
        for change in changes:
            try:
                outcomes.append(self._enqueue(change, None, timeout_s))
            except CloudlessError as error:
                outcomes.append(error)
        under_way = [outcome.done for outcome in outcomes if isinstance(outcome, _Waiting)]
        if under_way:
            try:
                await asyncio.wait(under_way, timeout=timeout_s)
            finally:  # nobody waits for the rest: they are not sent, or not again
                for outcome in outcomes:
                    if isinstance(outcome, _Waiting):
                        _fail(outcome, _unanswered(outcome, "the store did not answer in time"))
                        outcome.done.exception()  # asked for, also if this wait was cancelled
        return [_result_of(outcome) if isinstance(outcome, _Waiting) else outcome for outcome in outcomes]

    def _enqueue(self, change: Change, request: RequestRecord | None, timeout_s: float) -> _Waiting:
        if self._closed is not None:
            raise self._closed
        if len(self._queue) >= self._settings.queue_length_max:
            raise Unavailable("too many writes are waiting", hint="try again in a moment")
        waiting = self._prepare(change, request, timeout_s)
        self._queue.append(waiting)
        self._arrived.set()
        return waiting

    async def find_done(self, request_id: str, fingerprint: str, *, timeout_s: float) -> Committed | None:
        """Return the outcome of an earlier request of this id, None if there was none (linearizable).

        Raises Conflict if the id was used for something else, Unavailable.
        """
        result = await self._store.txn(Txn(then=(Get(keys.request(request_id)),)), timeout_s=timeout_s)
        (found,) = result.results
        assert isinstance(found, Got)
        if found.kv is None:
            return None
        return _replayed(request_id, fingerprint, found.kv.value, found.kv.mod_revision)

    def _prepare(self, change: Change, request: RequestRecord | None, timeout_s: float) -> _Waiting:
        item, size = _to_item(change, request)
        ops = max(len(item.then), len(item.compares)) + 1
        if size > self._settings.batch_bytes_max or ops > self._settings.batch_ops_max:
            raise TooLarge(
                f"the change has {ops} operations and {size} bytes; at most {self._settings.batch_ops_max} "
                f"operations and {self._settings.batch_bytes_max} bytes can be written at once",
                hint="split the request",
            )
        relied_on = frozenset(compare.key for compare in item.compares)
        deadline_s = self._clock.monotonic_s() + timeout_s
        done: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        return _Waiting(change, request, deadline_s, item, change.keys(), relied_on, ops, size, done)

    async def run(self) -> None:
        """Send batches until cancelled; then every waiting change fails as not done or uncertain."""
        try:
            async with asyncio.TaskGroup() as batches:
                while True:
                    await self._arrived.wait()
                    await self._slots.acquire()
                    batch = self._take_batch()
                    if not batch:
                        self._slots.release()
                        continue
                    # A task that is cancelled before it began runs nothing: what must be done stands in the callback.
                    batches.create_task(self._send(batch)).add_done_callback(partial(self._finish, batch))
        finally:
            self._closed = self._closed or Unavailable("this coordinator is stopping or no longer leads")
            for waiting in self._queue:
                _fail(waiting, self._closed)
            self._queue.clear()

    def _take_batch(self) -> list[_Waiting]:
        """Take what fits one transaction, in order, without those whose callers gave up.

        A change that writes or relies on a key the batch writes ends it: the store evaluates all preconditions
        before the transaction's first write.
        """
        batch: list[_Waiting] = []
        taken: set[str] = set()
        ops = size = 0
        while self._queue:
            waiting = self._queue[0]
            if waiting.done.done():
                self._queue.popleft()
                continue
            ops += waiting.ops
            size += waiting.size_bytes
            full = ops > self._settings.batch_ops_max or size > self._settings.batch_bytes_max
            if batch and (full or not taken.isdisjoint(waiting.written | waiting.relied_on)):
                break
            batch.append(self._queue.popleft())
            taken |= waiting.written
        if not self._queue:
            self._arrived.clear()
        return batch

    def _finish(self, batch: list[_Waiting], task: asyncio.Task[None]) -> None:
        """Free the slot; answer those that the task could not answer because it was cancelled or failed."""
        self._slots.release()
        for waiting in batch:
            _fail(waiting, _unanswered(waiting, "the coordinator stopped while the write was under way"))

    async def _send(self, batch: list[_Waiting]) -> None:
        """Send a batch. If one change gets the whole transaction refused, halve it until that one stands alone."""
        try:
            await self._send_until_answered(batch)
        except (LeaseLost, TooLarge, InvariantBroken) as error:
            middle = len(batch) // 2
            if middle:
                await self._send(batch[:middle])
                await self._send(batch[middle:])
            else:
                _fail(batch[0], error)
        except CloudlessError as error:
            if isinstance(error, Fenced):
                self._closed = error
            for waiting in batch:
                certain = isinstance(error, Fenced) or not waiting.uncertain
                _fail(waiting, error if certain else CommitUncertain(f"an earlier try may have been done: {error}"))

    async def _send_until_answered(self, batch: list[_Waiting]) -> None:
        """Send what is still waited for, again and again; `commit` gives up for each change at its own deadline."""
        timeout_s = self._round_trip.overdue_s
        patient_from_s = self._clock.monotonic_s() + self._settings.patience_s
        sent_s = self._clock.monotonic_s()
        while waited_for := [waiting for waiting in batch if not waiting.done.done()]:
            left_s = max(waiting.deadline_s for waiting in waited_for) - self._clock.monotonic_s()
            txn = Txn(compares=self._fence_compares(), then=tuple(waiting.item for waiting in waited_for))
            before = waited_for[0].uncertain  # they travel together: what holds for one holds for all
            _mark_uncertain(waited_for, True)
            try:
                result = await self._store.txn(txn, timeout_s=max(ATTEMPT_MIN_S, min(timeout_s, left_s)))
            except CommitUncertain:
                self.figures.unanswered_total += 1
                if self._clock.monotonic_s() >= patient_from_s:
                    timeout_s = min(timeout_s * 2, self._settings.attempt_timeout_max_s)
            except CloudlessError as error:
                _mark_uncertain(waited_for, before)
                if not isinstance(error, Unavailable):
                    raise
            else:
                took_s = self._clock.monotonic_s() - sent_s
                self._round_trip.take(took_s)
                return self._hand_out(waited_for, result, took_s)
            await self._clock.sleep(self._settings.retry_pause_s)

    def _hand_out(self, batch: list[_Waiting], result: TxnResult, took_s: float) -> None:
        if not result.succeeded:
            assert self._fence is not None
            self.figures.fenced_total += 1
            raise Fenced(f"term {self._fence.term} has ended")
        self.figures.note(len(batch), took_s)
        for waiting, answer in zip(batch, result.results, strict=True):
            assert isinstance(answer, TxnResult)
            _settle(waiting, answer)

    def _fence_compares(self) -> tuple[Compare, ...]:
        if self._fence is None:
            return ()
        return (Compare(self._fence.key, Target.CREATE, Relation.EQUAL, self._fence.term),)


def _to_item(change: Change, request: RequestRecord | None) -> tuple[Txn, int]:
    """Return the change as a nested transaction, and about how many bytes it is."""
    if request is None and not change.preconditions and change.puts:  # deleting twice is harmless
        raise ValueError(f"a change needs a request id or a precondition to be repeatable: {change.reason}")
    if request is not None and all(put.key != keys.request(request.id) for put in change.puts):
        raise ValueError(f"a change must remember its request, see `with_request`: {change.reason}")
    puts = [Put(put.key, encode_record(put.record), put.lease_id) for put in change.puts]
    compares = [_to_compare(p.key, p.mod_revision) for p in change.preconditions]
    lookups: list[Get] = [Get(p.key) for p in change.preconditions]
    if request is not None:
        key = keys.request(request.id)
        compares.append(Compare(key, Target.CREATE, Relation.EQUAL, 0))
        lookups.insert(0, Get(key))
    size = sum(len(put.key) + len(put.value) for put in puts) + 64 * (len(compares) + len(change.deletes))
    then: tuple[Put | Delete, ...] = (*puts, *(Delete(key) for key in change.deletes))
    return Txn(tuple(compares), then, tuple(lookups)), size


def with_request(change: Change, request: RequestRecord, lease_id: int) -> Change:
    """Return `change` that also remembers `request` until the lease ends."""
    return replace(change, puts=(*change.puts, PutRecord(keys.request(request.id), request, lease_id)))


def _to_compare(key: str, mod_revision: int) -> Compare:
    if mod_revision == 0:
        return Compare(key, Target.CREATE, Relation.EQUAL, 0)
    return Compare(key, Target.MOD, Relation.EQUAL, mod_revision)


def _mark_uncertain(batch: list[_Waiting], uncertain: bool) -> None:
    for waiting in batch:
        waiting.uncertain = uncertain


def _unanswered(waiting: _Waiting, message: str) -> CloudlessError:
    return CommitUncertain(message) if waiting.uncertain else Unavailable(message)


def _result_of(waiting: _Waiting) -> Committed | CloudlessError:
    error = waiting.done.exception()
    if error is None:
        return waiting.done.result()
    if not isinstance(error, CloudlessError):
        raise error
    return error


def _fail(waiting: _Waiting, error: CloudlessError) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def _settle(waiting: _Waiting, result: TxnResult) -> None:
    if waiting.done.done():
        return
    try:
        waiting.done.set_result(_outcome(waiting, result))
    except CloudlessError as error:
        waiting.done.set_exception(error)


def _outcome(waiting: _Waiting, result: TxnResult) -> Committed:
    if result.succeeded:
        return Committed(result.revision)
    found = [item.kv for item in result.results if isinstance(item, Got)]
    if waiting.request is not None:
        remembered = found.pop(0)
        if remembered is not None:
            request = waiting.request
            return _replayed(request.id, request.fingerprint, remembered.value, remembered.mod_revision)
    for expected, kv in zip(waiting.change.preconditions, found, strict=True):
        if (kv.mod_revision if kv else 0) != expected.mod_revision:
            raise PreconditionFailed(expected.key, result.revision)
    raise PreconditionFailed(waiting.change.preconditions[0].key, result.revision)


def _replayed(request_id: str, fingerprint: str, value: bytes, revision: int) -> Committed:
    parsed = keys.parse(keys.request(request_id))
    assert parsed is not None
    try:
        record = decode_record(parsed, value)
    except Malformed as error:
        raise Conflict(f"the record of request {request_id} is unreadable: {error}") from error
    assert isinstance(record, RequestRecord)
    if record.fingerprint != fingerprint:
        raise Conflict(
            f"request id {request_id} was used for a different request", hint="use a fresh request id for a new request"
        )
    return Committed(revision, replayed=True, answer=record.answer)
