"""What a rollout lets the planner do just now, and which slots it holds back for that.

A course follows from what is written: the workload's record and the leader's notes (`rollout`). What the leader is
about to note permits nothing yet, so that no step is taken that a new leader would not know of.

Slots that are held back aim at the generation they have; an empty one at the one before, whose template is in the
history. So a workload keeps all its replicas however long a canary is tried or a rollout is paused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudless.core.model import Rollout, RolloutPhase, RolloutRecord, RolloutStrategy, WorkloadRecord
from cloudless.core.orchestration.census import Census, Slot
from cloudless.core.orchestration.revisions import find_template
from cloudless.core.state.view import View


@dataclass(frozen=True, slots=True)
class Course:
    """`open_max` slots may be of the new template (None: all); empty ones of the others get that of `fallback`.

    `beside`: all new tasks start beside the old ones, and no old one is stopped for a new one.
    """

    open_max: int | None = None
    fallback: int = 0
    beside: bool = False


OPEN = Course()


def build_course(record: WorkloadRecord, notes: RolloutRecord, replicas: int) -> Course:
    """Return what the notes on the workload's present rollout permit."""
    if notes.phase is RolloutPhase.COMPLETED:
        return OPEN
    rollout, fallback = record.spec.rollout, notes.stable_generation
    trying = trial_size(record, replicas) > 0 and not notes.promoted
    beside = trying and rollout.strategy is RolloutStrategy.BLUE_GREEN
    if notes.phase is RolloutPhase.PAUSED:
        return Course(0, fallback, beside)
    if beside:
        return Course(None, fallback, beside)
    if trying:
        return Course(trial_size(record, replicas), fallback)
    return Course(notes.allowed, fallback) if batch_size(record, replicas) else OPEN


def trial_size(record: WorkloadRecord, replicas: int) -> int:
    """Return how many new tasks are tried before the others follow, 0 if none: a rollback is no experiment."""
    if record.rollback_of:
        return 0
    match record.spec.rollout.strategy:
        case RolloutStrategy.CANARY:
            return min(record.spec.rollout.canary, replicas)
        case RolloutStrategy.BLUE_GREEN:
            return replicas
        case _:
            return 0


def batch_size(record: WorkloadRecord, replicas: int) -> int:
    """Return how many slots are begun at a time, 0 if the bounds alone say that. A rollback does not dawdle."""
    rollout = record.spec.rollout
    if record.rollback_of or rollout.strategy not in (RolloutStrategy.ROLLING_UPDATE, RolloutStrategy.CANARY):
        return 0
    if rollout.batch_size:
        return rollout.batch_size
    return max(1, _at_once(rollout, replicas)) if rollout.pause_s else 0


def hold_back(
    view: View, record: WorkloadRecord, census: Census, course: Course, slots: Sequence[Slot], now_ms: int
) -> None:
    """Let those of `slots` that may not change yet aim at what they have; empty ones among them are to be filled."""
    if course.open_max is None:
        return
    begun = sum(1 for slot in slots if slot.begun)
    rest = sorted((slot for slot in slots if not slot.begun), key=lambda slot: (_serves(slot), slot.number))
    for slot in rest[max(0, course.open_max - begun) :]:
        generation = slot.occupants[-1].task.desired.task_generation if slot.occupants else course.fallback
        template = find_template(view, record, generation) if generation else None
        if template is not None:
            slot.aim(generation, template.restart_policy, now_ms)
        elif slot.occupants:
            slot.aim(generation, record.spec.restart_policy, now_ms)
        census.slots[slot.number] = slot


def _serves(slot: Slot) -> bool:
    return any(occupant.available for occupant in slot.occupants)


def _at_once(rollout: Rollout, replicas: int) -> int:
    return rollout.surge_of(replicas) + replicas - rollout.available_least(replicas)
