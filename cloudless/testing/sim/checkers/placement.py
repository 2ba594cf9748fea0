"""Where tasks are put: judged by the rules as the manual states them, not by the scheduler's own code."""

from __future__ import annotations

from collections.abc import Iterable

from cloudless.core.keys import Kind
from cloudless.core.model import Desired, TaskDesired, WorkloadRecord
from cloudless.core.state import StateMachine, Task
from cloudless.testing.placement_rules import Standing, find_breaches
from cloudless.testing.sim.checkers.tasks import RECENTLY_S, Recent
from cloudless.testing.sim.happenings import Stored

SLOWING = frozenset(
    {"lag", "pause-coordinator", "slow-way", "cut", "isolate", "break-watch", "bad-weather", "store-down"}
)
"""Faults under which a leader may plan from an older view than usual."""
SOON_S = 0.5


class PlacementKept(Recent):
    """No constraint is broken at the moment of a placement, as far as the leader could know.

    Its view may be a moment old. The workload itself is as the plan saw it (that is a precondition); what changed
    lately about the node excuses a breach, and tasks that changed lately do if company is missing. Company that must
    not be there counts if neither its node nor its workload changed lately: tasks only move towards their end.
    """

    def on_Stored(self, stored: Stored) -> None:
        made = [
            transition.after
            for transition in stored.transitions
            if transition.kind is Kind.TASK_DESIRED and transition.before is None and transition.after is not None
        ]
        for task in made:
            self._check(task)
        self.remember(stored)

    def remember(self, stored: Stored) -> None:
        super().remember(stored)
        if any(transition.kind in (Kind.TASK_DESIRED, Kind.TASK_OBSERVED) for transition in stored.transitions):
            self._changed_s["tasks"] = self.world.loop.now_s

    def recently(self, *names: str) -> bool:
        now_s = self.world.loop.now_s
        patience_s = SOON_S if SLOWING.isdisjoint(self.world.options.kinds) else RECENTLY_S
        return any(now_s - self._changed_s.get(name, -patience_s - 1) <= patience_s for name in names)

    def _check(self, task: TaskDesired) -> None:
        truth = self.world.truth
        workload = truth.workloads.get((task.namespace, task.workload))
        if workload is None or self.recently(f"node/{task.node_id}"):
            return
        others = [
            other
            for other in standing_tasks(truth, without={task.id})
            if other.workload == task.workload
            or not self.recently(f"node/{other.node_id}", f"workload/{other.workload}")
        ]
        away = {node_id for node_id, node in truth.nodes.items() if not node.reachable}
        known = [other for other in others if other.node_id not in away]
        breaches = find_breaches(standing_of(workload.record), task.node_id, truth.nodes, known)
        if self.recently("tasks") or len(known) < len(standing_tasks(truth, without={task.id})):
            breaches = [breach for breach in breaches if not breach.startswith("no task of")]
        if breaches:
            raise self.refuse(f"{task.id} was put on {task.node_id}: {'; '.join(breaches)}")


def standing_of(record: WorkloadRecord, task: Task | None = None) -> Standing:
    """Return a workload's task as the rules see it: the next one, or one that is there."""
    return Standing(
        namespace=record.namespace,
        workload=record.name,
        labels=record.labels,
        placement=record.spec.placement,
        requests=record.spec.requests if task is None else task.desired.spec.requests,
        ports=frozenset((port.host_port, port.protocol) for port in record.spec.ports if port.host_port),
        executor=record.spec.executor,
        node_id=task.desired.node_id if task is not None else "",
        staying=task is None or task.desired.desired is Desired.RUNNING,
    )


def standing_tasks(truth: StateMachine, without: Iterable[str] = ()) -> list[Standing]:
    """Return every task that holds room, of workloads that are known."""
    found = []
    for task_id in sorted(set(truth.tasks).difference(without)):
        task = truth.tasks[task_id]
        workload = truth.workloads.get((task.desired.namespace, task.desired.workload))
        if workload is not None and not task.ended:
            found.append(standing_of(workload.record, task))
    return found


def find_room(truth: StateMachine, record: WorkloadRecord) -> list[str]:
    """Return the nodes that may take the workload's next task."""
    others, wanted = standing_tasks(truth), standing_of(record)
    able = (node_id for node_id in sorted(truth.nodes) if truth.nodes[node_id].info is not None)
    return [node_id for node_id in able if not find_breaches(wanted, node_id, truth.nodes, others)]
