"""Bugs planted in how rollouts are carried through."""

from __future__ import annotations

from cloudless.testing.sim.options import Rollouts
from tests.simulation.mutation import Mutation, Patch

DRAFT = "cloudless.core.orchestration.draft:Draft"
ROLLOUT = "cloudless.core.orchestration.rollout"
QUIET = ("end-task",)
"""Faults that disturb nobody: what is looked for needs time more than trouble."""

ROLLOUT_BUGS: tuple[Mutation, ...] = (
    Mutation(
        "the surge is ignored",
        (
            Patch(
                f"{DRAFT}._roll",
                "budget = replicas + rollout.surge_of(replicas) - self._held(kept)",
                "budget = replicas + 9",
            ),
        ),
        by=("SurgeKept",),
        kinds=QUIET,
        rollouts=Rollouts(broken=0.0, orders=0),
    ),
    Mutation(
        "an old task is stopped before the new one is available",
        (Patch(f"{DRAFT}._finish_move", "elif new.available:", "elif new is not None:"),),
        by=("FloorKept",),
        kinds=QUIET,
        rollouts=Rollouts(broken=0.5, orders=0),
    ),
    Mutation(
        "a rollback is rolled back",
        (Patch(f"{ROLLOUT}:_find_way_back", "or record.rollback_of or", "or"),),
        by=("RolledBackOnce",),
        kinds=QUIET,
        rollouts=Rollouts(broken=0.5, orders=5, of_orders=("UNDO",), takes_s=60.0, pause_s=3.0),
    ),
    Mutation(
        "a pause is ignored",
        (
            Patch(
                "cloudless.core.orchestration.course:build_course",
                "if notes.phase is RolloutPhase.PAUSED:",
                "if False:",
            ),
        ),
        by=("PauseKept",),
        kinds=QUIET,
        rollouts=Rollouts(broken=0.0, orders=12),
    ),
    Mutation(
        "a deadline is forgotten",
        (
            Patch(
                f"{ROLLOUT}:_is_overdue",
                "return now_ms - notes.progress_at_ms >= record.spec.rollout.progress_deadline_s * 1000",
                "return False",
            ),
        ),
        by=("DeadlineKept",),
        kinds=QUIET,
        rollouts=Rollouts(broken=0.7, orders=0),
    ),
)
