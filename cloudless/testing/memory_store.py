"""A `Store` in memory with etcd's semantics, for tests and simulation.

One revision counter; a transaction that writes takes one revision for all its keys; nested
transactions see the writes before them; compares inside nested transactions are evaluated against the
state before the whole transaction, as etcd does; a key may be put once a transaction. Leases expire
when `expire_leases` is called with the clock past their end: nothing happens by itself. Every call lets
others run once, as a real one would.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from cloudless.errors import Compacted, InvariantBroken, LeaseLost, TooLarge, Unavailable
from cloudless.ports import (
    Compare,
    Delete,
    Done,
    Event,
    Get,
    Got,
    KeyValue,
    Lease,
    Page,
    Put,
    Relation,
    Target,
    Txn,
    TxnResult,
    WatchBatch,
)

LEASE_TTL_MIN_S = 1
REQUEST_BYTES_MAX = 1_572_864
TXN_OPS_MAX = 2_048


@dataclass
class _HeldLease:
    ttl_s: int
    expires_s: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """A whole etcd cluster as one object; every caller shares it. `now_s` is a monotonic clock in seconds.

    `loses_last_deletions`: a watch from exactly the compacted revision is not told what was deleted at it, as etcd
    before 3.4.34 and 3.5.15 behaves (its issue 18089).
    """

    def __init__(self, now_s: Callable[[], float], *, cluster_id: int = 1, loses_last_deletions: bool = False) -> None:
        self._loses_last_deletions = loses_last_deletions
        self._now_s, self._cluster_id = now_s, cluster_id
        self._revision = 1
        self._compacted = 0
        self._live: dict[str, KeyValue] = {}
        self._log: list[Event] = []
        self._leases: dict[int, _HeldLease] = {}
        self._lease_counter = 0
        self._changed = asyncio.Condition()

    @property
    def revision(self) -> int:
        return self._revision

    def events_after(self, revision: int) -> tuple[Event, ...]:
        """Return every kept change after `revision`, in order."""
        start = bisect_right(self._log, revision, key=lambda event: event.kv.mod_revision)
        return tuple(self._log[start:])

    def lives(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def extend_leases(self) -> None:
        """Give every lease its full time again, as a new leader of etcd's own election does."""
        for lease in self._leases.values():
            lease.expires_s = self._now_s() + lease.ttl_s

    # --- transactions ---

    async def txn(self, txn: Txn, *, timeout_s: float) -> TxnResult:
        await asyncio.sleep(0)
        _refuse_excess(txn)
        _refuse_duplicate_puts(txn)
        plan = _Decided(self._live).resolve(txn)
        self._refuse_lost_leases(plan)
        revision = self._revision + 1
        events: list[Event] = []
        staged = dict(self._live)
        results = self._run(plan, revision, staged, events)
        if events:
            self._live, self._revision = staged, revision
            self._log.extend(events)
            await self._announce()
        return _stamp(TxnResult(plan.succeeded, 0, results), self._revision)

    def _run(
        self, plan: _Resolved, revision: int, staged: dict[str, KeyValue], events: list[Event]
    ) -> tuple[Done | Got | TxnResult, ...]:
        results: list[Done | Got | TxnResult] = []
        for op in plan.ops:
            match op:
                case Put():
                    self._put(op, revision, staged, events)
                    results.append(Done())
                case Delete(key):
                    results.append(Done(self._delete(key, revision, staged, events)))
                case Get(key):
                    results.append(Got(staged.get(key)))
                case _Resolved():
                    results.append(TxnResult(op.succeeded, 0, self._run(op, revision, staged, events)))
        return tuple(results)

    def _refuse_lost_leases(self, plan: _Resolved) -> None:
        for op in plan.ops:
            if isinstance(op, _Resolved):
                self._refuse_lost_leases(op)
            elif isinstance(op, Put) and op.lease_id and op.lease_id not in self._leases:
                raise LeaseLost(f"lease {op.lease_id:x} does not exist")

    def _put(self, op: Put, revision: int, staged: dict[str, KeyValue], events: list[Event]) -> None:
        before = staged.get(op.key)
        if before is not None and before.lease_id in self._leases:
            self._leases[before.lease_id].keys.discard(op.key)
        kv = KeyValue(op.key, op.value, before.create_revision if before else revision, revision, op.lease_id)
        staged[op.key] = kv
        if op.lease_id:
            self._leases[op.lease_id].keys.add(op.key)
        events.append(Event(kv))

    def _delete(self, key: str, revision: int, staged: dict[str, KeyValue], events: list[Event]) -> int:
        before = staged.pop(key, None)
        if before is None:
            return 0
        if before.lease_id in self._leases:
            self._leases[before.lease_id].keys.discard(key)
        events.append(Event(KeyValue(key, b"", 0, revision), deleted=True))
        return 1

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- reading ---

    async def read_page(
        self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 5000, timeout_s: float = 5.0
    ) -> Page:
        await asyncio.sleep(0)
        at = revision or self._revision
        if at < self._compacted:
            raise Compacted(self._compacted)
        if at > self._revision:
            raise Unavailable(f"revision {at} is in the future")
        state = self._live if at == self._revision else self._state_at(at)
        keys = sorted(key for key in state if key.startswith(prefix) and key > start_after)
        kvs = tuple(state[key] for key in keys[:limit])
        return Page(kvs=kvs, revision=at, more=len(keys) > limit, cluster_id=self._cluster_id)

    def _state_at(self, revision: int) -> dict[str, KeyValue]:
        state: dict[str, KeyValue] = {}
        for event in self._log:
            if event.kv.mod_revision > revision:
                break
            if event.deleted:
                state.pop(event.kv.key, None)
            else:
                state[event.kv.key] = event.kv
        return state

    async def current_revision(self, *, timeout_s: float) -> int:
        await asyncio.sleep(0)
        return self._revision

    def watch(self, prefix: str, *, start_revision: int) -> MemoryWatch:
        return MemoryWatch(self, prefix, start_revision)

    # --- leases ---

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        await asyncio.sleep(0)
        self._lease_counter += 1
        ttl_s = max(ttl_s, LEASE_TTL_MIN_S)
        self._leases[self._lease_counter] = _HeldLease(ttl_s, self._now_s() + ttl_s)
        return Lease(self._lease_counter, ttl_s)

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        await asyncio.sleep(0)
        await self.expire_leases()
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseLost(f"lease {lease_id:x} has expired")
        lease.expires_s = self._now_s() + lease.ttl_s
        return lease.ttl_s

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return
        revision, events = self._revision + 1, list[Event]()
        for key in sorted(lease.keys):
            self._delete(key, revision, self._live, events)
        if events:
            self._revision = revision
            self._log.extend(events)
            await self._announce()

    async def expire_leases(self) -> None:
        """End every lease whose time has passed."""
        for lease_id in self.expired():
            await self.revoke(lease_id, timeout_s=1)

    def expired(self) -> list[int]:
        """Return the leases whose time has passed and that have not been ended yet."""
        now_s = self._now_s()
        return [lease_id for lease_id, lease in self._leases.items() if lease.expires_s <= now_s]

    # --- the rest ---

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        if revision <= self._compacted:
            return
        if revision > self._revision:
            raise Unavailable(f"revision {revision} is in the future")
        state = self._state_at(revision)
        kept = [Event(kv) for kv in state.values()]
        if not self._loses_last_deletions:
            kept += [event for event in self._log if event.deleted and event.kv.mod_revision == revision]
        kept.sort(key=lambda event: event.kv.mod_revision)
        self._log = kept + [event for event in self._log if event.kv.mod_revision > revision]
        self._compacted = revision
        await self._announce()

    async def close(self) -> None:
        return


class MemoryWatch:
    """A watch on a MemoryStore; one batch holds everything that happened since the one before."""

    def __init__(self, store: MemoryStore, prefix: str, start_revision: int) -> None:
        if start_revision <= 0:
            raise ValueError("a watch starts at a revision > 0; 0 would silently mean now")
        self._store, self._prefix, self._next = store, prefix, start_revision
        self._closed = self._progress_wanted = False

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        store = self._store
        while not self._closed:
            if self._next < store._compacted:
                raise Compacted(store._compacted)
            if store._revision >= self._next:
                events = tuple(
                    event for event in store.events_after(self._next - 1) if event.kv.key.startswith(self._prefix)
                )
                self._next = store._revision + 1
                if events:
                    yield WatchBatch(events[-1].kv.mod_revision, events)
                    continue
            if self._progress_wanted:
                self._progress_wanted = False
                yield WatchBatch(store._revision)
                continue
            async with store._changed:
                if store._revision < self._next and not self._progress_wanted and not self._closed:
                    await store._changed.wait()

    async def request_progress(self) -> None:
        self._progress_wanted = True
        await self._store._announce()

    async def close(self) -> None:
        self._closed = True
        await self._store._announce()


# --- transactions decided before they run -------------------------------------------------------


@dataclass(frozen=True)
class _Resolved:
    """A transaction with its branch chosen, and those of the transactions inside it."""

    succeeded: bool
    ops: tuple[Put | Delete | Get | _Resolved, ...]


@dataclass(frozen=True)
class _Decided:
    """Evaluates compares against the state before the outermost transaction."""

    before: dict[str, KeyValue]

    def resolve(self, txn: Txn) -> _Resolved:
        succeeded = all(self._holds(compare) for compare in txn.compares)
        chosen = txn.then if succeeded else txn.orelse
        return _Resolved(succeeded, tuple(self.resolve(op) if isinstance(op, Txn) else op for op in chosen))

    def _holds(self, compare: Compare) -> bool:
        kv = self.before.get(compare.key)
        target = "create_revision" if compare.target is Target.CREATE else "mod_revision"
        actual = getattr(kv, target, 0)
        match compare.relation:
            case Relation.EQUAL:
                return actual == compare.revision
            case Relation.NOT_EQUAL:
                return actual != compare.revision
            case Relation.GREATER:
                return actual > compare.revision
            case Relation.LESS:
                return actual < compare.revision


def _refuse_excess(txn: Txn) -> None:
    if _size_bytes(txn) > REQUEST_BYTES_MAX:
        raise TooLarge("the request is too large")
    if _ops(txn) > TXN_OPS_MAX:
        raise TooLarge("too many operations in one transaction")


def _size_bytes(txn: Txn) -> int:
    inner = [*txn.then, *txn.orelse]
    values = sum(len(op.value) for op in inner if isinstance(op, Put))
    names = sum(len(op.key) for op in (*inner, *txn.compares) if not isinstance(op, Txn))
    return names + values + sum(_size_bytes(op) for op in inner if isinstance(op, Txn))


def _ops(txn: Txn) -> int:
    """Count as etcd does: the longest of a level's three lists, and the worst of what is nested in it."""
    nested = [_ops(op) for op in (*txn.then, *txn.orelse) if isinstance(op, Txn)]
    return max(len(txn.compares), len(txn.then), len(txn.orelse)) + max(nested, default=0)


def _refuse_duplicate_puts(txn: Txn) -> None:
    _written(txn.then)
    _written(txn.orelse)


def _written(ops: tuple[Put | Delete | Get | Txn, ...]) -> tuple[set[str], set[str]]:
    """Return the keys put and the keys deleted by a list of operations. Raises InvariantBroken as etcd would.

    The order is etcd's own: the two branches of one nested transaction exclude each other and may share keys,
    deletes may repeat, and a nested delete that comes after a nested put of its key is not noticed.
    """
    deletes = {op.key for op in ops if isinstance(op, Delete)}
    puts: set[str] = set()
    for op in ops:
        if isinstance(op, Txn):
            (then_puts, then_deletes), (else_puts, else_deletes) = _written(op.then), _written(op.orelse)
            _refuse_overlap(then_puts | else_puts, puts | deletes)
            puts |= then_puts | else_puts
            deletes |= then_deletes | else_deletes
    for op in ops:
        if isinstance(op, Put):
            _refuse_overlap({op.key}, puts | deletes)
            puts.add(op.key)
    return puts, deletes


def _refuse_overlap(keys: set[str], taken: set[str]) -> None:
    if overlap := sorted(keys & taken):
        raise InvariantBroken(f"{overlap[0]} is written twice in one transaction")


def _stamp(result: TxnResult, revision: int) -> TxnResult:
    """Give a result and all results inside it the revision of the store after the transaction."""
    inner = tuple(_stamp(item, revision) if isinstance(item, TxnResult) else item for item in result.results)
    return replace(result, revision=revision, results=inner)
