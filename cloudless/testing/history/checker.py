"""Judge a history: each promise is one rule, each rule one function from the indexed history to violations.

::

    acknowledged   an acknowledged write is in the log, at its revision, under one revision for one request id
    effects        an effect has one cause that was asked for before, was not refused, and happens once
    conditions     a conditional write follows exactly the revision it was conditional on
    reads          a read shows the state at the revision it names
    freshness      a.return < b.call implies rev(a) <= rev(b) for reads b (minus what they declare), < for writes
    monotony       what one coordinator answers never goes back, nor below what the client asked for
    terms          no write of an older term after one of a newer, no term with two leaders

An ambiguous write may take effect once at any later time, or never. The search for a linear order, which is
exponential in general, is not needed: the store's revisions are that order, and what is checked is that every
answer agrees with it and that it agrees with real time. O(n log n).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby, pairwise

from cloudless.testing.history.records import (
    Action,
    Consistency,
    Fault,
    History,
    LeaderWrite,
    LogEvent,
    Operation,
    Outcome,
    Violation,
)


def check_history(history: History) -> tuple[Violation, ...]:
    """Return every broken promise, by rule; none: the history is one a single machine could have given.

    Raises ValueError if the history cannot be judged: a value written by two requests, or a log out of order.
    """
    index = _Index(history)
    return tuple(violation for rule in _RULES for violation in rule(index))


class _Floor:
    """The newest revision that had been answered before a moment, and the operation that proves it."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        answered = sorted(
            (op.return_s, op.revision, i, op) for i, op in enumerate(operations) if op.return_s is not None
        )
        self._times = [return_s for return_s, _, _, _ in answered]
        self._newest: list[Operation] = []
        for _, _, _, op in answered:
            newest = self._newest[-1] if self._newest else op
            self._newest.append(op if op.revision > newest.revision else newest)

    def before(self, moment_s: float) -> Operation | None:
        position = bisect_left(self._times, moment_s)
        return self._newest[position - 1] if position else None


class _Index:
    """The history, arranged for looking up."""

    def __init__(self, history: History) -> None:
        self.history = history
        known = [op for op in history.operations if op.outcome is Outcome.OK and op.revision > 0]
        self.reads = [op for op in history.operations if op.action is Action.READ and op.outcome is Outcome.OK]
        self.writes = [op for op in history.operations if op.action is Action.WRITE]
        # A revision the store never had would condemn everything that came after it.
        self.floor = _Floor(op for op in known if op.revision <= history.last_revision)
        self.names = {op.name for op in history.operations}
        self.events: dict[str, list[LogEvent]] = defaultdict(list)
        for event in history.log:
            if event.name in self.names:
                self.events[event.name].append(event)
        self.revisions = {name: [event.revision for event in events] for name, events in self.events.items()}
        if any(a >= b for revisions in self.revisions.values() for a, b in pairwise(revisions)):
            raise ValueError("the log is out of order, or has one object twice in one revision")
        self.carriers: dict[tuple[str, str], list[LogEvent]] = defaultdict(list)
        for event in (event for events in self.events.values() for event in events):
            if event.value is not None:
                self.carriers[event.name, event.value].append(event)
        self._remembered = {event.request_id for events in self.events.values() for event in events}
        self._by_request = {op.request_id: op for op in _merged(self.writes) if op.request_id}
        self._by_value = self._writers()
        self._deletes: dict[str, list[Operation]] = defaultdict(list)
        for op in self.writes:
            if op.value is None:
                self._deletes[op.name].append(op)

    def _writers(self) -> dict[tuple[str, str], Operation]:
        writers: dict[tuple[str, str], Operation] = {}
        for op in self.writes:
            if op.value is not None:
                first = writers.setdefault((op.name, op.value), op)
                if first is not op and (not op.request_id or first.request_id != op.request_id):
                    raise ValueError(f"two requests wrote the same value, so it proves nothing: {first}, {op}")
        return {key: self._by_request.get(op.request_id, op) for key, op in writers.items()}

    def had_effect(self, op: Operation) -> bool:
        """Return whether an acknowledged write changed anything: deleting what is gone already does not."""
        return op.value is not None or op.request_id in self._remembered

    def event_at(self, name: str, revision: int) -> LogEvent | None:
        """Return what happened to the object at exactly this revision."""
        held = self.held_at(name, revision)
        return held if held and held.revision == revision else None

    def held_at(self, name: str, revision: int) -> LogEvent | None:
        """Return the change the object's state at `revision` comes from; None before its first."""
        position = bisect_right(self.revisions.get(name, ()), revision)
        return self.events[name][position - 1] if position else None

    def value_at(self, name: str, revision: int) -> str | None:
        held = self.held_at(name, revision)
        return held.value if held else None

    def cause_of(self, event: LogEvent) -> Operation | None:
        """Return the write that asked for this change, as far as that can be told."""
        if op := self._by_request.get(event.request_id):
            return op
        if event.value is not None:
            return self._by_value.get((event.name, event.value))
        return next((op for op in self._deletes[event.name] if self._may_have_deleted(op, event.revision)), None)

    def _may_have_deleted(self, op: Operation, revision: int) -> bool:
        if op.outcome is Outcome.OK:
            return op.revision == revision
        floor = self.floor.before(op.call_s)
        return op.outcome is Outcome.AMBIGUOUS and (floor is None or floor.revision < revision)


def _merged(writes: list[Operation]) -> Iterator[Operation]:
    """Return one operation for each request, however often it was sent: begun with the first, as sure as the surest.

    One try may be refused and another, decided on a later state, done: then the request was not refused.
    """
    surest = (Outcome.FAILED, Outcome.AMBIGUOUS, Outcome.OK)
    for _, group in groupby(sorted(writes, key=_request_id), key=_request_id):
        tries = list(group)
        best = max(tries, key=lambda op: surest.index(op.outcome))
        yield replace(best, call_s=min(op.call_s for op in tries))


def _request_id(op: Operation) -> str:
    return op.request_id


# --- writes -------------------------------------------------------------------------------------


def _acknowledged(index: _Index) -> Iterator[Violation]:
    for op in index.writes:
        # Deleting what is gone already changes nothing; it is answered from the state it was found in.
        held = index.held_at(op.name, op.revision) if op.value is None else index.event_at(op.name, op.revision)
        if op.outcome is Outcome.OK and (held.value if held else None) != op.value:
            yield _unproved(index, op)
    answered = (op for op in index.writes if op.request_id and op.outcome is Outcome.OK and index.had_effect(op))
    for _, group in groupby(sorted(answered, key=_request_id), key=_request_id):
        answers = {op.revision: op for op in group}
        if len(answers) > 1:
            ops = tuple(answers.values())
            text = "answers to one request name different revisions: " + ", ".join(map(str, ops))
            yield Violation(Fault.DOUBLE_EFFECT, text, ops, tuple(sorted(answers)))


def _unproved(index: _Index, op: Operation) -> Violation:
    carriers = index.carriers.get((op.name, op.value), []) if op.value is not None else []
    instead = _text_of(index.held_at(op.name, op.revision))
    if carriers:
        at = ", ".join(str(event.revision) for event in carriers)
        text = f"{op} happened at revision {at}; at revision {op.revision} {op.name} {instead}"
        return Violation(Fault.WRONG_REVISION, text, (op,), (op.revision, *(event.revision for event in carriers)))
    if op.revision > index.history.last_revision:
        text = f"{op}: the store's history ends at revision {index.history.last_revision}"
        return Violation(Fault.WRONG_REVISION, text, (op,), (op.revision, index.history.last_revision))
    text = f"{op} is nowhere in the store's history; at revision {op.revision} {op.name} {instead}"
    return Violation(Fault.LOST_WRITE, text, (op,), (op.revision,))


def _effects(index: _Index) -> Iterator[Violation]:
    first: dict[tuple[str, str], tuple[int, LogEvent]] = {}
    for name in sorted(index.events):
        before: LogEvent | None = None
        for position, event in enumerate(index.events[name]):
            gone_already = event.value is None and (before is None or before.value is None)
            before, overwritten = event, before
            if gone_already:
                continue
            cause = index.cause_of(event)
            if cause is None:
                yield _uncaused(event, overwritten)
                continue
            yield from _effect(index, event, cause)
            # Causes are told apart by their requests; a write without one by its value.
            key = ("request", cause.request_id) if cause.request_id else (name, event.value or str(event.revision))
            earlier = first.setdefault(key, (position, event))
            if earlier[1] is not event:
                yield _repeated(event, position, cause, *earlier)


def _uncaused(event: LogEvent, before: LogEvent | None) -> Violation:
    if event.value is not None:
        text = f"{event.name} {_text_of(event)}, which no operation wrote"
        return Violation(Fault.UNASKED_WRITE, text, (), (event.revision,))
    assert before is not None
    text = f"{event.name} {_text_of(before)} and was deleted at revision {event.revision}, which no operation asked for"
    return Violation(Fault.LOST_WRITE, text, (), (before.revision, event.revision))


def _effect(index: _Index, event: LogEvent, cause: Operation) -> Iterator[Violation]:
    if cause.outcome is Outcome.FAILED:
        yield Violation(
            Fault.RESURRECTED, f"{cause} was refused, yet {event.name} {_text_of(event)}", (cause,), (event.revision,)
        )
    floor = index.floor.before(cause.call_s)
    if floor is not None and event.revision <= floor.revision:
        text = f"{cause} took effect at revision {event.revision}, before it was sent: {floor} had been answered"
        yield Violation(Fault.REAL_TIME_ORDER, text, (floor, cause), (floor.revision, event.revision))


def _repeated(event: LogEvent, position: int, cause: Operation, at: int, earlier: LogEvent) -> Violation:
    revisions = (earlier.revision, event.revision)
    same_request = bool(event.request_id) and event.request_id == earlier.request_id
    if same_request or event.name != earlier.name or position == at + 1:
        text = f"{cause} took effect at revision {earlier.revision} and again at revision {event.revision}"
        return Violation(Fault.DOUBLE_EFFECT, text, (cause,), revisions)
    text = (
        f"{cause} took effect at revision {earlier.revision}, was overwritten, and came back at revision "
        f"{event.revision}"
    )
    return Violation(Fault.RESURRECTED, text, (cause,), revisions)


def _conditions(index: _Index) -> Iterator[Violation]:
    for name, events in index.events.items():
        seen_revision = 0
        judged: set[int] = set()
        for event in events:
            cause = index.cause_of(event)
            again = id(cause) in judged  # that it came back is told elsewhere, whatever its condition was
            judged.add(id(cause))
            if cause is not None and not again and cause.if_revision and cause.if_revision != seen_revision:
                text = (
                    f"{cause} was to follow revision {cause.if_revision} of {name} only, but took effect at revision "
                    f"{event.revision} over revision {seen_revision}"
                )
                yield Violation(Fault.LOST_UPDATE, text, (cause,), (cause.if_revision, seen_revision, event.revision))
            seen_revision = event.revision if event.value is not None else 0


def _terms(index: _Index) -> Iterator[Violation]:
    newest = None
    leaders: dict[int, LeaderWrite] = {}
    for write in sorted(index.history.leader_writes, key=lambda write: write.revision):
        if newest is not None and write.term < newest.term:
            text = (
                f"{write.key or 'something'} was written at revision {write.revision} in term {write.term}, though "
                f"{newest.key or 'something'} had been at revision {newest.revision} in term {newest.term}"
            )
            yield Violation(Fault.OLD_TERM, text, (), (newest.revision, write.revision))
        elif newest is None or write.term > newest.term:
            newest = write
        first = leaders.setdefault(write.term, write) if write.leader else write
        if first.leader != write.leader:
            text = (
                f"term {write.term} has two leaders: {first.leader} wrote {first.key} at revision {first.revision}, "
                f"{write.leader} {write.key} at revision {write.revision}"
            )
            yield Violation(Fault.TWO_LEADERS, text, (), (first.revision, write.revision))


# --- reads --------------------------------------------------------------------------------------


def _reads(index: _Index) -> Iterator[Violation]:
    for op in index.reads:
        if op.revision == 0:
            yield from _read_without_revision(index, op)
        elif op.revision > index.history.last_revision:
            text = f"{op}: the store's history ends at revision {index.history.last_revision}"
            yield Violation(Fault.WRONG_READ, text, (op,), (op.revision, index.history.last_revision))
        elif index.value_at(op.name, op.revision) != op.value:
            yield _wrong_read(index, op)


def _wrong_read(index: _Index, op: Operation) -> Violation:
    held = index.held_at(op.name, op.revision)
    text = f"{op}, but at revision {op.revision} {op.name} {_text_of(held)}"
    carriers = index.carriers.get((op.name, op.value), []) if op.value is not None else []
    if op.value is not None and not carriers:
        return Violation(Fault.PHANTOM_READ, f"{text}; {op.value} was never there", (op,), (op.revision,))
    revisions = (op.revision, *(event.revision for event in carriers))
    older = op.value is None or any(event.revision < op.revision for event in carriers)
    missed = held is not None and held.revision in _answered_revisions(index, op)
    fault = Fault.STALE_READ if op.consistency is Consistency.LINEARIZABLE and older and missed else Fault.WRONG_READ
    return Violation(fault, text, (op,), revisions)


def _answered_revisions(index: _Index, op: Operation) -> range:
    floor = index.floor.before(op.call_s)
    return range((floor.revision if floor else 0) + 1)


def _read_without_revision(index: _Index, op: Operation) -> Iterator[Violation]:
    """Check a read whose answer names no revision (nothing was found): its value must have held at some allowed one."""
    floor = index.floor.before(op.call_s - _allowance_s(op))
    oldest = max(floor.revision if floor else 0, op.min_revision)
    events = index.events.get(op.name, [])
    later = events[bisect_right(index.revisions.get(op.name, ()), oldest) :]
    if op.value in {index.value_at(op.name, oldest), *(event.value for event in later)}:
        return
    text = f"{op}, but {op.name} {_text_of(index.held_at(op.name, oldest))}, and this is no value it had since"
    proof = (floor, op) if floor else (op,)
    known = op.value is None or (op.name, op.value) in index.carriers
    yield Violation(_too_old(op) if known else Fault.PHANTOM_READ, text, proof, (oldest,))


def _freshness(index: _Index) -> Iterator[Violation]:
    for op in index.reads:
        floor = index.floor.before(op.call_s - _allowance_s(op))
        if op.revision and floor is not None and op.revision < floor.revision:
            late = f" (and may be {op.staleness_s:.3f} s old)" if _allowance_s(op) else ""
            text = f"{op}{late}, but {floor} had been answered before"
            yield Violation(_too_old(op), text, (floor, op), (floor.revision, op.revision))


def _too_old(op: Operation) -> Fault:
    linearizable = op.consistency is Consistency.LINEARIZABLE
    return Fault.STALE_READ if linearizable else Fault.STALER_THAN_DECLARED


def _allowance_s(op: Operation) -> float:
    return 0.0 if op.consistency is Consistency.LINEARIZABLE else op.staleness_s


def _monotony(index: _Index) -> Iterator[Violation]:
    by_coordinator: dict[str, list[Operation]] = defaultdict(list)
    for op in index.reads:
        if 0 < op.revision < op.min_revision:
            text = f"{op} was to be answered from revision {op.min_revision} or newer"
            yield Violation(Fault.WENT_BACK, text, (op,), (op.min_revision, op.revision))
        if op.coordinator and op.revision:
            by_coordinator[op.coordinator].append(op)
    # Writes do not count: one is answered when it is durable, which may be before its coordinator shows it.
    for reads in by_coordinator.values():
        floors = _Floor(reads)
        for op in reads:
            floor = floors.before(op.call_s)
            if floor is not None and op.revision < floor.revision:
                text = f"{op.coordinator} went back: {floor}, then {op}"
                yield Violation(Fault.WENT_BACK, text, (floor, op), (floor.revision, op.revision))


def _text_of(event: LogEvent | None) -> str:
    if event is None:
        return "does not exist"
    if event.value is None:
        return f"is gone since revision {event.revision}"
    return f"holds {event.value} since revision {event.revision}"


_RULES: tuple[Callable[[_Index], Iterator[Violation]], ...] = (
    _acknowledged, _effects, _conditions, _reads, _freshness, _monotony, _terms,
)  # fmt: skip
