"""Change a workload's specification so that what its tasks were made of before can be put back.

A template is known by the generation that brought it. The one that is replaced is kept as a `RevisionRecord`, written
with the change; the newest `HISTORY_MAX` are kept, and go with the workload. A template that was there before gets its
old generation again, so that its tasks that are still there need not be replaced: putting a template back is cheap
and exact, whether a person does it, the leader does, or somebody applies the old manifest.

Revisions change only together with their workload's record, so that a precondition on that is enough for all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import RevisionRecord, RolloutRecord, TaskSpec, WorkloadRecord, WorkloadSpec
from cloudless.core.plan import PutRecord
from cloudless.core.state.view import View
from cloudless.core.template import build_task_spec, same_task_template

HISTORY_MAX = 10


@dataclass(frozen=True, slots=True)
class Noted:
    """A rollout's record with its mod revision."""

    record: RolloutRecord
    mod_revision: int


@dataclass(frozen=True, slots=True)
class SpecChange:
    """A workload's record with another specification, and the writes that go with it (its own is not among them)."""

    record: WorkloadRecord
    puts: tuple[PutRecord, ...] = ()
    deletes: tuple[str, ...] = ()


def change_spec(
    view: View, record: WorkloadRecord, spec: WorkloadSpec, now_ms: int, reason: str = "", rollback_of: int = 0
) -> SpecChange:
    """Return what gives the workload `spec`, which differs from its own.

    `reason` is kept with the template that is replaced; `rollback_of` as in `WorkloadRecord`.
    """
    generation = record.generation + 1
    changed = replace(record, spec=spec, generation=generation, updated_at_ms=now_ms)
    if same_task_template(record.spec, spec):
        return SpecChange(changed)
    again = _find_equal(view, record, spec)
    history = [kept for kept in record.history if kept not in (again, record.task_generation)]
    dropped = [again] if again else []
    while len(history) >= HISTORY_MAX:
        stable = _stable_generation(view, record)
        dropped.append(history.pop(1 if history[0] == stable else 0))
    history.append(record.task_generation)
    namespace, name = record.namespace, record.name
    kept = RevisionRecord(
        namespace=namespace,
        workload=name,
        workload_uid=record.uid,
        generation=record.task_generation,
        spec=record.spec,
        replaced_at_ms=now_ms,
        reason=reason,
    )
    changed = replace(
        changed,
        task_generation=again or generation,
        rollout_generation=generation,
        rollback_of=rollback_of,
        history=tuple(history),
    )
    put = PutRecord(keys.revision(namespace, name, record.task_generation), kept)
    return SpecChange(changed, (put,), tuple(keys.revision(namespace, name, old) for old in dropped))


def find_revision(view: View, record: WorkloadRecord, generation: int) -> RevisionRecord | None:
    """Return the kept template of an earlier generation."""
    stored = view.held(Kind.REVISION).get((record.namespace, record.name, str(generation)))
    found = stored.record if stored is not None else None
    if isinstance(found, RevisionRecord) and found.workload_uid == record.uid:
        return found
    return None


def find_template(view: View, record: WorkloadRecord, generation: int) -> TaskSpec | None:
    """Return what tasks of a generation are made of; None if it is not known any more."""
    if generation == record.task_generation:
        return build_task_spec(record.spec)
    found = find_revision(view, record, generation)
    return build_task_spec(found.spec) if found is not None else None


def find_rollout(view: View, record: WorkloadRecord) -> Noted | None:
    """Return the leader's notes on the workload's newest rollout, or on the one before while there are no newer."""
    stored = view.held(Kind.ROLLOUT).get((record.namespace, record.name))
    found = stored.record if stored is not None else None
    if stored is not None and isinstance(found, RolloutRecord) and found.workload_uid == record.uid:
        return Noted(found, stored.mod_revision)
    return None


def keys_of(view: View, record: WorkloadRecord) -> tuple[str, ...]:
    """Return the keys of all that is kept beside the workload itself, to be deleted with it."""
    namespace, name = record.namespace, record.name
    revisions = (keys.revision(namespace, name, generation) for generation in record.history)
    rollout = (keys.rollout(namespace, name),) if (namespace, name) in view.held(Kind.ROLLOUT) else ()
    return (*revisions, *rollout)


def _find_equal(view: View, record: WorkloadRecord, spec: WorkloadSpec) -> int:
    """Return the kept generation whose template `spec` has, 0 if there is none."""
    for generation in reversed(record.history):
        found = find_revision(view, record, generation)
        if found is not None and same_task_template(found.spec, spec):
            return generation
    return 0


def _stable_generation(view: View, record: WorkloadRecord) -> int:
    noted = find_rollout(view, record)
    return noted.record.stable_generation if noted is not None else 0
