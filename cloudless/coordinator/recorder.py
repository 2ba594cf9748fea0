"""Events for people, derived by the leader from what changed.

Only the leader records, so each happening is told once; one that falls between two leaders may be
missing. Events inform, nothing is decided by them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

from loguru import logger

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes, wait_for_any
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import (
    AutopilotStatus,
    Desired,
    EventRecord,
    JoinRecord,
    NodeInfo,
    NodeStatus,
    Reachability,
    RolloutPhase,
    RolloutRecord,
    Severity,
    TaskDesired,
    TaskObserved,
    TaskState,
)
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import Applied, Transition
from cloudless.errors import CloudlessError, Fenced, LeaseLost
from cloudless.ports import Clock, Ids

QUEUE_LENGTH_MAX = 2_000
BATCH_MAX = 200
EVENTS_A_CHANGE = 50
"""Each change costs the store and us about as much as a few more events in it do."""

Happening = tuple[str, str, str, Severity]
"""Kind, subject, message, severity."""


class Recorder:
    """The leader's scribe."""

    def __init__(self, own_id: str, replica: Replica, leases: RollingLease, clock: Clock, ids: Ids) -> None:
        self._own_id, self._replica, self._leases, self._clock, self._ids = own_id, replica, leases, clock, ids
        self._waiting: deque[Happening] = deque(maxlen=QUEUE_LENGTH_MAX)

    async def run(self, term: int, committer: Committer) -> None:

        wake = asyncio.Event()

        def on_applied(applied: Applied) -> None:
            for transition in applied.transitions:
                self._waiting.extend(describe(transition))
            if self._waiting:
                wake.set()

        stop_listening = self._replica.listen(on_applied)
        self._waiting.append(("LeaderElected", f"coordinator/{self._own_id}", f"leads term {term}", Severity.INFO))
        wake.set()
        try:
            while True:
                await wait_for_any(wake, None)
                wake.clear()
                while self._waiting:
                    await self._write(term, committer)
        finally:
            stop_listening()

    async def _write(self, term: int, committer: Committer) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        try:
            lease_id = await self._leases.current()
            puts = [self._to_put(item, term, lease_id) for item in batch]
            groups = [puts[first : first + EVENTS_A_CHANGE] for first in range(0, len(puts), EVENTS_A_CHANGE)]
            await commit_changes(committer, self._replica, [_to_change(group) for group in groups])
        except LeaseLost:
            self._leases.forget()
        except Fenced:
            raise
        except CloudlessError as error:  # events inform: a full or absent store must not cost the leader its term
            logger.debug("{} events not recorded: {}", len(batch), error)
            await self._clock.sleep(0.5)

    def _to_put(self, happening: Happening, term: int, lease_id: int) -> PutRecord:
        kind, subject, message, severity = happening
        at_ms = self._clock.wall_ms()
        record = EventRecord(
            id=f"{at_ms:013d}-{self._ids.new()[:8]}",
            at_ms=at_ms,
            kind=kind,
            subject=subject,
            message=message,
            severity=severity,
            source=self._own_id,
            term=term,
        )
        return PutRecord(keys.event(record.id), record, lease_id)


def _to_change(puts: Sequence[PutRecord]) -> Change:
    """Return the write of several events. If the first is there, an earlier try was done unheard: so are all."""
    return Change(puts=tuple(puts), preconditions=(Precondition(puts[0].key, 0),), reason=f"{len(puts)} events")


def describe(transition: Transition) -> Iterator[Happening]:
    """Yield what a change means to a person, if it means anything."""
    match transition.before, transition.after:
        case None, NodeInfo() as info:
            yield "NodeEnrolled", f"node/{info.id}", f"in zone {info.zone or '-'}", Severity.INFO
        case before, NodeStatus() as status if not isinstance(before, NodeStatus) or (
            before.reachability is not status.reachability
        ):
            parsed = keys.parse(transition.key)
            lost = status.reachability is Reachability.UNREACHABLE
            kind, severity = ("NodeOffline", Severity.WARNING) if lost else ("NodeReachable", Severity.INFO)
            yield kind, f"node/{parsed.parts[0] if parsed else ''}", status.reason, severity
        case None, JoinRecord() as join:
            yield "CoordinatorAsksToJoin", f"coordinator/{join.id}", f"from {join.raft_address}", Severity.INFO
        case before, AutopilotStatus() as status if not isinstance(before, AutopilotStatus) or (
            before.doing != status.doing
        ):
            if status.doing:
                yield "MembersChanged", "cluster", status.doing, Severity.INFO
        case before, RolloutRecord() as notes:
            yield from _describe_rollout(before if isinstance(before, RolloutRecord) else None, notes)
        case None, TaskDesired() as task:
            yield "TaskCreated", f"task/{task.id}", f"on {task.node_id}: {task.reason}", Severity.INFO
        case TaskDesired(desired=Desired.RUNNING), TaskDesired(desired=Desired.STOPPED) as task:
            yield "TaskStopping", f"task/{task.id}", task.reason, Severity.INFO
        case TaskDesired(successor_id=before), TaskDesired() as task if task.successor_id not in ("", before):
            what = f"from {task.node_id}: gives way to {task.successor_id} once that is available"
            yield "TaskMoving", f"task/{task.id}", what, Severity.INFO
        case before, TaskObserved() as seen:
            yield from _describe_report(before if isinstance(before, TaskObserved) else None, seen)


_ROLLOUT_EVENTS = {
    RolloutPhase.PROGRESSING: ("RolloutProgressing", Severity.INFO),
    RolloutPhase.PAUSED: ("RolloutPaused", Severity.INFO),
    RolloutPhase.AWAITING_PROMOTION: ("RolloutAwaitsPromotion", Severity.INFO),
    RolloutPhase.COMPLETED: ("RolloutCompleted", Severity.INFO),
    RolloutPhase.FAILED: ("RolloutFailed", Severity.ERROR),
}


def _describe_rollout(before: RolloutRecord | None, notes: RolloutRecord) -> Iterator[Happening]:
    subject = f"workload/{notes.namespace}/{notes.workload}"
    what = f"generation {notes.generation}: {notes.reason}"
    if before is None or before.rollout != notes.rollout:
        back = notes.rollback_of > 0
        yield "RolledBack" if back else "RolloutStarted", subject, what, Severity.WARNING if back else Severity.INFO
    elif (before.phase, before.reason) != (notes.phase, notes.reason):
        kind, severity = _ROLLOUT_EVENTS[notes.phase]
        yield kind, subject, what, severity
    elif notes.rest_from_ms and not before.rest_from_ms:
        yield "RolloutBatchDone", subject, f"{before.allowed} tasks changed; resting", Severity.INFO
    elif notes.allowed > before.allowed:
        yield "RolloutBatchStarted", subject, f"up to {notes.allowed} tasks may change", Severity.INFO


def _describe_report(before: TaskObserved | None, seen: TaskObserved) -> Iterator[Happening]:
    subject = f"task/{seen.task_id}"
    yield from _describe_probes(before, seen, subject)
    yield from _describe_unseen_ends(before, seen, subject)
    if before is not None and (before.attempt, before.state) == (seen.attempt, seen.state):
        return
    match seen.state:
        case TaskState.RUNNING:
            yield "TaskRunning", subject, f"on {seen.node_id}, attempt {seen.attempt}", Severity.INFO
        case TaskState.BACKOFF:
            yield "TaskRestarting", subject, seen.message or "ended, will be started again", Severity.WARNING
        case TaskState.FAILED:
            yield "TaskFailed", subject, seen.message or f"exit code {seen.exit_code}", Severity.ERROR
        case TaskState.COMPLETED:
            yield "TaskCompleted", subject, seen.message, Severity.INFO


def _describe_unseen_ends(before: TaskObserved | None, seen: TaskObserved, subject: str) -> Iterator[Happening]:
    """Tell of attempts of whose end there was no report of its own: only the newest state of a task is reported."""
    told = before.attempt - (before.state is not TaskState.BACKOFF) if before else 0
    unseen = seen.attempt - 1 - told
    if unseen > 0:
        how = f" by signal {seen.signal}" if seen.signal else f" with exit code {seen.exit_code}"
        what = "ended" if unseen == 1 else f"{unseen} attempts ended, the last one"
        known = seen.signal or seen.exit_code >= 0
        yield "TaskRestarting", subject, f"{what}{how if known else ''}; started again", Severity.WARNING


def _describe_probes(before: TaskObserved | None, seen: TaskObserved, subject: str) -> Iterator[Happening]:
    """Tell what liveness and readiness probes have found; a task that has no probe is silent here."""
    if seen.probe_failures > (before.probe_failures if before is not None else 0):
        yield "TaskUnhealthy", subject, seen.message or "the liveness probe failed", Severity.WARNING
    elif seen.state is TaskState.RUNNING and seen.ready_since_ms > 0:
        if before is not None and (before.attempt, before.ready_since_ms) == (seen.attempt, seen.ready_since_ms):
            return
        if seen.ready:
            yield "TaskReady", subject, f"on {seen.node_id}, attempt {seen.attempt}", Severity.INFO
        else:
            yield "TaskNotReady", subject, seen.message or "the readiness probe failed", Severity.WARNING
