"""Users' requests: one effect each, exactly the one asked for, kept once acknowledged, answered in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import WorkloadRecord
from cloudless.core.template import with_template
from cloudless.ports import Put, Txn
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.happenings import Answered, Asked, Handled, Read, Stored
from cloudless.testing.sim.users import Operation

LATE_S = 0.05
ALLOWED_MIN_S = 0.5
DRIFT_MAX_S = 0.05


class OneEffect(Checker):
    """A request id has one effect, and a workload's record changes only as some request asks of what stood there (O6).

    A change made from an older record than the one it replaces would undo what was acknowledged in between.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._operations: dict[str, Operation] = {}
        self._effects: dict[str, int] = {}
        self._markers: dict[str, int] = {}

    def on_Asked(self, asked: Asked) -> None:
        self._operations[asked.request_id] = asked.operation

    def on_Stored(self, stored: Stored) -> None:
        requests = written_requests(stored)
        for request_id in requests:
            if request_id in self._effects:
                raise self.refuse(
                    f"request {request_id} took effect at r{self._effects[request_id]} and at r{stored.revision}"
                )
            self._effects[request_id] = stored.revision
        for transition in stored.transitions:
            if (
                transition.kind is Kind.WORKLOAD
                and transition.after is not None
                and not rolled_back(transition, stored)
            ):
                self._check_change(transition, self._cause(transition.key, stored, requests), stored.revision)

    def _cause(self, key: str, stored: Stored, requests: dict[str, frozenset[str]]) -> Operation:
        for request_id, written in requests.items():
            if key in written:
                return self._operations[request_id]
        raise self.refuse(f"{key} was changed at r{stored.revision} by no request")

    def _check_change(self, transition: Any, cause: Operation, revision: int) -> None:
        before, after = transition.before, transition.after
        assert isinstance(after, WorkloadRecord)
        if cause.kind == "apply":
            marker = after.annotations.get("marker", "")
            asked = marker == cause.marker and after.spec.replicas == cause.replicas
            if marker in self._markers:
                raise self.refuse(f"{cause} was applied at r{self._markers[marker]} and at r{revision}")
            self._markers[marker] = revision
        else:
            assert isinstance(before, WorkloadRecord), f"{cause.kind} made a workload"
            expected = replace(before, updated_at_ms=after.updated_at_ms)
            if cause.kind == "order":
                expected = as_ordered(cause.order, expected, after)
            elif cause.kind == "scale":
                spec = replace(before.spec, replicas=cause.replicas)
                expected = replace(expected, spec=spec, generation=before.generation + 1)
            else:
                expected = replace(expected, deleted_at_ms=after.deleted_at_ms)
            asked = after == expected
        if not asked:
            raise self.refuse(f"{cause} made {before} into {after} at r{revision}")


def as_ordered(order: str, before: WorkloadRecord, after: WorkloadRecord) -> WorkloadRecord:
    """Return what an order makes of a record; which template an undo puts back is not judged here."""
    match order:
        case "PAUSE":
            return replace(before, paused_generation=before.rollout_generation)
        case "RESUME":
            return replace(before, paused_generation=0)
        case "PROMOTE":
            return replace(before, promoted_generation=before.rollout_generation)
    generation = before.generation + 1
    return replace(
        before,
        spec=with_template(before.spec, after.spec),
        generation=generation,
        task_generation=after.task_generation,
        rollout_generation=generation,
        rollback_of=before.task_generation,
        history=after.history,
    )


def rolled_back(transition: Any, stored: Stored) -> bool:
    """Return whether the leader has put a template back: with the notes on it, in one change."""
    before, after = transition.before, transition.after
    if before is None or after.rollback_of != before.task_generation:
        return False
    noted = [t.after for t in stored.transitions if t.kind is Kind.ROLLOUT and t.after is not None]
    return any(
        (notes.workload, notes.rollout, notes.rollback_of) == (after.name, after.generation, after.rollback_of)
        for notes in noted
    )


def written_requests(stored: Stored) -> dict[str, frozenset[str]]:
    """Return the request ids remembered by a transaction, each with the keys written with it."""
    written = {event.kv.key for event in stored.events if not event.deleted}
    found = {}
    for item in stored.txn.then if stored.txn else ():
        if not isinstance(item, Txn):
            continue
        puts = frozenset(op.key for op in item.then if isinstance(op, Put))
        for key in puts & written:
            if key.startswith(keys.REQUESTS):
                found[key.removeprefix(keys.REQUESTS)] = puts
    return found


class AcknowledgedSurvive(Checker):
    """What a user was told is done was done, at the revision named (O1)."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._effects: dict[str, int] = {}
        self._records: dict[str, list[tuple[int, WorkloadRecord | None]]] = {}

    def on_Stored(self, stored: Stored) -> None:
        for request_id in written_requests(stored):
            self._effects[request_id] = stored.revision
        for transition in stored.transitions:
            if transition.kind is Kind.WORKLOAD:
                name = transition.key.split("/")[5]
                self._records.setdefault(name, []).append((stored.revision, transition.after))

    def on_Answered(self, answered: Answered) -> None:
        if answered.error or answered.operation.kind == "node":
            return
        effect = self._effects.get(answered.request_id)
        if effect is not None:
            if effect != answered.revision:
                raise self.refuse(
                    f"{answered.request_id} was done at r{effect}, its user was told r{answered.revision}"
                )
            return
        if not self._was_so(answered.operation, answered.revision):
            raise self.refuse(f"{answered.operation} was acknowledged at r{answered.revision} and never done")

    def _was_so(self, operation: Operation, revision: int) -> bool:
        """Return whether there was nothing to do at `revision`."""
        records = [record for at, record in self._records.get(operation.name, []) if at <= revision]
        held = records[-1] if records else None
        match operation.kind:
            case "scale":
                return held is not None and held.spec.replicas == operation.replicas
            case "delete":
                return held is not None and held.deleted_at_ms > 0
            case "order":
                return held is not None
        return False


class ReadsFresh(Checker):
    """A linearizable read shows everything acknowledged before it began."""

    def on_Read(self, read: Read) -> None:
        if read.revision < read.known_revision:
            raise self.refuse(f"a read answered r{read.revision}, r{read.known_revision} was acknowledged before it")


class AnsweredInTime(Checker):
    """Every request ends within the time its caller gave, with an answer or a typed error (O7)."""

    def on_Handled(self, handled: Handled) -> None:
        if handled.stalled or handled.allowed_s < ALLOWED_MIN_S:
            return
        if self.world.options.drift * handled.allowed_s > DRIFT_MAX_S:
            return  # no real clock is so wrong, and a coordinator has but its own to tell when to stop
        if handled.lasted_s > handled.allowed_s + LATE_S or handled.outcome == "cancelled":
            raise self.refuse(f"{handled.method} took {handled.lasted_s:.2f} s of {handled.allowed_s:.2f} s")
