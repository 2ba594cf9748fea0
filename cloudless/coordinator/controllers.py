"""The leader's controllers: each waits for a change or a deadline, looks at the state, plans, commits.

All decisions are made by planners of `cloudless.core`; what stands here is only when to ask them and what
to do with the answer. A plan is never made from a view older than the last one's own writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from loguru import logger

from cloudless.coordinator.commit import Committer, PreconditionFailed
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import ClusterRecord, NodeStatus, Reachability, TaskDesired, WorkloadRecord
from cloudless.core.orchestration import plan_event_reap, plan_liveness, plan_reap, plan_workloads
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import Applied
from cloudless.errors import CloudlessError, CommitUncertain, Fenced, LeaseLost, Unavailable
from cloudless.ports import Clock, Ids

COMMIT_TIMEOUT_S = 5.0
SEEN_TIMEOUT_S = 5.0
SEEN_TRIES = 3


async def commit_changes(committer: Committer, replica: Replica, changes: Sequence[Change]) -> int:
    """Commit independent changes together and wait until the own state shows them; return how many were refused.

    A change whose objects moved meanwhile is left to the next plan; so is one whose outcome is uncertain or that
    the store refuses, for one refused change must not cost the term. Raises Fenced and LeaseLost.
    """
    results = await asyncio.gather(
        *(committer.commit(change, timeout_s=COMMIT_TIMEOUT_S) for change in changes), return_exceptions=True
    )
    newest, refused, uncertain = 0, 0, False
    for result in results:
        if isinstance(result, PreconditionFailed):
            newest, refused = max(newest, result.revision), refused + 1
        elif isinstance(result, (Fenced, LeaseLost)):
            raise result
        elif isinstance(result, CloudlessError):
            logger.debug("not committed: {}", result)
            refused += 1
            uncertain |= isinstance(result, CommitUncertain)
        elif isinstance(result, BaseException):
            raise result
        else:
            newest = max(newest, result.revision)
    await _see(replica, newest, uncertain)
    return refused


async def _see(replica: Replica, revision: int, uncertain: bool) -> None:
    """Return once the state shows `revision` and, after an uncertain outcome, everything written so far.

    A plan from an older view would decide the same things a second time. Raises Unavailable, which ends the term,
    if the state does not catch up: another coordinator's may.
    """
    for tries_left in reversed(range(SEEN_TRIES)):
        try:
            await replica.wait_for(revision, timeout_s=SEEN_TIMEOUT_S)
            if uncertain:
                await replica.linearize(timeout_s=SEEN_TIMEOUT_S)
            return
        except Unavailable as error:
            logger.debug("waiting for the own state to catch up: {}", error)
            if not tries_left:
                raise


async def wait_for_any(event: asyncio.Event, timeout_s: float | None) -> None:
    """Return when `event` is set or `timeout_s` (None: never) has passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


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
        self._unreachable_since_s: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._pause_s = self._settings.retry_pause_s
        self.placed_total = 0

    async def run(self, term: int, committer: Committer) -> None:
        """Plan what changed until cancelled."""
        stop_listening = self._replica.listen(self._on_applied)
        try:
            self._forget_last_term()
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
        result = plan_workloads(self._replica.machine, refs, self._clock.wall_ms(), term, absent)
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
        for held in (self._dirty, self._blocked, self._due_s, self._unreachable_since_s):
            held.clear()

    def _mark_all(self) -> None:
        machine = self._replica.machine
        for ref in machine.workloads:
            self._dirty[ref] = None
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
                case TaskDesired(namespace=namespace, workload=name):
                    self._dirty[namespace, name] = None

    def _mark_node(self, node_id: str) -> None:
        machine = self._replica.machine
        for task_id in machine.tasks_on(node_id):
            desired = machine.tasks[task_id].desired
            self._dirty[desired.namespace, desired.workload] = None
        self._dirty.update(self._blocked)
        self._note_unreachable()

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


class LivenessController:
    """Writes which nodes are reachable, when that changes.

    Silence counts from when this leader began to listen, and anew after this process itself was frozen: a
    coordinator that was stopped for a while must not take its own sleep for the death of every node.
    """

    PERIOD_S = 0.2
    FROZEN_AFTER_S = 1.0
    # An agent that lost its last coordinator tries again within its longest pause (2 s) and time to connect (1.5 s).
    RETURN_GRACE_S = 3.5

    def __init__(self, replica: Replica, heard: HeardTable, clock: Clock, timeout_s: float) -> None:
        self._replica, self._heard, self._clock, self._timeout_s = replica, heard, clock, timeout_s

    async def run(self, term: int, committer: Committer) -> None:
        began_s = looked_s = self._clock.monotonic_s()
        while True:
            now_s = self._clock.monotonic_s()
            if now_s - looked_s > self.FROZEN_AFTER_S + self.PERIOD_S:
                began_s = now_s
            looked_s = now_s
            recent = {node: silent for node, silent in self._heard.silent_s().items() if silent < self._timeout_s}
            listening_s = max(0.0, now_s - began_s - self.RETURN_GRACE_S)
            plan = plan_liveness(
                self._replica.machine, recent, self._clock.wall_ms(), term, self._timeout_s, listening_s
            )
            if plan.changes:
                for change in plan.changes:
                    _log_status(change)
                await commit_changes(committer, self._replica, plan.changes)  # if that takes long, it counts as frozen
            await self._clock.sleep(self.PERIOD_S)


def _log_status(change: Change) -> None:
    for put in change.puts:
        if isinstance(put.record, NodeStatus):
            logger.info("{}: {} ({})", put.key, put.record.reachability.value, put.record.reason)


class Reaper:
    """Forgets ended tasks that are no longer needed."""

    PERIOD_S = 5.0

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica, self._clock = replica, clock

    async def run(self, term: int, committer: Committer) -> None:
        while True:
            machine = self._replica.machine
            changes = (*plan_reap(machine, self._clock.wall_ms()), *plan_event_reap(machine))
            if changes:
                await commit_changes(committer, self._replica, changes)
            await self._clock.sleep(self.PERIOD_S)


class ClusterNamer:
    """Gives the cluster its name, once: the first leader's first act."""

    RETRY_PAUSE_S = 0.2

    def __init__(self, own_id: str, replica: Replica, clock: Clock, ids: Ids) -> None:
        self._own_id, self._replica, self._clock, self._ids = own_id, replica, clock, ids

    async def run(self, term: int, committer: Committer) -> None:
        while self._replica.machine.cluster is None and keys.CLUSTER not in self._replica.machine.quarantined:
            record = ClusterRecord(id=self._ids.new(), created_at_ms=self._clock.wall_ms(), created_by=self._own_id)
            change = Change(
                puts=(PutRecord(keys.CLUSTER, record),),
                preconditions=(Precondition(keys.CLUSTER, 0),),
                reason=f"name the cluster {record.id}",
            )
            if await commit_changes(committer, self._replica, (change,)):
                await self._clock.sleep(self.RETRY_PAUSE_S)
