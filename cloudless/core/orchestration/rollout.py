"""Carry a change of a workload's template through: note how far it is, when to go on, and when to turn back.

::

                      ┌──────────► PAUSED ◄─────────┐        a person pauses, and resumes
                      ▼                             ▼
    (changed) ► PROGRESSING ◄───────────► AWAITING_PROMOTION    what is tried first is well, or no more
                      │  │                          │
      all are new and │  │ no progress within        │ a person promotes, or nobody need
      available       │  │ the deadline              ▼
                      │  ├─► put the stable template back: a rollout of its own, never rolled back again
                      ▼  ▼
              COMPLETED  FAILED ─► (it goes on trying) COMPLETED

The notes (`RolloutRecord`) hold all that a decision needs, so that a new leader goes on where the last one was. While
there is something to note, nothing else is planned: `course` says what the written notes permit.

Progress is counted, and only a new height counts: 2 for each slot whose new task is available, 1 for each old task
that is gone. A rollout that goes to and fro comes no further.

Time. The notes hold the wall clock of the leader of their term, which does not jump within a term. A leader that
finds notes of another term first writes them on its own clock with what had passed when they were written, so that
clocks of two machines are never compared. What passed since is lost; that is at most a quarter of the deadline, as
the notes are written again that often. The deadline does not run while a rollout is paused, awaits promotion, or
rests between two batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloudless.core import keys
from cloudless.core.model import RevisionRecord, RolloutPhase, RolloutRecord, RolloutStrategy, WorkloadRecord
from cloudless.core.orchestration.census import Census, Slot
from cloudless.core.orchestration.changes import Decider
from cloudless.core.orchestration.course import OPEN, Course, batch_size, build_course, trial_size
from cloudless.core.orchestration.revisions import Noted, change_spec, find_revision, find_rollout
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state.view import View, Workload
from cloudless.core.template import with_template

STAMP_PERIOD_MS = 2_000
"""Progress is noted at most this often, for each note is a write; the deadline never fires on an old note."""
CHECKPOINTS = 4
"""Notes written per deadline or rest, so that a change of the leader loses no more than that part of it."""
_NO_DEADLINE_IN = (RolloutPhase.PAUSED, RolloutPhase.AWAITING_PROMOTION, RolloutPhase.FAILED)
_P = RolloutPhase


@dataclass(frozen=True, slots=True)
class Step:
    """What to note (`change`; nothing else is planned before), and else what the rollout permits."""

    change: Change | None = None
    course: Course = OPEN
    waiting: tuple[str, ...] = ()
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a rollout is: `updated` slots have an available task of its generation, or are done."""

    replicas: int
    updated: int
    progress: int
    complete: bool


def plan_rollout(
    view: View, workload: Workload, census: Census, kept: Sequence[Slot], replicas: int, decider: Decider
) -> Step:
    """Return the next step of the workload's rollout; `kept` are the filled slots of the `replicas` wanted."""
    record = workload.record
    if not record.rollout_generation:
        return Step()
    tally = take_tally(record, census, kept, replicas)
    noted = find_rollout(view, record)
    if noted is None or noted.record.rollout != record.rollout_generation:
        notes = _begin(record, census, noted, tally, decider)
        return Step(_note(view, workload, notes, decider, f"roll out generation {record.task_generation}"))
    notes = noted.record
    if notes.phase is _P.COMPLETED:
        return Step()
    if notes.term != decider.term:
        return Step(_note(view, workload, _carry_over(notes, decider), decider, "carry its time over"))
    if _is_overdue(record, notes, tally, decider.now_ms):
        return Step(_give_up(view, workload, noted, tally, decider))
    after = _next_notes(record, notes, tally, decider.now_ms)
    if after is not notes:
        return Step(_note(view, workload, after, decider, after.reason))
    waiting = (f"rollout: {notes.reason}",) if notes.phase is not _P.PROGRESSING and notes.reason else ()
    return Step(
        None, build_course(record, notes, replicas), waiting, _next_look_s(record, notes, tally, decider.now_ms)
    )


def take_tally(record: WorkloadRecord, census: Census, kept: Sequence[Slot], replicas: int) -> Tally:
    """Count how far the workload is on its way to its present template."""
    updated = sum(1 for slot in kept if slot.updated)
    outdated = sum(1 for slot in census.slots.values() if any(o.outdated for o in slot.occupants))
    ending = sum(1 for occupant in census.stopping if occupant.outdated and occupant.absent_s is None)
    complete = updated >= replicas and not outdated
    return Tally(replicas, updated, 2 * updated + max(0, replicas - outdated) - ending, complete)


# --- the notes ---


def _begin(
    record: WorkloadRecord, census: Census, noted: Noted | None, tally: Tally, decider: Decider
) -> RolloutRecord:
    trial = trial_size(record, tally.replicas)
    cause = "a person undid it" if record.rollback_of else ""
    return RolloutRecord(
        namespace=record.namespace,
        workload=record.name,
        workload_uid=record.uid,
        rollout=record.rollout_generation,
        generation=record.task_generation,
        stable_generation=_find_stable(census, noted),
        rollback_of=record.rollback_of,
        cause=cause,
        phase=_P.PROGRESSING,
        reason=_say_back("is being rolled back", record.rollback_of, cause) or "tasks are being replaced",
        started_at_ms=decider.now_ms,
        since_ms=decider.now_ms,
        progress=tally.progress,
        progress_at_ms=decider.now_ms,
        allowed=trial or batch_size(record, tally.replicas),
        promoted=not trial,
    )


def _find_stable(census: Census, noted: Noted | None) -> int:
    """Return the generation to put back: the last that was completed, or else the one that most tasks are of.

    These need not have been ready for long: that of a first version which is changed at once is all there is.
    """
    if noted is not None:
        before = noted.record
        return before.generation if before.phase is _P.COMPLETED else before.stable_generation
    running: dict[int, int] = {}
    for slot in census.slots.values():
        for occupant in slot.occupants:
            if occupant.outdated and (occupant.available_in_s is not None or occupant.absent_s is not None):
                generation = occupant.task.desired.task_generation
                running[generation] = running.get(generation, 0) + 1
    return max(running, key=lambda generation: (running[generation], generation), default=0)


def _carry_over(notes: RolloutRecord, decider: Decider) -> RolloutRecord:
    """Return the notes on this leader's clock: what had passed when they were written has passed now."""
    shift_ms = decider.now_ms - notes.at_ms
    return replace(
        notes,
        started_at_ms=notes.started_at_ms + shift_ms,
        since_ms=notes.since_ms + shift_ms,
        progress_at_ms=notes.progress_at_ms + shift_ms,
        rest_from_ms=max(1, notes.rest_from_ms + shift_ms) if notes.rest_from_ms else 0,
    )


def _next_notes(record: WorkloadRecord, notes: RolloutRecord, tally: Tally, now_ms: int) -> RolloutRecord:
    """Return what has to be noted now, the very same notes if nothing has."""
    if tally.complete:
        what = _say_back("is rolled back", notes.rollback_of, notes.cause) or "all tasks are available"
        return _enter(notes, _P.COMPLETED, what, tally, now_ms)
    if is_paused(record):
        return _enter(notes, _P.PAUSED, "paused; `workload rollout resume` goes on", tally, now_ms)
    trial = trial_size(record, tally.replicas)
    if trial and not notes.promoted:
        proven = tally.updated >= trial
        by_person = record.promoted_generation == record.rollout_generation
        if by_person or (proven and record.spec.rollout.auto_promote):
            allowed = trial + batch_size(record, tally.replicas)
            what = "promoted by a person" if by_person else "promoted: what was tried first is well"
            return _enter(replace(notes, promoted=True, allowed=allowed), _P.PROGRESSING, what, tally, now_ms)
        if proven:
            what = f"{trial} new tasks are well; `workload rollout promote` lets the others follow"
            return _enter(notes, _P.AWAITING_PROMOTION, what, tally, now_ms)
    if notes.phase in (_P.PAUSED, _P.AWAITING_PROMOTION):
        return _enter(notes, _P.PROGRESSING, "goes on", tally, now_ms)
    after = _next_batch(record, notes, tally, now_ms) if notes.promoted else notes
    return after if after is not notes else _stamp(record, notes, tally, now_ms)


def _enter(notes: RolloutRecord, phase: RolloutPhase, reason: str, tally: Tally, now_ms: int) -> RolloutRecord:
    if (notes.phase, notes.reason) == (phase, reason):
        return notes
    progress = max(notes.progress, tally.progress)
    return replace(notes, phase=phase, reason=reason, since_ms=now_ms, progress=progress, progress_at_ms=now_ms)


def _next_batch(record: WorkloadRecord, notes: RolloutRecord, tally: Tally, now_ms: int) -> RolloutRecord:
    """Return the notes with the next batch opened, or with the rest before it begun."""
    size = batch_size(record, tally.replicas)
    if not size or notes.allowed >= tally.replicas or tally.updated < notes.allowed:
        return notes
    pause_ms = int(record.spec.rollout.pause_s * 1000)
    if pause_ms and not notes.rest_from_ms:
        return replace(notes, rest_from_ms=max(1, now_ms))  # 0 would say that it does not rest
    if now_ms - notes.rest_from_ms < pause_ms:
        return notes
    return replace(
        notes,
        allowed=notes.allowed + size,
        rest_from_ms=0,
        progress=max(notes.progress, tally.progress),
        progress_at_ms=now_ms,
    )


def _stamp(record: WorkloadRecord, notes: RolloutRecord, tally: Tally, now_ms: int) -> RolloutRecord:
    """Return the notes with new progress, or with the time that has passed, if either is due to be written."""
    age_ms = now_ms - notes.at_ms
    further = tally.progress > notes.progress
    checkpoint = _counts(record, notes) and age_ms >= _checkpoint_ms(record, notes)
    if not checkpoint and not (further and age_ms >= STAMP_PERIOD_MS):
        return notes
    if further:  # with a checkpoint too, or frequent ones would keep new progress from ever being noted
        return replace(notes, progress=tally.progress, progress_at_ms=now_ms)
    return replace(notes, at_ms=now_ms)


def _note(view: View, workload: Workload, notes: RolloutRecord, decider: Decider, reason: str) -> Change:
    """Return the write of the notes: only beside the workload they are about, instead of any that are there.

    Without the workload's own revision a first note that is sent again, because its answer was lost, would come back
    once it was deleted with the workload.
    """
    record = workload.record
    key = keys.rollout(record.namespace, record.name)
    held = view.held(keys.Kind.ROLLOUT).get((record.namespace, record.name))
    return Change(
        puts=(PutRecord(key, replace(notes, term=decider.term, at_ms=decider.now_ms)),),
        preconditions=(
            Precondition(keys.workload(record.namespace, record.name), workload.mod_revision),
            Precondition(key, held.mod_revision if held is not None else 0),
        ),
        reason=f"rollout of {record.namespace}/{record.name} to generation {notes.generation}: {reason}",
    )


# --- its end ---


def _is_overdue(record: WorkloadRecord, notes: RolloutRecord, tally: Tally, now_ms: int) -> bool:
    if not _deadline_runs(record, notes) or tally.complete or is_paused(record) or tally.progress > notes.progress:
        return False
    return now_ms - notes.progress_at_ms >= record.spec.rollout.progress_deadline_s * 1000


def _give_up(view: View, workload: Workload, noted: Noted, tally: Tally, decider: Decider) -> Change:
    """Put the stable template back, or note that the rollout has failed if that cannot or must not be done."""
    record, notes = workload.record, noted.record
    reason = f"no progress for {record.spec.rollout.progress_deadline_s:g} s"
    before = _find_way_back(view, record, notes)
    if before is None:
        failed = _enter(notes, _P.FAILED, f"{reason}; {_why_not_back(record, notes)}", tally, decider.now_ms)
        return _note(view, workload, failed, decider, failed.reason)
    spec = with_template(record.spec, before.spec)
    changed = change_spec(
        view, record, spec, decider.now_ms, f"rolled back: {reason}", rollback_of=record.task_generation
    )
    rollback = replace(
        notes,
        rollout=changed.record.rollout_generation,
        generation=changed.record.task_generation,
        rollback_of=notes.generation,
        cause=reason,
        reason=_say_back("is being rolled back", notes.generation, reason),
        started_at_ms=decider.now_ms,
        since_ms=decider.now_ms,
        progress=0,
        progress_at_ms=decider.now_ms,
        allowed=0,
        rest_from_ms=0,
        promoted=True,
    )
    noting = _note(view, workload, rollback, decider, rollback.reason)
    key = keys.workload(record.namespace, record.name)
    return replace(
        noting,
        puts=(PutRecord(key, changed.record), *changed.puts, *noting.puts),
        deletes=changed.deletes,
    )


def _find_way_back(view: View, record: WorkloadRecord, notes: RolloutRecord) -> RevisionRecord | None:
    """Return the template to put back; None if that cannot or must not be done."""
    if not record.spec.rollout.auto_rollback or record.rollback_of or notes.stable_generation == notes.generation:
        return None
    return find_revision(view, record, notes.stable_generation)


def _say_back(what: str, generation: int, cause: str) -> str:
    return f"generation {generation} {what}: {cause}" if generation else ""


def _why_not_back(record: WorkloadRecord, notes: RolloutRecord) -> str:
    stable = notes.stable_generation
    if record.rollback_of:
        return "a rollback is not rolled back"
    if not record.spec.rollout.auto_rollback:
        return "autoRollback is off"
    if stable == notes.generation:
        return "it is the template that was good before"
    return f"generation {stable} is not kept any more" if stable else "no earlier generation is known to be good"


# --- time ---


def is_paused(record: WorkloadRecord) -> bool:
    """Return whether a person has paused the workload's present rollout, and it is one that can be."""
    paused = record.rollout_generation > 0 and record.paused_generation == record.rollout_generation
    return paused and record.spec.rollout.strategy is not RolloutStrategy.RECREATE


def _deadline_runs(record: WorkloadRecord, notes: RolloutRecord) -> bool:
    limited = record.spec.rollout.progress_deadline_s > 0
    return limited and notes.phase not in _NO_DEADLINE_IN and not notes.rest_from_ms


def _counts(record: WorkloadRecord, notes: RolloutRecord) -> bool:
    return notes.rest_from_ms > 0 or _deadline_runs(record, notes)


def _checkpoint_ms(record: WorkloadRecord, notes: RolloutRecord) -> int:
    rollout = record.spec.rollout
    counted_s = rollout.pause_s if notes.rest_from_ms else rollout.progress_deadline_s
    return max(1_000, int(counted_s * 1000 / CHECKPOINTS))


def _next_look_s(record: WorkloadRecord, notes: RolloutRecord, tally: Tally, now_ms: int) -> float | None:
    """Return the seconds until time alone may change what is to be noted."""
    looks_ms = []
    if notes.rest_from_ms:
        looks_ms.append(notes.rest_from_ms + int(record.spec.rollout.pause_s * 1000) - now_ms)
    if tally.progress > notes.progress:
        looks_ms.append(notes.at_ms + STAMP_PERIOD_MS - now_ms)
    if _deadline_runs(record, notes):
        overdue_ms = notes.progress_at_ms + int(record.spec.rollout.progress_deadline_s * 1000)
        looks_ms.append(overdue_ms - now_ms)
    if _counts(record, notes):
        looks_ms.append(notes.at_ms + _checkpoint_ms(record, notes) - now_ms)
    return max(0.0, min(looks_ms) / 1000) if looks_ms else None
