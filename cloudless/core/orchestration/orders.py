"""What a person may order of a rollout: pause it, let it go on, promote what is tried first, or undo it.

Each order is about the rollout that is under way when it is given: it names that one in the workload's record, so that
it says nothing of the next. An order that makes no sense now is refused with the reason; one that has been followed
already changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from cloudless.core.model import RolloutPhase, RolloutStrategy, WorkloadRecord
from cloudless.core.orchestration.revisions import SpecChange, change_spec, find_revision, find_rollout
from cloudless.core.state.view import View
from cloudless.core.template import with_template
from cloudless.errors import Conflict, NotFound


def pause(view: View, record: WorkloadRecord) -> SpecChange | None:
    """Return the change that begins no more replacements; None if it is so already. Raises Conflict."""
    _require_under_way(view, record, "paused")
    if record.spec.rollout.strategy is RolloutStrategy.RECREATE:
        raise Conflict("a RECREATE rollout cannot be paused: its tasks end together", hint="`workload rollout undo`")
    if record.paused_generation == record.rollout_generation:
        return None
    return SpecChange(replace(record, paused_generation=record.rollout_generation))


def resume(view: View, record: WorkloadRecord) -> SpecChange | None:
    """Return the change that lets a paused rollout go on; None if it is not paused."""
    return SpecChange(replace(record, paused_generation=0)) if record.paused_generation else None


def promote(view: View, record: WorkloadRecord) -> SpecChange | None:
    """Return the change that lets the other tasks follow those tried first; None if it is so already.

    Raises Conflict while those are not well, or if nothing is tried.
    """
    if record.promoted_generation == record.rollout_generation > 0:
        return None
    phase = _require_under_way(view, record, "promoted")
    if phase is not RolloutPhase.AWAITING_PROMOTION:
        raise Conflict(
            f"the rollout of {record.namespace}/{record.name} does not await promotion: it is {phase.value}",
            hint="`workload rollout status` says what it does",
        )
    return SpecChange(replace(record, promoted_generation=record.rollout_generation))


def undo(view: View, record: WorkloadRecord, generation: int, now_ms: int) -> SpecChange | None:
    """Return the change that puts an earlier template back; None if it is the present one.

    `generation` 0: the one that was good before a rollout that is under way, else the one before the present.
    What is put back is not rolled back by itself if it fails. Raises NotFound.
    """
    wanted = generation or _last_good(view, record)
    if wanted == record.task_generation:
        return None
    kept = find_revision(view, record, wanted) if wanted else None
    if kept is None:
        known = ", ".join(str(number) for number in reversed(record.history)) or "none"
        what = f"generation {wanted}" if wanted else "earlier template"
        raise NotFound(f"workload {record.namespace}/{record.name} keeps no {what}", hint=f"kept are: {known}")
    spec = with_template(record.spec, kept.spec)
    return change_spec(view, record, spec, now_ms, "undone by a person", rollback_of=record.task_generation)


def _last_good(view: View, record: WorkloadRecord) -> int:
    noted = find_rollout(view, record)
    under_way = noted is not None and noted.record.phase is not RolloutPhase.COMPLETED
    if noted is not None and under_way and noted.record.stable_generation in record.history:
        return noted.record.stable_generation
    return record.history[-1] if record.history else 0


def _require_under_way(view: View, record: WorkloadRecord, done: str) -> RolloutPhase:
    """Return the phase of the rollout that is under way. Raises Conflict if there is none."""
    noted = find_rollout(view, record)
    current = noted is not None and noted.record.rollout == record.rollout_generation
    phase = noted.record.phase if noted is not None and current else RolloutPhase.PROGRESSING
    if not record.rollout_generation or phase is RolloutPhase.COMPLETED:
        raise Conflict(
            f"no rollout of {record.namespace}/{record.name} is under way that could be {done}",
            hint="a change of the template begins one",
        )
    return phase
