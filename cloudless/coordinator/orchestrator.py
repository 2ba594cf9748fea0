"""The leader's care for workloads: which of them to plan, and when.

What to do is decided by `core.orchestration`. Here stands what makes a workload worth planning again: a
change of its own, of a task, of a node; what can take away the obstacle that it waits for (`scheduling.wakes`); a
deadline; and now and then everything, so that no lost notification loses work. Higher priorities are planned first, and
those that room is being made for in every round, so that it stays reserved for them. When nothing is left to plan, and
operators want so, a task is moved to a better node (`rebalancer`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from loguru import logger

from cloudless.coordinator.change_trace import Scheduling
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes, wait_for_any
from cloudless.coordinator.rebalancer import Rebalancer
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import Reachability, TaskDesired, WorkloadMode, WorkloadRecord
from cloudless.core.orchestration import WorkloadPlan, in_order_of_priority, plan_workloads
from cloudless.core.orchestration.changes import Decider
from cloudless.core.plan import Change
from cloudless.core.scheduling import Diagnosis, Scratch
from cloudless.core.scheduling.touched import find_touched
from cloudless.core.scheduling.wakes import UNBLOCKED_BY, Happening, unblocking
from cloudless.core.state import Applied
from cloudless.observability import tracing
from cloudless.observability.metrics import NO_NODES, OTHER
from cloudless.ports import Clock


@dataclass(frozen=True, slots=True)
class OrchestratorSettings:
    """`round_size_max`, `round_tasks_max`: workloads and tasks planned at once; bounds how long the loop is busy.
    `report_delay_share`, `report_delay_max_s`: reports of tasks that go on wait for so many times what a round takes
    before their workload is planned again, so that a thousand reports of a large workload cost a few rounds and new
    workloads do not stand behind them.
    `round_claiming_max`: workloads whose reserved room is looked after in every round; others' may be taken.
    `resync_period_s`: everything is planned again this often, whatever was missed."""

    round_size_max: int = 200
    round_tasks_max: int = 500
    round_claiming_max: int = 20
    report_delay_share: float = 4.0
    report_delay_max_s: float = 0.5
    resync_period_s: float = 30.0
    retry_pause_s: float = 0.1
    retry_pause_max_s: float = 5.0


Ref = tuple[str, str]
REPORT_DELAY_LEAST_S = 0.01
"""Less is not waited for."""
LOGGED_MAX = 20
"""Changes of one round that are written to the log one by one."""


def _nobody_asks(took_s: float) -> None:
    return None


class Orchestrator:
    """Keeps every workload as asked: creates, moves and stops tasks.

    `on_planned` and `on_placed` are told the seconds that a round took to plan, and until it was durable and seen.
    """

    def __init__(
        self,
        replica: Replica,
        clock: Clock,
        settings: OrchestratorSettings | None = None,
        *,
        on_planned: Callable[[float], None] = _nobody_asks,
        on_placed: Callable[[float], None] = _nobody_asks,
    ) -> None:
        self._replica, self._clock, self._on_planned, self._on_placed = replica, clock, on_planned, on_placed
        self._settings = settings or OrchestratorSettings()
        self._dirty: dict[Ref, None] = {}
        self._blocked: dict[Ref, frozenset[Happening]] = {}
        self._unplaced: dict[Ref, tuple[str, ...]] = {}
        self._claiming: dict[Ref, None] = {}
        self._due_s: dict[Ref, float] = {}
        self._per_node: dict[Ref, None] = {}
        self._unreachable_since_s: dict[str, float] = {}
        self._scratch: Scratch | None = None
        self._rebalancer = Rebalancer()
        self._touched: set[str] = set()
        self._wake = asyncio.Event()
        self._round_s = 0.0
        self._pause_s = self._settings.retry_pause_s
        self._wall_offset_ms = 0
        self.placed_total = 0

    async def run(self, term: int, committer: Committer) -> None:
        """Plan what changed until cancelled."""
        stop_listening = self._replica.listen(self._on_applied)
        try:
            self._forget_last_term()
            self._wall_offset_ms = self._clock.wall_ms() - int(self._clock.monotonic_s() * 1000)
            self._note_unreachable()
            next_resync_s = self._clock.monotonic_s()
            while True:
                if self._clock.monotonic_s() >= next_resync_s:
                    self._mark_all()
                    next_resync_s = self._clock.monotonic_s() + self._settings.resync_period_s
                self._mark_due()
                if self._dirty:
                    await self._plan_round(term, committer)
                    await self._clock.sleep(0)  # between rounds the loop belongs to the others
                    continue
                if await self._rebalance(term, committer):
                    continue
                self._wake.clear()
                deadline_s = min([next_resync_s, self._rebalancer.due_s(self._replica.machine), *self._due_s.values()])
                await wait_for_any(self._wake, max(0.0, deadline_s - self._clock.monotonic_s()))
        finally:
            stop_listening()

    def _next_refs(self) -> list[Ref]:
        """Return the workloads of the next round: bounded in number and in tasks, at least one."""
        refs: list[Ref] = []
        tasks = 0
        for ref in in_order_of_priority(self._replica.machine, self._dirty):
            workload = self._replica.machine.workloads.get(ref)
            tasks += max(len(self._replica.machine.tasks_of(*ref)), workload.record.spec.replicas if workload else 0)
            if refs and (len(refs) >= self._settings.round_size_max or tasks > self._settings.round_tasks_max):
                break
            refs.append(ref)
        return refs

    async def _plan_round(self, term: int, committer: Committer) -> None:
        claiming = in_order_of_priority(self._replica.machine, self._claiming)[: self._settings.round_claiming_max]
        refs = [*claiming, *self._next_refs()]
        for ref in refs:
            for held in (self._dirty, self._blocked, self._due_s, self._claiming, self._unplaced):
                held.pop(ref, None)
        now_s = self._clock.monotonic_s()
        absent = self._absent(now_s)
        now_ms = self._wall_ms(now_s)
        began_ns = tracing.now_ns()
        result = plan_workloads(self._replica.machine, refs, now_ms, term, absent, self._renew_scratch(absent))
        self._round_s = self._clock.monotonic_s() - now_s
        self._on_planned(self._round_s)
        for workload in result.workloads:
            ref = (workload.namespace, workload.name)
            if workload.unplaced or workload.waiting:
                self._blocked[ref] = _awaited(workload)
            if workload.unplaced:
                self._unplaced[ref] = tuple(_most_in_the_way(diagnosis) for _, diagnosis in workload.unplaced)
            if workload.claims:
                self._claiming[ref] = None
            if workload.next_deadline_s is not None:
                self._due_s[ref] = now_s + max(0.05, workload.next_deadline_s)
            if workload.changes:
                self._dirty[ref] = None  # deletion and moves take several rounds
        planned = {(workload.namespace, workload.name) for workload in result.workloads}
        self._dirty.update(dict.fromkeys(ref for ref in refs if ref not in planned))
        if not result.plan.changes:
            return
        scheduling = Scheduling(self._replica.machine, now_ms, term, began_ns)
        changes = scheduling.carry(result.plan.changes)
        _log(changes)
        self.placed_total += len(changes)
        refused = len(changes)
        try:
            refused = await commit_changes(committer, self._replica, changes)
        finally:
            scheduling.end(refused)
        self._on_placed(self._clock.monotonic_s() - now_s)
        if refused < len(changes):
            self._pause_s = self._settings.retry_pause_s
        else:  # nothing could be written: a full store, say
            await self._clock.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, self._settings.retry_pause_max_s)

    async def _rebalance(self, term: int, committer: Committer) -> bool:
        """Begin to move a task if it is time and there is one; return whether anything was to be written."""
        machine, now_s = self._replica.machine, self._clock.monotonic_s()
        self._rebalancer.note_waiting(frozenset(self._unplaced), now_s)
        if now_s < self._rebalancer.due_s(machine):
            return False
        change = None
        if not self._claiming:  # room is being made, and is nobody else's
            absent, decider = self._absent(now_s), Decider(term, self._wall_ms(now_s))
            change = self._rebalancer.plan(machine, now_s, decider, absent, self._renew_scratch(absent))
        self._rebalancer.rest(machine, now_s, self._clock.monotonic_s(), moved=change is not None)
        if change is None:
            return False
        await commit_changes(committer, self._replica, (change,))
        return True

    def _absent(self, now_s: float) -> dict[str, float]:
        return {node_id: now_s - since_s for node_id, since_s in self._unreachable_since_s.items()}

    def _wall_ms(self, now_s: float) -> int:
        """Return the wall clock as it was when this term began, carried on: it does not jump."""
        return int(now_s * 1000) + self._wall_offset_ms

    def _renew_scratch(self, absent_s: dict[str, float]) -> Scratch:
        """Return what is free on the nodes now: of the last plan's, looked at anew where anything has changed."""
        if self._scratch is None:
            self._scratch = Scratch(self._replica.machine, absent_s)
        else:
            self._scratch.renew(self._touched, absent_s)
        self._touched.clear()
        return self._scratch

    def count_unplaced(self) -> Mapping[str, float]:
        """Return how many tasks have no node, by what is most in the way, as planned last in this term."""
        reasons = Counter(reason for reasons in self._unplaced.values() for reason in reasons)
        return {reason: float(count) for reason, count in reasons.items()}

    # --- what to plan ---

    def _forget_last_term(self) -> None:
        """What this one saw when it led before says nothing of the time between."""
        for held in (
            self._dirty,
            self._blocked,
            self._unplaced,
            self._claiming,
            self._due_s,
            self._per_node,
            self._unreachable_since_s,
        ):
            held.clear()
        self._scratch = None
        self._rebalancer.begin(self._clock.monotonic_s())

    def _mark_all(self) -> None:
        machine = self._replica.machine
        self._scratch = None  # so that nothing is carried on for ever that a notification too few has left wrong
        for ref, workload in machine.workloads.items():
            self._dirty[ref] = None
            self._note_mode(ref, workload.record)
        for task in machine.tasks.values():
            self._dirty[task.desired.namespace, task.desired.workload] = None
        for key in machine.quarantined:
            parsed = keys.parse(key)
            if parsed is not None and parsed.kind is Kind.WORKLOAD:
                self._dirty[parsed.parts[0], parsed.parts[1]] = None

    def _mark_due(self) -> None:
        now_s = self._clock.monotonic_s()
        for ref in [ref for ref, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[ref]
            self._dirty[ref] = None

    def _on_applied(self, applied: Applied) -> None:
        machine, now_s = self._replica.machine, self._clock.monotonic_s()
        happened: set[Happening] = set()
        for transition in applied.transitions:
            self._rebalancer.note(transition, now_s)
            self._touched.update(find_touched(transition, machine))
            match transition.kind:
                case Kind.WORKLOAD:
                    self._mark_records(transition.before, transition.after)
                    happened.add(Happening.WORKLOAD_CHANGED)
                    if transition.after is None and isinstance(transition.before, WorkloadRecord):
                        self._per_node.pop((transition.before.namespace, transition.before.name), None)
                case Kind.TASK_DESIRED:
                    self._mark_records(transition.before, transition.after)
                    happened.add(Happening.ROOM_MADE if transition.after is None else Happening.TASK_DECIDED)
                case Kind.SCHEDULER:
                    happened.add(Happening.NODE_CHANGED)
                case Kind.TASK_OBSERVED:
                    parsed = keys.parse(transition.key)
                    task = machine.tasks.get(parsed.parts[0]) if parsed else None
                    if task is not None:
                        self._mark_report((task.desired.namespace, task.desired.workload), ended=task.ended)
                        if task.ended:
                            happened.add(Happening.ROOM_MADE)
                case Kind.NODE_SPEC | Kind.NODE_INFO | Kind.NODE_STATUS:
                    parsed = keys.parse(transition.key)
                    if parsed is not None:
                        self._mark_node(parsed.parts[0])
                        happened.add(Happening.NODE_CHANGED)
        if Happening.NODE_CHANGED in happened:  # once for all of them: it looks at every node
            self._note_unreachable()
            self._wake.set()  # what is to be rebalanced, and when, may be another
        if happened:
            self._wake_blocked(happened)
        if self._dirty:
            self._wake.set()

    def _mark_report(self, ref: Ref, *, ended: bool) -> None:
        """Plan again after a task's report: at once if it ended, else soon."""
        delay_s = min(self._settings.report_delay_max_s, self._settings.report_delay_share * self._round_s)
        if ended or delay_s < REPORT_DELAY_LEAST_S:
            self._dirty[ref] = None
        elif ref not in self._dirty:
            due_s = self._clock.monotonic_s() + delay_s
            if due_s < self._due_s.get(ref, float("inf")):
                self._due_s[ref] = due_s
                self._wake.set()

    def _mark_records(self, *records: object) -> None:
        for record in records:
            match record:
                case WorkloadRecord(namespace=namespace, name=name):
                    self._dirty[namespace, name] = None
                    self._note_mode((namespace, name), record)
                case TaskDesired(namespace=namespace, workload=name):
                    self._dirty[namespace, name] = None

    def _mark_node(self, node_id: str) -> None:
        machine = self._replica.machine
        for task_id in machine.tasks_on(node_id):
            desired = machine.tasks[task_id].desired
            self._dirty[desired.namespace, desired.workload] = None
        self._dirty.update(self._per_node)

    def _wake_blocked(self, happened: Set[Happening]) -> None:
        """Have those planned again for which this may take away what is in the way."""
        self._dirty.update(
            dict.fromkeys(ref for ref, awaited in self._blocked.items() if not awaited.isdisjoint(happened))
        )

    def _note_mode(self, ref: Ref, record: WorkloadRecord) -> None:
        """Remember which workloads every node concerns; one too many costs a look."""
        if record.spec.mode is WorkloadMode.PER_NODE:
            self._per_node[ref] = None
        else:
            self._per_node.pop(ref, None)

    def _note_unreachable(self) -> None:
        """Count absence on the monotonic clock from when this leader first saw it."""
        now_s = self._clock.monotonic_s()
        absent = {
            node.id
            for node in self._replica.machine.nodes.values()
            if node.status is not None and node.status.reachability is Reachability.UNREACHABLE
        }
        for node_id in self._unreachable_since_s.keys() - absent:
            del self._unreachable_since_s[node_id]
        for node_id in sorted(absent - self._unreachable_since_s.keys()):
            self._unreachable_since_s[node_id] = now_s


def _log(changes: Sequence[Change]) -> None:
    """Say what is done; of very many changes only the first: writing a thousand lines holds the loop up."""
    for change in changes[:LOGGED_MAX]:
        logger.bind(**_names_of(change)).info("{}", change.reason)
    if len(changes) > LOGGED_MAX:
        logger.info("and {} more changes to tasks", len(changes) - LOGGED_MAX)


def _most_in_the_way(diagnosis: Diagnosis) -> str:
    """Return the obstacle that most nodes have, as the metric's label."""
    if not diagnosis.codes:
        return OTHER if diagnosis.nodes_total else NO_NODES
    return diagnosis.codes[0] if diagnosis.codes[0] in UNBLOCKED_BY else OTHER


def _names_of(change: Change) -> dict[str, object]:
    """Return what a change of a task is about, for its log line."""
    task = next((put.record for put in change.puts if isinstance(put.record, TaskDesired)), None)
    if task is None:
        parsed = [key for key in map(keys.parse, change.deletes) if key is not None and key.kind is Kind.TASK_DESIRED]
        return {"task": parsed[0].parts[0]} if parsed else {}
    names = {"task": task.id, "node": task.node_id, "namespace": task.namespace, "workload": task.workload}
    return {**names, "trace_id": tracing.trace_id_of(task.traceparent)}


def _awaited(workload: WorkloadPlan) -> frozenset[Happening]:
    """Return after what a workload that waits is worth planning again.

    What it waits for besides nodes may end with any task, or with a node's return.
    """
    codes = [code for _, diagnosis in workload.unplaced for code in diagnosis.codes]
    awaited = unblocking(codes)
    return awaited | {Happening.ROOM_MADE} if workload.waiting else awaited
