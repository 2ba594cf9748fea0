"""Leaders: whose writes count, how they take office, how they leave it, and when they may be sure of it."""

from __future__ import annotations

from typing import Any

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.ports import Get, Target, Txn
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.happenings import AskedStore, LeftOffice, Stored, TookOffice
from cloudless.testing.sim.loop import Process

LEADERS_OWN = frozenset({Kind.TASK_DESIRED, Kind.NODE_STATUS, Kind.CLUSTER})


class LeadersWrite(Checker):
    """Tasks, node status and the cluster's name are written only by the one whose key is first in the queue (O2)."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._owners: dict[str, Process] = {}

    def on_Stored(self, stored: Stored) -> None:
        for event in stored.events:
            if event.kv.key.startswith(keys.ELECTION) and not event.deleted and stored.by is not None:
                self._owners[event.kv.key] = stored.by
        for transition in stored.transitions:
            removes_workload = transition.kind is Kind.WORKLOAD and transition.after is None
            if transition.kind not in LEADERS_OWN and not removes_workload:
                continue
            leader = self._owners.get(stored.leader.key) if stored.leader else None
            if stored.by is None or leader is not stored.by:
                who = stored.by.name if stored.by else "nobody"
                raise self.refuse(f"{who} wrote {transition.key} at r{stored.revision} without leading")


class TermsForward(Checker):
    """After a write of a newer term no write of an older one succeeds (O2), by the terms that the writes claim."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._newest = 0

    def on_Stored(self, stored: Stored) -> None:
        for term in fence_terms(stored.txn):
            if term < self._newest:
                raise self.refuse(f"a write of term {term} succeeded after one of term {self._newest}")
            self._newest = max(self._newest, term)


def fence_terms(txn: Txn | None) -> list[int]:
    """Return the term of a leader's transaction: a fence around nested transactions."""
    if txn is None or not any(isinstance(op, Txn) for op in txn.then):
        return []
    return [c.revision for c in txn.compares if c.target is Target.CREATE and c.key.startswith(keys.ELECTION)]


class Barrier(Checker):
    """A leader acts only after its state holds what the store held when its win was confirmed."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._confirmed: dict[Process, int] = {}

    def on_AskedStore(self, asked: AskedStore) -> None:
        txn = asked.txn
        match txn:
            case Txn(compares=(_,), then=(Get(key),)) if key.startswith(keys.ELECTION):
                self._confirmed[asked.by] = asked.revision

    def on_TookOffice(self, took: TookOffice) -> None:
        confirmed = self._confirmed.get(took.life.process)
        if confirmed is None:
            raise self.refuse(f"{took.life.id} took office of term {took.term} without confirmation")
        if took.revision < confirmed:
            raise self.refuse(f"{took.life.id} acts at r{took.revision}, its win was confirmed at r{confirmed}")


class OneScope(Checker):
    """A coordinator runs one leader scope at a time, and none when it gives its lease up."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._terms: dict[Process, int] = {}

    def on_TookOffice(self, took: TookOffice) -> None:
        held = self._terms.get(took.life.process)
        if held is not None:
            raise self.refuse(f"{took.life.id} takes office of term {took.term} while term {held} still runs")
        self._terms[took.life.process] = took.term

    def on_LeftOffice(self, left: LeftOffice) -> None:
        self._terms.pop(left.life.process, None)

    def on_AskedStore(self, asked: AskedStore) -> None:
        if asked.call == "revoke" and asked.by.alive and asked.by in self._terms:
            raise self.refuse(f"{asked.by.name} resigned while its scope of term {self._terms[asked.by]} still ran")


class SureLeader(Checker):
    """Who is sure of leading has a lease that lives: confidence ends before the lease does, whatever clocks say."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._over: set[int] = set()

    def on_Stored(self, stored: Stored) -> None:
        if stored.lease_id and stored.by is None:
            self._over.add(stored.lease_id)
        self._look()

    def on_AskedStore(self, asked: AskedStore) -> None:
        self._look()

    def _look(self) -> None:
        if not self._over:
            return
        for life in self.world.coordinators.values():
            leadership = life.leadership
            if life.process.running and leadership.leading_term and leadership.lease_id in self._over:
                raise self.refuse(f"{life.id} is sure of term {leadership.leading_term}; its lease has expired")
