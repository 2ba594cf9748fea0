"""Bugs in how tasks are moved to better nodes, planted one at a time; see `mutations`."""

from __future__ import annotations

from tests.simulation.mutation import Mutation, Patch

REBALANCE = "cloudless.core.orchestration.rebalance"
QUIET = ("end-task",)

MOVE_BUGS: tuple[Mutation, ...] = (
    Mutation(
        "a move that makes nothing better is begun",
        (
            Patch(
                f"{REBALANCE}:_Spread.find_gain",
                "more = self.count(source) - self.count(target)\n        if more >= 2:",
                "more = self.count(source) - self.count(target)\n        if more >= 0:",
            ),
        ),
        by=("MovesKept",),
        kinds=QUIET,
        rebalancing=True,
    ),
    Mutation(
        "tasks are moved while a node is drained",
        (Patch(f"{REBALANCE}:find_unrest", "if node.spec.draining:", "if False:"),),
        by=("MovesKept",),
        kinds=QUIET,
        rebalancing=True,
    ),
    Mutation(
        "nobody gives way to a successor",
        (
            Patch(
                "cloudless.core.orchestration.census:_with_moves",
                "replace(o, moving=True) if o.task.desired.successor_id in good else o",
                "o",
            ),
        ),
        by=("Convergence", "HealthyTasksStay", "MovesKept"),
        kinds=QUIET,
        rebalancing=True,
    ),
    Mutation(
        "an empty node is not filled again",
        (
            Patch(
                "cloudless.coordinator.rebalancer:Rebalancer.due_s",
                "if not after_s:",
                "if after_s:",
            ),
        ),
        by=("Convergence",),
        kinds=QUIET,
        rebalancing=True,
    ),
)
