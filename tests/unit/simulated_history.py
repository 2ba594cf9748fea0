"""A correct store under concurrent clients, on virtual time: every history it makes must be accepted.

Requests overlap, answers get lost, writes happen long after their clients gave up, several share a revision, and
coordinators follow the store at their own pace. Nothing is wrong: `plant_*` add that, one lie each, and return
None where a history holds nothing to lie about.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cloudless.testing.history import (
    Action,
    Consistency,
    Fault,
    History,
    LeaderWrite,
    LogEvent,
    Operation,
    Outcome,
)

COORDINATORS = ("c1", "c2", "c3")
NAMES = ("a", "b", "c")


@dataclass
class SimulatedStore:
    """One run. Every client has one request under way at a time; each takes effect between its call and its answer."""

    seed: int
    now_s: float = 0.0
    revision: int = 10
    term: int = 5
    operations: list[Operation] = field(default_factory=list)
    log: list[LogEvent] = field(default_factory=list)
    leader_writes: list[LeaderWrite] = field(default_factory=list)
    late: list[Operation] = field(default_factory=list)
    group: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.held = dict.fromkeys(COORDINATORS, self.revision)
        self.fresh_s = dict.fromkeys(COORDINATORS, 0.0)
        self.mod: dict[str, int] = {}
        self.values: dict[int, dict[str, str | None]] = {self.revision: {}}
        self.min_revision: dict[str, int] = {}

    def run(self, steps: int, clients: int = 4) -> History:
        busy: dict[str, Operation] = {}
        for step in range(steps):
            self.now_s += self.random.random() * 0.01
            client = f"client-{self.random.randrange(clients)}"
            if client in busy:
                self._finish(busy.pop(client))
            else:
                busy[client] = self._call(client, step)
            self._live_on()
        for operation in busy.values():
            self._finish(operation)
        return History(
            operations=tuple(self.operations), log=tuple(self.log), last_revision=self.revision,
            leader_writes=tuple(self.leader_writes),
        )  # fmt: skip

    def _call(self, client: str, step: int) -> Operation:
        write = self.random.random() < 0.5
        name = self.random.choice(NAMES)
        consistency = self.random.choice(tuple(Consistency))
        operation = Operation(
            client=client, action=Action.WRITE if write else Action.READ, name=name,
            value=f"v{step}" if write and self.random.random() < 0.9 else None, call_s=self.now_s,
            request_id=f"r{step}" if write else "", coordinator=self.random.choice(COORDINATORS),
            if_revision=self.mod.get(name, 0) if write and self.random.random() < 0.5 else 0,
            consistency=consistency if not write else Consistency.LINEARIZABLE,
            min_revision=self.min_revision.get(client, 0) if not write and self.random.random() < 0.5 else 0,
        )  # fmt: skip
        # The effect may come at once, or only just before the answer: requests that overlap take any order.
        return self._perform(operation) if self.random.random() < 0.5 else operation

    def _finish(self, operation: Operation) -> None:
        if operation.action is Action.WRITE and not operation.revision and operation.outcome is Outcome.OK:
            if self.random.random() < 0.2:
                self.late.append(operation)
                self.operations.append(replace(operation, outcome=Outcome.AMBIGUOUS, coordinator=""))
                return
            operation = self._perform(operation)
        elif operation.action is Action.READ and not operation.revision:
            operation = self._perform(operation)
        self.now_s += 0.0001
        self.group.clear()
        if operation.action is Action.WRITE and operation.outcome is Outcome.OK and self.random.random() < 0.1:
            # Done, but the answer got lost.
            self.operations.append(replace(operation, outcome=Outcome.AMBIGUOUS, revision=0, return_s=None))
            return
        client = operation.client
        self.min_revision[client] = max(self.min_revision.get(client, 0), operation.revision)
        self.operations.append(replace(operation, return_s=self.now_s))

    def _perform(self, operation: Operation) -> Operation:
        self.now_s += 0.0001
        return self._write(operation) if operation.action is Action.WRITE else self._read(operation)

    def _write(self, operation: Operation) -> Operation:
        if operation.if_revision and operation.if_revision != self.mod.get(operation.name, 0):
            return replace(operation, outcome=Outcome.FAILED)
        if operation.value is None and operation.name not in self.mod:
            self.group.clear()
            return replace(operation, revision=self.revision)
        self._take_revision(operation.name)
        self.values[self.revision] = {**self.values[self.revision], operation.name: operation.value}
        self.log.append(LogEvent(self.revision, operation.name, operation.value, operation.request_id))
        if operation.value is None:
            self.mod.pop(operation.name)
        else:
            self.mod[operation.name] = self.revision
        return replace(operation, revision=self.revision)

    def _take_revision(self, name: str) -> None:
        """Take a new revision, or the newest one with others in it: a group commit that no one has seen yet."""
        if not self.group or name in self.group or self.random.random() < 0.5:
            self.revision += 1
            self.values[self.revision] = self.values[self.revision - 1]
            self.group.clear()
        self.group.add(name)

    def _read(self, operation: Operation) -> Operation:
        self.group.clear()
        who = operation.coordinator
        bound_s = {Consistency.LINEARIZABLE: 0.0, Consistency.BOUNDED: 0.02}.get(operation.consistency, 1e9)
        if self.now_s - self.fresh_s[who] >= bound_s or self.held[who] < operation.min_revision:
            self.held[who], self.fresh_s[who] = self.revision, self.now_s
        revision = self.held[who]
        staleness_s = bound_s if operation.consistency is Consistency.BOUNDED else self.now_s - self.fresh_s[who]
        return replace(
            operation, revision=revision, value=self.values[revision].get(operation.name), staleness_s=staleness_s
        )

    def _live_on(self) -> None:
        """Let late writes happen, coordinators catch up, and leaders write and change."""
        if self.late and self.random.random() < 0.3:
            self._write(self.late.pop(self.random.randrange(len(self.late))))
        who = self.random.choice(COORDINATORS)
        self.held[who] = self.random.randint(self.held[who], self.revision)
        if self.random.random() < 0.2:
            self.revision += 1
            self.values[self.revision] = self.values[self.revision - 1]
            self.group.clear()
            self.leader_writes.append(LeaderWrite(self.revision, self.term, "tasks/x", f"c{self.term}"))
            self.term += 7 * (self.random.random() < 0.2)


# --- lies ---------------------------------------------------------------------------------------

Plant = Callable[[History, random.Random], History | None]


def _acknowledged(history: History) -> list[Operation]:
    kept = {event.request_id for event in history.log}
    return [op for op in history.operations if op.outcome is Outcome.OK and op.request_id in kept and op.value]


def _reads(history: History, *consistencies: Consistency) -> list[Operation]:
    return [op for op in history.operations if op.action is Action.READ and op.consistency in consistencies]


def _swap(history: History, old: Operation, new: Operation) -> History:
    return replace(history, operations=tuple(new if op is old else op for op in history.operations))


def _append(history: History, name: str, value: str, request_id: str = "") -> History:
    event = LogEvent(history.last_revision + 1, name, value, request_id)
    return replace(history, log=(*history.log, event), last_revision=event.revision)


def _delayed(history: History, operation: Operation) -> History | None:
    """Move an operation past the end of everything, if something newer was answered before."""
    ends_s = max(op.return_s or op.call_s for op in history.operations) + 1.0
    newer = [op for op in history.operations if op is not operation and op.revision > operation.revision]
    if not newer:
        return None
    # What it declares stays as it was: that is the lie.
    return _swap(history, operation, replace(operation, call_s=ends_s, return_s=ends_s + 1.0))


def plant_lost_write(history: History, rng: random.Random) -> History | None:
    acked = _acknowledged(history)
    if not acked:
        return None
    lost = rng.choice(acked)
    return replace(history, log=tuple(event for event in history.log if event.value != lost.value))


def plant_wrong_revision(history: History, rng: random.Random) -> History | None:
    acked = _acknowledged(history)
    if not acked:
        return None
    operation = rng.choice(acked)
    return _swap(history, operation, replace(operation, revision=operation.revision + rng.choice((-1, 1))))


def plant_lost_update(history: History, rng: random.Random) -> History | None:
    acked = [op for op in _acknowledged(history) if op.if_revision]
    if not acked:
        return None
    operation = rng.choice(acked)
    return _swap(history, operation, replace(operation, if_revision=operation.if_revision - 1 or 99))


def plant_double_effect(history: History, rng: random.Random) -> History | None:
    acked = _acknowledged(history)
    if not acked:
        return None
    operation = rng.choice(acked)
    return _append(history, operation.name, operation.value or "", operation.request_id)


def plant_two_answers(history: History, rng: random.Random) -> History | None:
    acked = _acknowledged(history)
    if not acked:
        return None
    operation = rng.choice(acked)
    again = replace(operation, client="again", revision=operation.revision + 1)
    return replace(history, operations=(*history.operations, again))


def plant_refused_write(history: History, rng: random.Random) -> History | None:
    failed = [op for op in history.operations if op.outcome is Outcome.FAILED and op.value]
    return _append(history, failed[0].name, failed[0].value or "") if failed else None


def plant_comeback(history: History, rng: random.Random) -> History | None:
    newest = {event.name: event.value for event in history.log}
    over = [op for op in _acknowledged(history) if newest[op.name] != op.value]
    return _append(history, over[0].name, over[0].value or "") if over else None


def plant_unasked_write(history: History, rng: random.Random) -> History | None:
    return _append(history, history.log[-1].name, "nobody's") if history.log else None


def plant_older_term(history: History, rng: random.Random) -> History | None:
    if not history.leader_writes:
        return None
    first = history.leader_writes[0]
    late = LeaderWrite(history.last_revision + 1, first.term - 1, "tasks/y")
    return replace(history, leader_writes=(*history.leader_writes, late), last_revision=late.revision)


def plant_second_leader(history: History, rng: random.Random) -> History | None:
    if not history.leader_writes:
        return None
    second = replace(history.leader_writes[-1], revision=history.last_revision + 1, leader="another")
    return replace(history, leader_writes=(*history.leader_writes, second), last_revision=second.revision)


def plant_late_cause(history: History, rng: random.Random) -> History | None:
    acked = _acknowledged(history)
    return _delayed(history, rng.choice(acked)) if acked else None


def plant_stale_read(history: History, rng: random.Random) -> History | None:
    reads = _reads(history, Consistency.LINEARIZABLE)
    return _delayed(history, rng.choice(reads)) if reads else None


def plant_staler_read(history: History, rng: random.Random) -> History | None:
    reads = [op for op in _reads(history, Consistency.BOUNDED, Consistency.STALE) if op.staleness_s < 0.5]
    return _delayed(history, rng.choice(reads)) if reads else None


def plant_below_minimum(history: History, rng: random.Random) -> History | None:
    reads = _reads(history, *Consistency)
    return _swap(history, reads[0], replace(reads[0], min_revision=reads[0].revision + 1)) if reads else None


def plant_step_back(history: History, rng: random.Random) -> History | None:
    reads = _reads(history, Consistency.STALE)
    for read in reads:
        if any(op.revision > read.revision and op.coordinator == read.coordinator for op in reads):
            return _delayed(history, read)
    return None


def plant_phantom_read(history: History, rng: random.Random) -> History | None:
    reads = _reads(history, *Consistency)
    return _swap(history, reads[0], replace(reads[0], value="never")) if reads else None


def plant_wrong_read(history: History, rng: random.Random) -> History | None:
    for read in _reads(history, Consistency.BOUNDED, Consistency.STALE):
        others = [e.value for e in history.log if e.name == read.name and e.value and e.value != read.value]
        if others:
            return _swap(history, read, replace(read, value=rng.choice(others)))
    return None


def plant_read_of_the_future(history: History, rng: random.Random) -> History | None:
    reads = _reads(history, *Consistency)
    return _swap(history, reads[-1], replace(reads[-1], revision=history.last_revision + 1)) if reads else None


LIES: dict[str, tuple[Plant, Fault]] = {
    "an acknowledged write is not in the log": (plant_lost_write, Fault.LOST_WRITE),
    "an answer names another revision": (plant_wrong_revision, Fault.WRONG_REVISION),
    "a condition was not kept": (plant_lost_update, Fault.LOST_UPDATE),
    "a request takes effect twice": (plant_double_effect, Fault.DOUBLE_EFFECT),
    "a request is answered with two revisions": (plant_two_answers, Fault.DOUBLE_EFFECT),
    "a refused write takes effect": (plant_refused_write, Fault.RESURRECTED),
    "an overwritten value comes back": (plant_comeback, Fault.RESURRECTED),
    "a value comes from nowhere": (plant_unasked_write, Fault.UNASKED_WRITE),
    "an old leader writes on": (plant_older_term, Fault.OLD_TERM),
    "two leaders write in one term": (plant_second_leader, Fault.TWO_LEADERS),
    "a write takes effect before it was sent": (plant_late_cause, Fault.REAL_TIME_ORDER),
    "a linearizable read misses a write": (plant_stale_read, Fault.STALE_READ),
    "a stale read is older than it says": (plant_staler_read, Fault.STALER_THAN_DECLARED),
    "a read is below what its client has seen": (plant_below_minimum, Fault.WENT_BACK),
    "a coordinator goes back": (plant_step_back, Fault.WENT_BACK),
    "a read shows what never was": (plant_phantom_read, Fault.PHANTOM_READ),
    "a read names a revision that is not there yet": (plant_read_of_the_future, Fault.WRONG_READ),
    "a read shows another revision's value": (plant_wrong_read, Fault.WRONG_READ),
}
