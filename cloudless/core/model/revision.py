"""What the cluster remembers of a workload's changes: earlier templates, and how the newest change is coming along.

`RevisionRecord` is written with the change that replaces it; `RolloutRecord` is the leader's alone. Both go with
their workload.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.model.evolving import Evolving
from cloudless.core.model.workload import WorkloadSpec


class RolloutPhase(Enum):
    """How far a rollout is.

    PROGRESSING         tasks are being replaced
    PAUSED              a person has stopped it for now
    AWAITING_PROMOTION  the first new tasks are well; a person has to say that the others may follow
    COMPLETED           all tasks are of the new template and available
    FAILED              it came no further within its deadline and there was nothing to put back; it goes on trying
    """

    PROGRESSING = "PROGRESSING"
    PAUSED = "PAUSED"
    AWAITING_PROMOTION = "AWAITING_PROMOTION"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRecord(Evolving):
    """A specification whose template is no longer the workload's; `generation` is the template's.

    `replaced_at_ms` is when another took its place, `reason` why.
    """

    namespace: str
    workload: str
    workload_uid: str
    generation: int
    spec: WorkloadSpec
    replaced_at_ms: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord(Evolving):
    """The leader's notes on the newest change of a workload's template.

    `rollout` is the workload's `rollout_generation` these notes are about, `generation` the template it leads to.
    `stable_generation` is the template to put back if it fails (0: none is known to be good), `rollback_of` the one
    that this rollout takes back (0: it is no rollback) and `cause` why. `reason` says why it is in `phase`.

    `progress` is the furthest it has come, `progress_at_ms` when it came there. `allowed` is how many slots may have
    been begun so far (0: no batches), `rest_from_ms` when the last batch was done (0: it is not). `promoted`: what
    was tried first is to become of all.

    All times are the wall clock of the leader of `term`, which for the length of its term does not jump; `at_ms` is
    when this was written. The next leader carries over what had passed by then, and counts on with its own clock.
    """

    namespace: str
    workload: str
    workload_uid: str
    rollout: int
    generation: int
    stable_generation: int = 0
    rollback_of: int = 0
    cause: str = ""
    phase: RolloutPhase = RolloutPhase.PROGRESSING
    reason: str = ""
    started_at_ms: int = 0
    since_ms: int = 0
    progress: int = 0
    progress_at_ms: int = 0
    allowed: int = 0
    rest_from_ms: int = 0
    promoted: bool = False
    term: int = 0
    at_ms: int = 0
