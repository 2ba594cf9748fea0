"""What an agent tells of its tasks: a line of the log for each step, a span for a start that is traced."""

from __future__ import annotations

from loguru import logger

from cloudless.core.localtask import LocalTask, Started, StartFailed
from cloudless.core.model import TaskState
from cloudless.observability import tracing

_ON_THE_WAY = frozenset({TaskState.ACCEPTED, TaskState.STARTING, TaskState.STOPPING})


def log_change(before: LocalTask, after: LocalTask) -> None:
    """Say that a task has come from one state to another, and why. What it passes through is told at DEBUG."""
    where = f"{after.desired.namespace}/{after.desired.workload}.{after.desired.slot}"
    how = f": {after.message}" if after.message else ""
    logger.log(
        "DEBUG" if after.state in _ON_THE_WAY else "INFO",
        "task {task} ({}) {} → {}{}",
        where,
        before.state.value,
        after.state.value,
        how,
        task=after.id,
        namespace=after.desired.namespace,
        workload=after.desired.workload,
        trace_id=tracing.trace_id_of(after.desired.traceparent),
    )


def start_span(task: LocalTask, attempt: int) -> tracing.Span:
    """Begin the span of an attempt's start. A later one is not the work of the change that the task was made for."""
    desired = task.desired
    if attempt > 1 or not desired.traceparent:
        return tracing.NO_SPAN
    return tracing.going_on(
        desired.traceparent,
        "start task",
        {
            "cloudless.task": task.id,
            "cloudless.namespace": desired.namespace,
            "cloudless.workload": desired.workload,
            "cloudless.node": desired.node_id,
            "cloudless.executor": desired.spec.executor.value,
        },
    )


def note_outcome(span: tracing.Span, outcome: Started | StartFailed) -> None:
    """Say on the span of a start whether it came to anything."""
    if isinstance(outcome, StartFailed):
        span.set({"error.type": outcome.fault.value, "cloudless.message": outcome.message})
