"""Which task stays when a node returns whose task was replaced meanwhile: what `reconcile` of the workload says.

With KEEP_REPLACEMENT a lost task is told to stop when it is replaced. With the other two it stays wanted, so that it
may win when its node returns; until then it counts for nothing, and it is given up if its node is removed or its
template is replaced. For a while after the return both run.

What is known of a task on a node that has just returned is what was known before: its agent has not reported yet. So
nothing is decided for `SETTLE_S` after the return, and the loser is stopped only as long as the winner's report is the
one that was judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudless.core.model import Reconcile
from cloudless.core.orchestration.absence import GONE_S
from cloudless.core.orchestration.census import Occupant
from cloudless.core.orchestration.slots import by_merit
from cloudless.core.state.view import View

SETTLE_S = 5.0
"""Seconds in which an agent that is reachable again has surely reported what became of its tasks."""


def may_return(policy: Reconcile, occupant: Occupant) -> bool:
    """Return whether a lost task stays wanted although another takes its place."""
    return policy is not Reconcile.KEEP_REPLACEMENT and occupant.absent_s != GONE_S and not occupant.outdated


def find_settling_s(view: View, occupants: Sequence[Occupant], now_ms: int) -> float:
    """Return the seconds until all their agents have had time to report, 0 if they had."""
    waits = [0.0]
    for occupant in occupants:
        node = view.nodes.get(occupant.task.desired.node_id)
        if node is not None and node.status is not None:
            returned_s = (now_ms - node.status.since_ms) / 1000
            waits.append(SETTLE_S - returned_s if 0 <= returned_s < SETTLE_S else 0.0)
    return max(waits)


def choose(view: View, policy: Reconcile, occupants: Sequence[Occupant]) -> list[Occupant]:
    """Return the tasks of one slot that nothing speaks against, the one to keep first."""
    if policy is not Reconcile.BEST:
        return sorted(occupants, key=by_merit)
    return sorted(occupants, key=lambda occupant: (not occupant.available, *_suits(view, occupant), by_merit(occupant)))


def _suits(view: View, occupant: Occupant) -> tuple[bool, int]:
    """Order nodes: open before cordoned ones, then those with fewer tasks."""
    node_id = occupant.task.desired.node_id
    node = view.nodes.get(node_id)
    return node is not None and node.spec.cordoned, len(view.tasks_on(node_id))
