"""Forgets what nobody needs any more; `core.orchestration.reap` says what that is.

It looks at the workloads that had a task made, stopped or ended since its last look, and now and then at all of them:
some things are kept for a time, and a notification too few must not matter for ever. Many tasks are looked at in parts,
between which the loop belongs to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes
from cloudless.coordinator.replica import Replica
from cloudless.core.keys import Kind
from cloudless.core.lifecycle import is_final
from cloudless.core.model import RolloutRecord, TaskDesired, TaskObserved, WorkloadRecord
from cloudless.core.orchestration.reap import Ref, find_refs, plan_event_reap, plan_reap
from cloudless.core.state import Applied, Transition, View
from cloudless.ports import Clock

TASKS_A_LOOK = 2_000


class Reaper:
    """Forgets ended tasks that are no longer needed, reports without a task, and the oldest events."""

    PERIOD_S = 5.0
    FULL_PERIOD_S = 60.0

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica, self._clock = replica, clock
        self._dirty: set[Ref] = set()
        self._all = True

    async def run(self, term: int, committer: Committer) -> None:
        self._all, full_at_s = True, 0.0
        stop_listening = self._replica.listen(self._on_applied)
        try:
            while True:
                now_s, refs = self._clock.monotonic_s(), self._dirty
                if self._all or now_s >= full_at_s:
                    self._all, full_at_s = False, now_s + self.FULL_PERIOD_S
                    refs = find_refs(self._replica.machine)
                self._dirty = set()
                await self._reap(refs, committer)
                await self._clock.sleep(self.PERIOD_S)
        finally:
            stop_listening()

    async def _reap(self, refs: Iterable[Ref], committer: Committer) -> None:
        machine = self._replica.machine
        for part in _in_parts(machine, refs):
            changes = (*plan_reap(machine, self._clock.wall_ms(), refs=part), *plan_event_reap(machine))
            if changes:
                self._dirty.update(part)  # to see whether it is done
                await commit_changes(committer, self._replica, changes)
            else:
                await self._clock.sleep(0)

    def _on_applied(self, applied: Applied) -> None:
        for transition in applied.transitions:
            if transition.kind is Kind.NODE_INFO and transition.after is None:
                self._all = True  # what ran there is over
            elif (ref := _find_ref(self._replica.machine, transition)) is not None:
                self._dirty.add(ref)


def _find_ref(view: View, transition: Transition) -> Ref | None:
    """Return the workload of which something may not be needed any more after a change, None if there is none."""
    record = transition.after or transition.before
    match record:
        case WorkloadRecord():
            return record.namespace, record.name
        case TaskDesired() | RolloutRecord():
            return record.namespace, record.workload
        case TaskObserved() if is_final(record.state) and (task := view.tasks.get(record.task_id)) is not None:
            return task.desired.namespace, task.desired.workload
    return None


def _in_parts(view: View, refs: Iterable[Ref]) -> Iterator[list[Ref]]:
    """Yield the workloads in lots of a bounded number of tasks; an empty lot if there are none."""
    part: list[Ref] = []
    tasks = 0
    for ref in sorted(refs):
        part.append(ref)
        tasks += len(view.tasks_of(*ref))
        if tasks >= TASKS_A_LOOK:
            yield part
            part, tasks = [], 0
    if part or not tasks:
        yield part
