"""Several coordinators' elections over one store in virtual time, each behind a network of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.leadership import Leadership, LeadershipSettings
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import CoordinatorRecord, NodeSpec
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.errors import CloudlessError, Fenced
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.testing.faulty_store import FaultyStore
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import VirtualClock, eventually, running

CLOCK = VirtualClock()
LEASE_SWEEP_S = 0.5


@dataclass
class Done:
    """A leader's write that the store acknowledged."""

    revision: int
    term: int
    coordinator_id: str


@dataclass
class Coordinator:
    """One coordinator's part in the election; while it leads it writes all the time."""

    id: str
    store: FaultyStore
    history: list[Done]
    crash: bool = False
    fenced: int = 0
    terms: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replica = Replica(self.store, CLOCK)
        self.leadership = Leadership(
            self.id, self.store, self.replica, CLOCK, self._lead, on_lease=self._register,
            settings=LeadershipSettings(lease_ttl_s=4),
        )  # fmt: skip

    async def run(self) -> None:
        async with running(self.replica.run()):
            await self.leadership.run()

    async def _register(self, lease_id: int) -> None:
        record = encode_record(CoordinatorRecord(id=self.id, api_address=self.id))
        await self.store.txn(Txn(then=(Put(keys.coordinator(self.id), record, lease_id),)), timeout_s=2.0)

    async def _lead(self, term: int, committer: Committer) -> None:
        self.terms.append(term)
        count = 0
        while True:
            if self.crash:
                self.crash = False
                raise KeyError("a controller's bug")
            count += 1
            try:
                key = keys.node_spec(f"{self.id}-{term}-{count}")
                change = Change(puts=(PutRecord(key, NodeSpec()),), preconditions=(Precondition(key, 0),))
                revision = (await committer.commit(change, timeout_s=3)).revision
                self.history.append(Done(revision, term, self.id))
            except Fenced:
                self.fenced += 1
                raise
            except CloudlessError:
                pass
            await CLOCK.sleep(0.3)


class Election:
    """All of them, the store they share, and what was written."""

    def __init__(self, count: int = 3) -> None:
        self.memory = MemoryStore(CLOCK.monotonic_s)
        self.history: list[Done] = []
        self.all = [Coordinator(f"c{index}", FaultyStore(self.memory), self.history) for index in range(count)]

    def leaders(self) -> list[Coordinator]:
        return [one for one in self.all if one.leadership.leading_term]

    def others(self) -> list[Coordinator]:
        return [one for one in self.all if not one.leadership.leading_term]

    def memory_queue(self) -> list[str]:
        """Return the keys of the election's queue, first in line first, as the store has them."""
        queue = [kv for kv in self.memory._live.values() if kv.key.startswith(keys.ELECTION)]
        return [kv.key for kv in sorted(queue, key=lambda kv: kv.create_revision)]

    async def leader(self, *, but: Coordinator | None = None, within_s: float = 30.0) -> Coordinator:
        """Wait until somebody (else) leads and has written."""

        def leads() -> bool:
            return any(
                one is not but and any(d.term == one.leadership.leading_term for d in self.history)
                for one in self.leaders()
            )

        await eventually(leads, within_s=within_s)
        return next(one for one in self.leaders() if one is not but)

    def assert_safe(self) -> None:
        """No write of an older term succeeded after one of a newer term (O2), as the store itself has it."""
        written = [
            (event.kv.mod_revision, int(event.kv.key.split("/")[-2].split("-")[1]))
            for event in self.memory._log
            if event.kv.key.startswith(keys.NODES)
        ]
        terms = [term for _, term in sorted(written)]
        assert terms == sorted(terms)
        assert {done.revision for done in self.history} <= {revision for revision, _ in written}, (
            "acknowledged and lost"
        )

    async def sweep_leases(self) -> None:
        while True:
            await CLOCK.sleep(LEASE_SWEEP_S)
            await self.memory.expire_leases()


@asynccontextmanager
async def electing(count: int = 3) -> AsyncIterator[Election]:
    election = Election(count)
    async with running(election.sweep_leases(), *(one.run() for one in election.all)):
        yield election
    election.assert_safe()
