"""Tasks and their processes: what may begin, how states move, how many there may be, and what reports say."""

from __future__ import annotations

from typing import Any

from cloudless.core.keys import Kind
from cloudless.core.lifecycle import is_final
from cloudless.core.model import Desired, RolloutStrategy, TaskObserved, TaskState, WorkloadRecord
from cloudless.core.state import Task
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.checkers.displaced import may_be_displaced, may_stay
from cloudless.testing.sim.happenings import Began, Finished, ReportAcknowledged, Stored

RECENTLY_S = 5.0
SETTLED_S = 1.0
ENDED_BY_ITSELF = frozenset({TaskState.BACKOFF, TaskState.FAILED, TaskState.COMPLETED})
Ref = tuple[str, str]
RANK = {state: rank for rank, state in enumerate(TaskState)}
"""Of states within one attempt; the enumeration's order is the order of a life."""


class StartedOnce(Checker):
    """No attempt begins twice, none while another of its task runs, none on another node than the task's (O5)."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._began: set[tuple[str, int]] = set()
        self._running: dict[str, tuple[str, int]] = {}

    def on_Began(self, began: Began) -> None:
        key = (began.task_id, began.attempt)
        if key in self._began:
            raise self.refuse(f"attempt {began.attempt} of task {began.task_id} began twice")
        if began.task_id in self._running:
            node_id, attempt = self._running[began.task_id]
            raise self.refuse(f"task {began.task_id} begins again while attempt {attempt} runs on {node_id}")
        task = self.world.truth.tasks.get(began.task_id)
        if task is not None and task.desired.node_id != began.node_id:
            raise self.refuse(f"task {began.task_id} of {task.desired.node_id} began on {began.node_id}")
        if task is not None and task.ended:
            raise self.refuse(f"task {began.task_id} begins after it was reported {task.state.value}")
        self._began.add(key)
        self._running[began.task_id] = (began.node_id, began.attempt)

    def on_Finished(self, finished: Finished) -> None:
        self._running.pop(finished.task_id, None)


class JournalFirst(Checker):
    """An attempt begins only after its agent's journal says so: a crash must not forget what runs."""

    def on_Began(self, began: Began) -> None:
        if began.journaled < began.attempt:
            raise self.refuse(
                f"attempt {began.attempt} of {began.task_id} began; the journal of {began.node_id} knows "
                f"{began.journaled if began.journaled >= 0 else 'nothing'}"
            )


class ReportsDurable(Checker):
    """A report is acknowledged when it is stored, overtaken, or nobody's any more."""

    def on_ReportAcknowledged(self, told: ReportAcknowledged) -> None:
        task = self.world.truth.tasks.get(told.task_id)
        if task is None or task.ended or task.desired.node_id != told.node_id:
            return
        stored = task.observed.sequence if task.observed else 0
        if stored < told.sequence:
            raise self.refuse(f"report {told.sequence} of {told.task_id} was acknowledged, {stored} is stored")


class StatesForward(Checker):
    """(attempt, state) of a task and its reports' sequence only grow; what is to stop is never to run again."""

    def on_Stored(self, stored: Stored) -> None:
        for transition in stored.transitions:
            if transition.before is None or transition.after is None:
                continue
            if transition.kind is Kind.TASK_OBSERVED:
                self._check_report(transition.before, transition.after)
            elif transition.kind is Kind.TASK_DESIRED:
                self._check_desired(transition)

    def _check_report(self, before: TaskObserved, after: TaskObserved) -> None:
        if after.sequence <= before.sequence:
            raise self.refuse(f"report {after.sequence} of {after.task_id} was stored over {before.sequence}")
        moved = (after.attempt, RANK[after.state]) >= (before.attempt, RANK[before.state])
        if not moved or (is_final(before.state) and after.state is not before.state):
            raise self.refuse(
                f"task {after.task_id} went from {before.attempt}/{before.state.value} back to "
                f"{after.attempt}/{after.state.value}"
            )

    def _check_desired(self, transition: Any) -> None:
        before, after = transition.before, transition.after
        if before.desired is Desired.STOPPED and after.desired is Desired.RUNNING:
            raise self.refuse(f"{transition.key} is to run again after it was to stop")
        if (before.node_id, before.slot, before.spec) != (after.node_id, after.slot, after.spec):
            raise self.refuse(f"{transition.key} became another task")


class Reservations(Checker):
    """What is placed on a node never exceeds it."""

    def on_Stored(self, stored: Stored) -> None:
        truth = self.world.truth
        for transition in stored.transitions:
            if transition.kind is not Kind.TASK_DESIRED or transition.before is not None or transition.after is None:
                continue
            node = truth.nodes.get(transition.after.node_id)
            if node is None or node.info is None:
                raise self.refuse(f"{transition.key} is placed on {transition.after.node_id}, which is no node")
            held = [truth.tasks[task_id] for task_id in truth.tasks_on(node.id) if not truth.tasks[task_id].ended]
            cpu = sum(task.desired.spec.requests.cpu_millicores for task in held)
            if cpu > node.info.capacity.cpu_millicores:
                raise self.refuse(
                    f"{node.id} holds {cpu}m of {node.info.capacity.cpu_millicores}m at r{stored.revision}"
                )


class Recent(Checker):
    """What changed lately, as an excuse for a plan that was made from a view a moment older."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._changed_s: dict[str, float] = {}

    def remember(self, stored: Stored) -> None:
        now_s = self.world.loop.now_s
        for transition in stored.transitions:
            match transition.kind:
                case Kind.NODE_STATUS | Kind.NODE_SPEC | Kind.NODE_INFO:
                    self._changed_s["node/" + transition.key.split("/")[4]] = now_s
                case Kind.WORKLOAD:
                    record = transition.after or transition.before
                    self._changed_s[f"workload/{record.name}"] = now_s

    def recently(self, *names: str) -> bool:
        now_s = self.world.loop.now_s
        return any(now_s - self._changed_s.get(name, -RECENTLY_S - 1) <= RECENTLY_S for name in names)

    def stays(self, task: Task) -> bool:
        """Return whether the state has no reason to end or move this task."""
        truth = self.world.truth
        workload = truth.workloads.get((task.desired.namespace, task.desired.workload))
        node = truth.nodes.get(task.desired.node_id)
        if workload is None or workload.record.deleted_at_ms or node is None:
            return False
        current = task.desired.task_generation == workload.record.task_generation
        driven_out = not may_stay(workload.record.spec.placement.tolerations, node.spec.taints)
        return current and node.reachable and not node.spec.draining and not driven_out

    def rivals(self, task_id: str, task: Task) -> list[Task]:
        """Return the other active tasks of its slot."""
        truth = self.world.truth
        others = [truth.tasks[other] for other in truth.tasks_of(task.desired.namespace, task.desired.workload)]
        return [
            other
            for other in others
            if other.id != task_id and other.active and other.desired.slot == task.desired.slot
        ]


class SlotsFilledOnce(Recent):
    """A slot has at most two tasks, and gets a second only when the first cannot stay (O5)."""

    def on_Stored(self, stored: Stored) -> None:
        self.remember(stored)
        for transition in stored.transitions:
            if transition.kind is not Kind.TASK_DESIRED or transition.before is not None or transition.after is None:
                continue
            desired = transition.after
            task = self.world.truth.tasks[desired.id]
            rivals = self.rivals(desired.id, task)
            if len(rivals) > 1:
                raise self.refuse(f"slot {desired.slot} of {desired.workload} has {len(rivals) + 1} active tasks")
            for rival in rivals:
                gives_way = rival.desired.successor_id == desired.id  # `moves` says whether it may
                if self.stays(rival) and not gives_way and not self._came_back(rival):
                    raise self.refuse(f"{desired.id} was made for the slot that {rival.id} fills well")

    def _came_back(self, rival: Task) -> bool:
        """Return whether the rival's node changed since it was placed, so lately that the plan may not know."""
        node = self.world.truth.nodes[rival.desired.node_id]
        changed = max(node.status_revision, node.spec_revision, node.info_revision) > rival.desired_create_revision
        return changed and self.recently(f"node/{node.id}")


class HealthyTasksStay(Recent):
    """No task that runs as it should, alone in its slot, is stopped: least of all because a coordinator died (O5)."""

    def on_Stored(self, stored: Stored) -> None:
        self.remember(stored)
        truth = self.world.truth
        for transition in stored.transitions:
            after = transition.after
            if transition.kind is not Kind.TASK_DESIRED or transition.before is None or after is None:
                continue
            if not (transition.before.desired is Desired.RUNNING and after.desired is Desired.STOPPED):
                continue
            task = truth.tasks[after.id]
            if task.ended or not self.stays(task) or self.rivals(after.id, task):
                continue
            if self.recently(f"node/{after.node_id}", f"workload/{after.workload}"):
                continue
            active = [t for t in truth.tasks_of(after.namespace, after.workload) if truth.tasks[t].active]
            wanted = truth.workloads[after.namespace, after.workload].record.spec.replicas
            if may_be_displaced(truth, truth.workloads[after.namespace, after.workload].record):
                continue
            if len(active) < wanted:
                raise self.refuse(f"task {after.id} ran well and was stopped: {after.reason}")


class FloorKept(Checker):
    """A rolling update never takes running replicas below what may be missing, of itself."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._running: dict[Ref, dict[str, int]] = {}
        self._running_since_s: dict[str, float] = {}
        self._disturbed_s: dict[Ref, float] = {}
        self._floors: dict[Ref, list[tuple[float, int]]] = {}

    def on_Stored(self, stored: Stored) -> None:
        touched: set[Ref] = set()
        stopping: set[Ref] = set()
        truth = self.world.truth
        for transition in stored.transitions:
            if transition.kind is Kind.TASK_DESIRED:
                record = transition.after or transition.before
                touched.add((record.namespace, record.workload))
                if transition.after is not None and transition.after.desired is Desired.STOPPED:
                    stopping.add((record.namespace, record.workload))
                    workload = truth.workloads.get((record.namespace, record.workload))
                    if workload is not None and may_be_displaced(truth, workload.record):
                        self._disturbed_s[record.namespace, record.workload] = self.world.loop.now_s
            elif transition.kind is Kind.TASK_OBSERVED:
                self._note_report(transition, touched)
            elif transition.kind is Kind.NODE_STATUS:
                for ref in truth.workloads:
                    touched.add(ref)
                    self._disturbed_s[ref] = self.world.loop.now_s
            elif transition.kind is Kind.WORKLOAD and transition.after is not None:
                touched.add((transition.after.namespace, transition.after.name))
                self._note_floor(transition.after)
        for ref in sorted(touched):
            self._check(ref, ref in stopping)

    def _note_report(self, transition: Any, touched: set[Ref]) -> None:
        task = self.world.truth.tasks.get(transition.key.split("/")[4])
        if task is None:
            return
        ref = (task.desired.namespace, task.desired.workload)
        touched.add(ref)
        if task.state in ENDED_BY_ITSELF:  # one more is missing than the planner knew
            self._disturbed_s[ref] = self.world.loop.now_s

    def _note_floor(self, record: WorkloadRecord) -> None:
        """Remember what each recent version of the workload allows: a plan may still be of the one before."""
        now_s = self.world.loop.now_s
        held = self._floors.get((record.namespace, record.name), [])
        ends_s = [*(since_s for since_s, _ in held[1:]), now_s]
        floors = [floor for floor, end_s in zip(held, ends_s, strict=False) if now_s - end_s < RECENTLY_S]
        rollout = record.spec.rollout
        recreates = rollout.strategy is RolloutStrategy.RECREATE  # all of them end together, as asked
        floors.append((now_s, 0 if recreates else rollout.available_least(record.spec.replicas)))
        self._floors[record.namespace, record.name] = floors

    def _check(self, ref: Ref, stops: bool) -> None:
        now_s = self.world.loop.now_s
        held, running = self._running.get(ref, {}), self._slots(ref)
        self._running[ref] = running
        for task_id in running:
            self._running_since_s.setdefault(task_id, now_s)
        # What began to run a moment ago, the plan may have known as not running.
        before = len({slot for task_id, slot in held.items() if now_s - self._running_since_s[task_id] > SETTLED_S})
        after = len(set(running.values()))
        workload = self.world.truth.workloads.get(ref)
        calm = now_s - self._disturbed_s.get(ref, -RECENTLY_S - 1) > RECENTLY_S
        if not stops or not calm or workload is None or workload.record.deleted_at_ms:
            return
        self._note_floor(workload.record)
        floor = min(allowed for _, allowed in self._floors[ref])
        if after < min(before, floor):
            raise self.refuse(f"{ref[1]} was taken from {before} to {after} running replicas; the floor is {floor}")

    def _slots(self, ref: Ref) -> dict[str, int]:
        """Return the slot of each running task."""
        truth = self.world.truth
        tasks = [truth.tasks[task_id] for task_id in truth.tasks_of(*ref)]
        return {
            task.id: task.desired.slot
            for task in tasks
            if task.active
            and task.state is TaskState.RUNNING
            and (node := truth.nodes.get(task.desired.node_id)) is not None
            and node.reachable
        }
