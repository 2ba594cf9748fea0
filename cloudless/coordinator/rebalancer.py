"""When the leader looks for a task to move to a better node; which one is `core.orchestration.rebalance`'s to say.

Nodes have to be as they are for as long as operators set (`rebalance_after_s`), counted on the monotonic clock from
when this leader saw the last of them change: a new leader waits anew. Then one task is moved at a time, with a rest of
a tenth of that between two. The orchestrator asks between its rounds, so a move never takes the room that another plan
has given away. Whoever comes to wait for a node begins the calm anew; one that fits nowhere does not hold up the rest
for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loguru import logger

from cloudless.core.keys import Kind
from cloudless.core.model import NodeStatus
from cloudless.core.orchestration.changes import Decider
from cloudless.core.orchestration.rebalance import plan_move
from cloudless.core.plan import Change
from cloudless.core.scheduling import Scratch, scheduler_of
from cloudless.core.state import Transition, View

NEVER_S = float("inf")
_NODE_RECORDS = frozenset({Kind.NODE_SPEC, Kind.NODE_INFO, Kind.NODE_STATUS})
_TASK_RECORDS = frozenset({Kind.TASK_DESIRED, Kind.TASK_OBSERVED, Kind.WORKLOAD, Kind.ROLLOUT, Kind.SCHEDULER})


@dataclass(frozen=True, slots=True)
class RebalancerSettings:
    """`look_pause_s`: between two looks, at least; `look_share` of the time is spent with looking, at most.
    `look_size_max`, `look_tasks_max`: workloads and tasks looked at in one, which bounds how long the loop is busy.
    `resync_period_s`: everything is looked at again this often, whatever was missed."""

    look_pause_s: float = 1.0
    look_share: float = 0.02
    look_size_max: int = 200
    look_tasks_max: int = 1_000
    resync_period_s: float = 60.0


class Rebalancer:
    """Remembers for how long nodes have been as they are, and which workloads are still to be looked at."""

    def __init__(self, settings: RebalancerSettings | None = None) -> None:
        self._settings = settings or RebalancerSettings()
        self._still_since_s = self._next_look_s = self._resync_s = 0.0
        self._pending: list[tuple[str, str]] = []
        self._waiting: frozenset[tuple[str, str]] = frozenset()
        self._news = True

    def begin(self, now_s: float) -> None:
        """Begin a term: nothing is known of the time before."""
        self._still_since_s = self._next_look_s = self._resync_s = now_s
        self._pending, self._waiting, self._news = [], frozenset(), True

    def note_waiting(self, refs: frozenset[tuple[str, str]], now_s: float) -> None:
        """Take note of the workloads that have tasks without a node now."""
        if not refs <= self._waiting:
            self._still_since_s = now_s
        self._waiting = refs

    def note(self, transition: Transition, now_s: float) -> None:
        """Take note of a change of the state."""
        if transition.kind in _NODE_RECORDS:
            self._news = True
            if not _is_same_reachability(transition):
                self._still_since_s = now_s
        elif transition.kind in _TASK_RECORDS:
            self._news = True

    def due_s(self, view: View) -> float:
        """Return when to call `plan` next, on the monotonic clock; never while operators do not want it."""
        after_s = scheduler_of(view).rebalance_after_s
        if not after_s:
            return NEVER_S
        due_s = max(self._still_since_s + after_s, self._next_look_s)
        return due_s if self._pending or self._news else max(due_s, self._resync_s)

    def plan(
        self, view: View, now_s: float, decider: Decider, unreachable_s: Mapping[str, float], scratch: Scratch
    ) -> Change | None:
        """Return a move, if there is one among the next few workloads."""
        if not self._pending:
            self._pending = sorted(view.workloads, reverse=True)
            self._news, self._resync_s = False, now_s + self._settings.resync_period_s
        change = plan_move(view, self._next_refs(view), decider, unreachable_s, scratch)
        if change is not None:
            logger.info("rebalance: {}", change.reason)
        return change

    def rest(self, view: View, began_s: float, now_s: float, *, moved: bool) -> None:
        """Put the next look off, by how long this one took and by the rest after a move."""
        pause_s = max(self._settings.look_pause_s, (now_s - began_s) / self._settings.look_share)
        if moved:
            pause_s = max(pause_s, scheduler_of(view).rebalance_after_s / 10)
        self._next_look_s = now_s + pause_s

    def _next_refs(self, view: View) -> Iterator[tuple[str, str]]:
        """Yield the workloads of one look; whoever is not reached stays for the next."""
        tasks = 0
        for _ in range(self._settings.look_size_max):
            if not self._pending or tasks >= self._settings.look_tasks_max:
                return
            ref = self._pending.pop()
            tasks += len(view.tasks_of(*ref))
            yield ref


def _is_same_reachability(transition: Transition) -> bool:
    """Return whether a node's status changed in what its tasks do not depend on, its reliability, say."""
    was, now = transition.before, transition.after
    return isinstance(was, NodeStatus) and isinstance(now, NodeStatus) and was.reachability is now.reachability
