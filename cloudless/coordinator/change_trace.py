"""One trace from a user's change to the tasks that run for it: carried in the records, not in any process's memory.

    apply ──► workload record (context of the commit) ──► leader: schedule ──► task record (context of that) ──► agent

Whoever takes the next step, a leader elected in between too, goes on with what the record says. It says so for a while
only: a task that replaces a lost one next week is not that change's work any more. A step by somebody who does not
trace hands the context on as it came. Nothing is decided by any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cloudless.core.model import Desired, TaskDesired, TaskObserved, TaskState, WorkloadRecord
from cloudless.core.plan import Change, PutRecord
from cloudless.core.state import Task, View
from cloudless.observability import tracing

CARRIED_MS = 600_000
"""So long after a change are tasks placed for it: the longest that a rollout may make no progress by default."""
_TOLD = frozenset({TaskState.RUNNING, TaskState.COMPLETED, TaskState.FAILED})


def carrying_trace(change: Change, traceparent: str) -> Change:
    """Return the change of a user, its workloads carrying the context ("": none, nor that of an earlier change)."""
    if not any(_differs(put, traceparent) for put in change.puts):
        return change
    return replace(change, puts=tuple(_with_trace(put, traceparent) for put in change.puts))


def _differs(put: PutRecord, traceparent: str) -> bool:
    return isinstance(put.record, WorkloadRecord) and put.record.traceparent != traceparent


def _with_trace(put: PutRecord, traceparent: str) -> PutRecord:
    if not isinstance(put.record, WorkloadRecord):
        return put
    return replace(put, record=replace(put.record, traceparent=traceparent))


class Scheduling:
    """The spans of one round of the leader's planner: one for each workload with a traced change and new tasks.

    `now_ms` is the leader's wall clock, `began_ns` when the round began by that of traces.
    """

    def __init__(self, view: View, now_ms: int, term: int, began_ns: int | None) -> None:
        self._view, self._now_ms, self._term, self._began_ns = view, now_ms, term, began_ns
        self._contexts: dict[tuple[str, str], str] = {}
        self._spans: list[tracing.Span] = []

    def carry(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Return the changes, their new tasks carrying the context of the workload's change."""
        carried = [self._carry(change) for change in changes]
        for span in self._spans:
            span.set({"cloudless.term": self._term, "cloudless.revision": self._view.revision})
        return carried

    def end(self, refused: int) -> None:
        """The changes are written, or `refused` of the round are not."""
        for span in self._spans:
            span.set({"cloudless.refused": refused})
            span.end()

    def _carry(self, change: Change) -> Change:
        for put in change.puts:
            if isinstance(put.record, TaskDesired) and put.record.desired is Desired.RUNNING:
                context = self._context_of(put.record)
                if context:
                    return replace(change, puts=tuple(_with_task_trace(put, context) for put in change.puts))
        return change

    def _context_of(self, task: TaskDesired) -> str:
        ref = (task.namespace, task.workload)
        if ref not in self._contexts:
            workload = self._view.workloads.get(ref)
            held = workload.record.traceparent if workload is not None else ""
            recent = workload is not None and abs(self._now_ms - workload.record.updated_at_ms) <= CARRIED_MS
            self._contexts[ref] = self._begin(held, ref) if held and recent and tracing.is_valid(held) else ""
        return self._contexts[ref]

    def _begin(self, context: str, ref: tuple[str, str]) -> str:
        names = {"cloudless.namespace": ref[0], "cloudless.workload": ref[1]}
        span = tracing.going_on(context, "schedule", names, start_ns=self._began_ns)
        if not span.traceparent:
            return context
        self._spans.append(span)
        return span.traceparent


def _with_task_trace(put: PutRecord, context: str) -> PutRecord:
    if not isinstance(put.record, TaskDesired) or put.record.traceparent:
        return put
    return replace(put, record=replace(put.record, traceparent=context))


def report_span(task: Task, report: TaskObserved) -> tracing.Span:
    """Begin the span of writing a report, if it is news of the first attempt of a task made for a traced change."""
    known = task.observed.state if task.observed is not None else None
    if not task.desired.traceparent or report.attempt > 1 or report.state not in _TOLD or report.state is known:
        return tracing.NO_SPAN
    return tracing.going_on(
        task.desired.traceparent,
        "report task",
        {"cloudless.task": report.task_id, "cloudless.node": report.node_id, "cloudless.state": report.state.value},
    )
