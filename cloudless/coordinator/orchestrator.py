"""The leader's care for workloads: which of them to plan, and when.

What to do is decided by `core.orchestration`. Here stands what makes a workload worth planning again: a
change of its own, of a task, of a node; room made where something waits; a deadline; and now and then
everything, so that no lost notification loses work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from loguru import logger

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes, wait_for_any
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import Reachability, TaskDesired, WorkloadMode, WorkloadRecord
from cloudless.core.orchestration import plan_workloads
from cloudless.core.state import Applied
from cloudless.ports import Clock


@dataclass(frozen=True, slots=True)
class OrchestratorSettings:
    """`round_size_max`, `round_tasks_max`: workloads and tasks planned at once; bounds how long the loop is busy.
    `resync_period_s`: everything is planned again this often, whatever was missed."""

    round_size_max: int = 200
    round_tasks_max: int = 2_000
    resync_period_s: float = 30.0
    retry_pause_s: float = 0.1
    retry_pause_max_s: float = 5.0


Ref = tuple[str, str]


class Orchestrator:
    """Keeps every workload as asked: creates, moves and stops tasks."""

    def __init__(self, replica: Replica, clock: Clock, settings: OrchestratorSettings | None = None) -> None:
        self._replica, self._clock = replica, clock
        self._settings = settings or OrchestratorSettings()
        self._dirty: dict[Ref, None] = {}
        self._blocked: dict[Ref, None] = {}
        self._due_s: dict[Ref, float] = {}
        self._per_node: dict[Ref, None] = {}
        self._unreachable_since_s: dict[str, float] = {}
        self._wake = asyncio.Event()
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
                self._wake.clear()
                deadline_s = min([next_resync_s, *self._due_s.values()])
                await wait_for_any(self._wake, max(0.0, deadline_s - self._clock.monotonic_s()))
        finally:
            stop_listening()

    def _next_refs(self) -> list[Ref]:
        """Return the workloads of the next round: bounded in number and in tasks, at least one."""
        refs: list[Ref] = []
        tasks = 0
        for ref in self._dirty:
            workload = self._replica.machine.workloads.get(ref)
            tasks += max(len(self._replica.machine.tasks_of(*ref)), workload.record.spec.replicas if workload else 0)
            if refs and (len(refs) >= self._settings.round_size_max or tasks > self._settings.round_tasks_max):
                break
            refs.append(ref)
        return refs

    async def _plan_round(self, term: int, committer: Committer) -> None:
        refs = self._next_refs()
        for ref in refs:
            self._dirty.pop(ref)
            self._blocked.pop(ref, None)
            self._due_s.pop(ref, None)
        now_s = self._clock.monotonic_s()
        absent = {node_id: now_s - since_s for node_id, since_s in self._unreachable_since_s.items()}
        now_ms = int(now_s * 1000) + self._wall_offset_ms  # the wall clock as this term began: it does not jump
        result = plan_workloads(self._replica.machine, refs, now_ms, term, absent)
        for workload in result.workloads:
            ref = (workload.namespace, workload.name)
            if workload.unplaced or workload.waiting:
                self._blocked[ref] = None
            if workload.next_deadline_s is not None:
                self._due_s[ref] = now_s + max(0.05, workload.next_deadline_s)
            if workload.changes:
                self._dirty[ref] = None  # deletion and moves take several rounds
        if not result.plan.changes:
            return
        for change in result.plan.changes:
            logger.info("{}", change.reason)
        self.placed_total += len(result.plan.changes)
        if await commit_changes(committer, self._replica, result.plan.changes) < len(result.plan.changes):
            self._pause_s = self._settings.retry_pause_s
        else:  # nothing could be written: a full store, say
            await self._clock.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, self._settings.retry_pause_max_s)

    # --- what to plan ---

    def _forget_last_term(self) -> None:
        """What this one saw when it led before says nothing of the time between."""
        for held in (self._dirty, self._blocked, self._due_s, self._per_node, self._unreachable_since_s):
            held.clear()

    def _mark_all(self) -> None:
        machine = self._replica.machine
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
        machine = self._replica.machine
        for transition in applied.transitions:
            match transition.kind:
                case Kind.WORKLOAD:
                    self._mark_records(transition.before, transition.after)
                    if transition.after is None and isinstance(transition.before, WorkloadRecord):
                        self._per_node.pop((transition.before.namespace, transition.before.name), None)
                case Kind.TASK_DESIRED:
                    self._mark_records(transition.before, transition.after)
                    if transition.after is None:
                        self._dirty.update(self._blocked)  # room was made
                case Kind.TASK_OBSERVED:
                    parsed = keys.parse(transition.key)
                    task = machine.tasks.get(parsed.parts[0]) if parsed else None
                    if task is not None:
                        self._dirty[task.desired.namespace, task.desired.workload] = None
                        if task.ended:
                            self._dirty.update(self._blocked)
                case Kind.NODE_SPEC | Kind.NODE_INFO | Kind.NODE_STATUS:
                    parsed = keys.parse(transition.key)
                    if parsed is not None:
                        self._mark_node(parsed.parts[0])
        if self._dirty:
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
        self._dirty.update(self._blocked)
        self._dirty.update(self._per_node)
        self._note_unreachable()

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
