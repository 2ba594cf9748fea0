"""Everything etcd's members stored, in order: the record that acknowledgements and terms are checked against.

Read from etcd itself, past the coordinators, so that what a coordinator got wrong cannot agree with itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.system import SystemClock
from cloudless.cli.dev.report import Ack
from cloudless.cli.dev.writer import ANNOTATION, NAMESPACE
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import EventRecord, NodeStatus, Record, TaskDesired, WorkloadRecord
from cloudless.ports import Event
from cloudless.rpc import codec

_READ_S = 15.0


@dataclass(frozen=True, slots=True)
class Change:
    """One key's new value; `record` is None for a deletion, or a value that cannot be read."""

    revision: int
    key: str
    record: Record | None


@dataclass
class StoreRecord:
    """All changes from `next_revision` on, as far as they were read."""

    next_revision: int
    changes: list[Change] = field(default_factory=list)

    def read(self, open_store: Callable[[], EtcdStore]) -> int:
        """Read on up to the newest revision of a member; return it. Raises CloudlessError."""
        asyncio.run(self.follow(open_store))
        return self.next_revision - 1

    async def follow(self, open_store: Callable[[], EtcdStore]) -> None:
        """Read on, on the caller's event loop."""
        store = open_store()
        try:
            async with asyncio.timeout(_READ_S):
                newest = await store.current_revision(timeout_s=_READ_S)
                watch = store.watch(keys.PREFIX, start_revision=self.next_revision)
                try:
                    await watch.request_progress()
                    async for batch in watch:
                        self.changes += [_change_of(event) for event in batch.events]
                        self.next_revision = max(self.next_revision, batch.revision + 1)
                        if batch.revision >= newest:
                            return
                        if not batch.events:
                            await asyncio.sleep(0.05)
                        await watch.request_progress()
                finally:
                    await watch.close()
        finally:
            await store.close()

    def lost(self, acks: list[Ack]) -> list[str]:
        """Return the acknowledged writes that are not stored at the revision acknowledged, as far as was read."""
        stored = {(change.revision, name): value for change, name, value in self._values()}
        return [
            f"{ack.name} value {ack.number} was acknowledged at revision {ack.revision}; "
            f"there is {stored.get((ack.revision, ack.name), 'nothing')}"
            for ack in acks
            if ack.revision < self.next_revision and stored.get((ack.revision, ack.name)) != ack.number
        ]

    def repeated(self) -> list[str]:
        """Return the writes that took effect twice: each value of the load is written under one request id."""
        seen: dict[tuple[str, int], int] = {}
        found = []
        for change, name, value in self._values():
            first = seen.setdefault((name, value), change.revision)
            if first != change.revision:
                found.append(f"{name} value {value} was stored at revision {first} and again at {change.revision}")
        return found

    def late_terms(self) -> list[str]:
        """Return the writes of a leader that stand after a write of a later one."""
        newest, found = 0, []
        for change in self.changes:
            term = _term_of(change.record)
            if 0 < term < newest:
                found.append(f"{change.key} of term {term} at revision {change.revision}, after term {newest} wrote")
            newest = max(newest, term)
        return found

    def _values(self) -> Iterator[tuple[Change, str, int]]:
        for change in self.changes:
            record = change.record
            if isinstance(record, WorkloadRecord) and record.namespace == NAMESPACE and not record.deleted_at_ms:
                number = record.annotations.get(ANNOTATION, "")
                if number.isdigit():
                    yield change, record.name, int(number)


async def rebuild(open_store: Callable[[], EtcdStore]) -> tuple[int, str]:
    """Return (revision, digest) of a state built from nothing but a fresh read of a member."""
    store = open_store()
    replica = Replica(store, SystemClock())
    following = asyncio.create_task(replica.run())
    try:
        async with asyncio.timeout(_READ_S):
            await replica.loaded.wait()
        return replica.machine.revision, f"{replica.machine.digest:032x}"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()


def _change_of(event: Event) -> Change:
    parsed = keys.parse(event.kv.key)
    try:
        record = None if event.deleted or parsed is None else codec.decode_record(parsed, event.kv.value)
    except codec.Malformed:
        record = None
    return Change(event.kv.mod_revision, event.kv.key, record)


def _term_of(record: Record | None) -> int:
    """Return the term of the leader that wrote this record, 0 if it is not a leader's."""
    match record:
        case TaskDesired(term=term) | NodeStatus(term=term) | EventRecord(term=term):
            return term
        case _:
            return 0
