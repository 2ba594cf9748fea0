"""Bugs in where tasks are put, planted one at a time; see `mutations`."""

from __future__ import annotations

from tests.simulation.mutation import Mutation, Patch

PLACEMENT_BUGS: tuple[Mutation, ...] = (
    Mutation(
        "taints keep nobody away",
        (Patch("cloudless.core.scheduling.filters:taints", "if taint is None:", "if True:"),),
        by=("PlacementKept",),
        kinds=("end-task", "crash-agent"),
        placing=True,
    ),
    Mutation(
        "anti-affinity does not hold",
        (
            Patch(
                "cloudless.core.scheduling.neighbours:Bond.allows", "return not self.tally.near(places)", "return True"
            ),
        ),
        by=("PlacementKept",),
        kinds=("end-task", "crash-agent"),
        placing=True,
    ),
    Mutation(
        "equal priorities displace each other",
        (
            Patch(
                "cloudless.core.scheduling.preemption:_NodeTasks.__init__",
                "self._priority_of(task) < ask.priority",
                "self._priority_of(task) <= ask.priority",
            ),
        ),
        by=("HealthyTasksStay", "FloorKept"),
        placing=True,
    ),
)
