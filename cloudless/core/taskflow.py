"""One task on its agent: what to do next when something happens to it.

::

    event ──► step(task, event, now) ──► (task as it is now, actions to carry out)

The agent feeds every happening of a task (assigned, started, ended, time is up, found again after a
restart) through `step`, writes the returned task to its journal, and only then carries the actions out.
Guarantees: the state moves as `core.lifecycle` allows and never leaves a final one; a task that is to
stop is never started again; an event of an older attempt, or one that comes twice, changes nothing; a
report's sequence only grows. It decides nothing about when to talk to a coordinator.

Times are seconds on a clock that never jumps; wall milliseconds are carried along for display only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cloudless.core.lifecycle import is_final, may_move
from cloudless.core.localtask import (
    Action,
    Adopted,
    Assigned,
    BackoffOver,
    Event,
    Exited,
    LocalTask,
    Moment,
    Noted,
    Probed,
    ProbePurpose,
    Remove,
    Report,
    ScheduleAt,
    Start,
    Started,
    StartFailed,
    StartFault,
    Stop,
    StopWanted,
    Unlisted,
    Watch,
)
from cloudless.core.model import Desired, Instance, RestartCondition, TaskDesired, TaskObserved, TaskState
from cloudless.errors import InvariantBroken

STABLE_S = 60.0
"""An attempt that ran this long clears the count of restarts in a row."""
BACKOFF_MAX_S = 60.0
"""The longest wait between two attempts."""

_S = TaskState


Outcome = tuple[LocalTask, tuple[Action, ...]]


# --- decisions ----------------------------------------------------------------------------------


def accept(desired: TaskDesired, *, sequence: int = 0) -> LocalTask:
    """Return a task new to this agent; its reports count up from `sequence`, exclusive."""
    return LocalTask(desired=desired, sequence=sequence, ready=_ready_at_first(desired))


def step(task: LocalTask, event: Event, now: Moment) -> Outcome:
    """Return the task after `event`, and what to do. Events that no longer matter change nothing.

    Raises InvariantBroken for a move that `core.lifecycle` forbids (a bug here).
    """
    handler = _TABLE.get((task.state, type(event)))
    after, actions = handler(task, event, now) if handler else _keep(task, event, now)
    if after.state is not task.state and not may_move(task.state, after.state):
        raise InvariantBroken(f"task {task.id} cannot move from {task.state.value} to {after.state.value}")
    if after.state is not task.state:
        actions = (*actions, Report())
    if not after.listed and is_final(after.state) and after != task:
        actions = (*actions, Remove())
    if any(isinstance(action, Report) for action in actions):
        after = replace(after, sequence=after.sequence + 1)
    return after, actions


def observe(task: LocalTask, *, node_id: str, host: str) -> TaskObserved:
    """Return the report of the task as it is now."""
    return TaskObserved(
        task_id=task.id,
        node_id=node_id,
        sequence=task.sequence,
        state=task.state,
        attempt=task.attempt,
        restarts=task.restarts,
        pid=task.pid,
        exit_code=task.exit_code,
        signal=task.signal,
        message=task.message,
        host=host,
        ports=task.ports,
        started_at_ms=task.started_at_ms,
        finished_at_ms=task.finished_at_ms,
        ready=task.ready,
        ready_since_ms=task.ready_since_ms,
        probe_failures=task.probe_failures,
    )


def backoff_s(task: LocalTask, retries: int) -> float:
    """Return the wait before the restart that follows `retries` others in a row."""
    # The exponent is bounded too: 2.0 ** 2000 is an OverflowError.
    return float(min(BACKOFF_MAX_S, task.desired.spec.restart_policy.backoff_s * 2.0 ** min(retries, 32)))


def _keep(task: LocalTask, event: Any, now: Moment) -> Outcome:
    """Record what a final or waiting task is told, without acting on it."""
    if isinstance(event, Assigned):
        return _relist(task, event.desired), ()
    if isinstance(event, Unlisted):
        return replace(task, listed=False), ()
    return task, ()


def _relist(task: LocalTask, desired: TaskDesired) -> LocalTask:
    """Take the coordinator's newest word, but never back from STOPPED to RUNNING."""
    if task.desired.desired is Desired.STOPPED and desired.desired is Desired.RUNNING:
        return replace(task, listed=True)
    return replace(task, desired=desired, listed=True)


def _assigned(task: LocalTask, event: Assigned, now: Moment) -> Outcome:
    task = _relist(task, event.desired)
    if not task.wanted:
        return _stop(task, now)
    return _begin(task, now) if task.state is _S.ACCEPTED else (task, ())


def _stop_wanted(task: LocalTask, event: StopWanted, now: Moment) -> Outcome:
    desired = replace(task.desired, desired=Desired.STOPPED, reason=event.reason or task.desired.reason)
    return _stop(replace(task, desired=desired, ailing=event.reason), now)


def _unlisted(task: LocalTask, event: Unlisted, now: Moment) -> Outcome:
    return _stop(replace(task, listed=False), now)


def _stop(task: LocalTask, now: Moment) -> Outcome:
    """End a task that is not final: at once if nothing of it can be running."""
    if task.state in (_S.ACCEPTED, _S.BACKOFF):
        finished = task.finished_at_ms or now.wall_ms
        message = task.ailing or "stopped while not running"
        return replace(task, state=_S.STOPPED, message=message, ailing="", finished_at_ms=finished), ()
    stopping = _say(replace(task, state=_S.STOPPING, unready="", note=""))
    return stopping, (Stop(task.attempt, task.desired.spec.stop_grace_s),)


def _begin(task: LocalTask, now: Moment) -> Outcome:
    attempt = task.attempt + 1
    begun = replace(
        _as_new(task), state=_S.STARTING, attempt=attempt, pid=0, message="", started_at_ms=0, finished_at_ms=0
    )
    return begun, (Start(attempt),)


def _as_new(task: LocalTask) -> LocalTask:
    """Forget what the probes and the executor said of an earlier attempt."""
    ready = _ready_at_first(task.desired)
    return replace(task, ready=ready, ready_since_ms=0, ailing="", unready="", note="", begun_s=0.0)


def _ready_at_first(desired: TaskDesired) -> bool:
    return desired.spec.readiness_probe is None


def _started(task: LocalTask, event: Started, now: Moment) -> Outcome:
    instance = event.instance
    if instance.attempt != task.attempt:
        return task, ()
    if not instance.running:
        return _ended(task, instance, now)
    running = replace(
        task,
        state=_S.RUNNING,
        pid=instance.pid,
        ports=dict(instance.ports),
        message="",
        note="",
        started_at_ms=instance.started_at_ms,
        begun_s=now.monotonic_s - instance.ran_s,
    )
    return running, (Watch(task.attempt),)


def _started_while_stopping(task: LocalTask, event: Started, now: Moment) -> Outcome:
    """The stop came while the executor was starting it, and found nothing to end: ask again."""
    instance = event.instance
    if instance.attempt != task.attempt:
        return task, ()
    task = replace(task, pid=instance.pid, ports=dict(instance.ports), started_at_ms=instance.started_at_ms)
    return task, (Watch(task.attempt), Stop(task.attempt, task.desired.spec.stop_grace_s))


def _start_failed(task: LocalTask, event: StartFailed, now: Moment) -> Outcome:
    if event.attempt != task.attempt:
        return task, ()
    task = replace(task, finished_at_ms=now.wall_ms)
    if event.fault is StartFault.PERMANENT:
        return replace(task, state=_S.FAILED, message=event.message), ()
    if event.fault is StartFault.AGENT:
        return _wait(task, backoff_s(task, task.retries), event.message, now)
    return _retry(task, task.retries, event.message, now)


def _stopped_before_start(task: LocalTask, event: StartFailed, now: Moment) -> Outcome:
    if event.attempt != task.attempt:
        return task, ()
    message = task.ailing or "stopped before it ran"
    return replace(task, state=_S.STOPPED, message=message, ailing="", finished_at_ms=now.wall_ms), ()


def _exited(task: LocalTask, event: Exited, now: Moment) -> Outcome:
    return _ended(task, event.instance, now) if event.instance.attempt == task.attempt else (task, ())


def _ended(task: LocalTask, instance: Instance, now: Moment) -> Outcome:
    """Decide what follows the end of the current attempt."""
    task = replace(
        task,
        pid=0,
        exit_code=instance.exit_code,
        signal=instance.signal,
        ports=dict(instance.ports) or task.ports,
        started_at_ms=instance.started_at_ms or task.started_at_ms,
        finished_at_ms=instance.finished_at_ms or now.wall_ms,
    )
    # One that was ended because it ailed has failed, however politely it went.
    ailing, how = task.ailing, task.ailing or describe_end(instance)
    task = replace(task, ailing="", unready="", note="")
    if task.state is _S.STOPPING or not task.wanted:
        return replace(task, state=_S.STOPPED, message=how), ()
    succeeded = not ailing and instance.exit_code == 0 and instance.signal == 0
    condition = task.desired.spec.restart_policy.condition
    if condition is RestartCondition.NEVER or (condition is RestartCondition.ON_FAILURE and succeeded):
        return replace(task, state=_S.COMPLETED if succeeded else _S.FAILED, message=how), ()
    return _retry(task, 0 if instance.ran_s >= STABLE_S else task.retries, how, now)


def _retry(task: LocalTask, retries: int, why: str, now: Moment) -> Outcome:
    retries_max = task.desired.spec.restart_policy.max_retries
    if retries_max and retries >= retries_max:
        return replace(task, state=_S.FAILED, message=f"{why}; gave up after {retries} restarts in a row"), ()
    wait_s = backoff_s(task, retries)
    of = f" of {retries_max}" if retries_max else ""
    return _wait(replace(task, retries=retries + 1), wait_s, f"{why}; restart {retries + 1}{of} in {wait_s:g} s", now)


def _wait(task: LocalTask, wait_s: float, message: str, now: Moment) -> Outcome:
    until_s = now.monotonic_s + wait_s
    waiting = replace(task, state=_S.BACKOFF, backoff_until_s=until_s, message=message)
    return waiting, (ScheduleAt(until_s, task.attempt),)


def _backoff_over(task: LocalTask, event: BackoffOver, now: Moment) -> Outcome:
    return _begin(task, now) if event.attempt == task.attempt else (task, ())


def _noted(task: LocalTask, event: Noted, now: Moment) -> Outcome:
    if event.attempt != task.attempt:
        return task, ()
    after = _say(replace(task, note=event.message))
    return after, (Report(),) if after.message != task.message else ()


def _say(task: LocalTask) -> LocalTask:
    """Return the task with a message of all there is to say of its living attempt."""
    doing = "stopping" if task.state is _S.STOPPING else ""
    words = (doing, task.ailing, task.unready, task.note)
    return replace(task, message="; ".join(word for word in words if word))


# --- probes -------------------------------------------------------------------------------------


def _probed(task: LocalTask, event: Probed, now: Moment) -> Outcome:
    if event.attempt != task.attempt or task.ailing:
        return task, ()
    if event.purpose is ProbePurpose.LIVENESS:
        return _ail(task, event.words, now) if event.passed is False else (task, ())
    after = _judge_readiness(task, event, now)
    return (after, ()) if after == task else (_say(after), (Report(),))


def _ail(task: LocalTask, words: str, now: Moment) -> Outcome:
    """End the attempt; the restart policy decides what follows when it has ended."""
    probe = task.desired.spec.liveness_probe
    times = f" {probe.failure_threshold} times in a row" if probe is not None and probe.failure_threshold > 1 else ""
    ailing = replace(
        task,
        ailing=f"the liveness probe failed{times}: {words}",
        unready="",
        ready=False,
        ready_since_ms=now.wall_ms if task.ready else task.ready_since_ms,
        probe_failures=task.probe_failures + 1,
    )
    return _say(ailing), (Stop(task.attempt, task.desired.spec.stop_grace_s), Report())


def _judge_readiness(task: LocalTask, event: Probed, now: Moment) -> LocalTask:
    """Return the task with the readiness that the probe gives it; what is not settled changes the reason at most."""
    ready = task.ready if event.passed is None else event.passed
    unready = "" if ready or not event.words else f"not ready: {event.words}"
    since_ms = task.ready_since_ms if ready == task.ready else now.wall_ms
    return replace(task, ready=ready, ready_since_ms=since_ms, unready="" if ready else unready or task.unready)


# --- found again after the agent restarted ------------------------------------------------------


def _adopted_accepted(task: LocalTask, event: Adopted, now: Moment) -> Outcome:
    return _begin(task, now) if task.wanted else _stop(task, now)


def _adopted_starting(task: LocalTask, event: Adopted, now: Moment) -> Outcome:
    instance = event.instance
    if instance is None or instance.attempt < task.attempt:
        # The journal knew of the attempt, the executor never did: begin that same attempt.
        return task, (Start(task.attempt),)
    return _adopted_running(task, event, now)


def _adopted_running(task: LocalTask, event: Adopted, now: Moment) -> Outcome:
    instance = event.instance
    if instance is None or instance.attempt < task.attempt:
        lost = Instance(task_id=task.id, attempt=task.attempt, running=False, message="its process and files are gone")
        return _ended(task, lost, now)
    if instance.attempt > task.attempt:
        # An executor ahead of the journal has run what a lost journal write began.
        task = replace(_as_new(task), attempt=instance.attempt)
    if not instance.running:
        return _ended(task, instance, now)
    if task.state is _S.STARTING:
        return _started(task, Started(instance), now)
    task = replace(
        task,
        pid=instance.pid,
        ports=dict(instance.ports),
        started_at_ms=instance.started_at_ms,
        note="",
        begun_s=now.monotonic_s - instance.ran_s,
    )
    # What was being ended before the restart is ended after it.
    end = (Stop(task.attempt, task.desired.spec.stop_grace_s),) if task.ailing else ()
    return _say(task), (Watch(task.attempt), *end, Report())


def _adopted_backoff(task: LocalTask, event: Adopted, now: Moment) -> Outcome:
    """Wait for what is left of the back-off; a deadline of before a reboot may lie far ahead, so it is bounded."""
    latest_s = now.monotonic_s + backoff_s(task, max(0, task.retries - 1))
    until_s = min(task.backoff_until_s, latest_s)
    return replace(task, backoff_until_s=until_s), (ScheduleAt(until_s, task.attempt),)


def _adopted_stopping(task: LocalTask, event: Adopted, now: Moment) -> Outcome:
    instance = event.instance
    if instance is None or not instance.running:
        lost = Instance(task_id=task.id, attempt=task.attempt, running=False, message="gone when the agent came back")
        return _ended(task, instance or lost, now)
    return task, (Watch(instance.attempt), Stop(instance.attempt, task.desired.spec.stop_grace_s))


def _adopted_final(task: LocalTask, event: Adopted, now: Moment) -> Outcome:
    """A final task has no process; one that is found is a leftover and ended. Unlisted ones are forgotten."""
    if event.instance is not None and event.instance.running:
        return task, (Stop(event.instance.attempt, task.desired.spec.stop_grace_s),)
    return task, () if task.listed else (Remove(),)


def describe_end(instance: Instance) -> str:
    """Return in words how an attempt ended."""
    if instance.message:
        return instance.message
    if instance.signal:
        return f"ended by signal {instance.signal}"
    return f"exited with code {instance.exit_code}"


Handler = Callable[[LocalTask, Any, Moment], Outcome]

# What is not listed is `_keep`: noted, not acted on.
#
#            Assigned   StopWanted  Unlisted  Started     StartFailed  Exited   BackoffOver  Noted  Probed      Adopted
# ACCEPTED   start      STOPPED     STOPPED                                                                     start
# STARTING   note/stop  STOPPING    STOPPING  RUNNING     BACKOFF/FAIL ended                 say                started?
# RUNNING    note/stop  STOPPING    STOPPING                           ended                 say    ready/stop  watch
# BACKOFF    note/stop  STOPPED     STOPPED                                     STARTING                        wait on
# STOPPING                                    stop again  STOPPED      STOPPED               say                stop
# final                                                                                                         forget
_TABLE: dict[tuple[TaskState, type[Any]], Handler] = {
    (_S.ACCEPTED, Assigned): _assigned,
    (_S.ACCEPTED, StopWanted): _stop_wanted,
    (_S.ACCEPTED, Unlisted): _unlisted,
    (_S.ACCEPTED, Adopted): _adopted_accepted,
    (_S.STARTING, Assigned): _assigned,
    (_S.STARTING, StopWanted): _stop_wanted,
    (_S.STARTING, Unlisted): _unlisted,
    (_S.STARTING, Started): _started,
    (_S.STARTING, StartFailed): _start_failed,
    (_S.STARTING, Exited): _exited,
    (_S.STARTING, Noted): _noted,
    (_S.STARTING, Adopted): _adopted_starting,
    (_S.RUNNING, Assigned): _assigned,
    (_S.RUNNING, StopWanted): _stop_wanted,
    (_S.RUNNING, Unlisted): _unlisted,
    (_S.RUNNING, Exited): _exited,
    (_S.RUNNING, Noted): _noted,
    (_S.RUNNING, Probed): _probed,
    (_S.RUNNING, Adopted): _adopted_running,
    (_S.BACKOFF, Assigned): _assigned,
    (_S.BACKOFF, StopWanted): _stop_wanted,
    (_S.BACKOFF, Unlisted): _unlisted,
    (_S.BACKOFF, BackoffOver): _backoff_over,
    (_S.BACKOFF, Adopted): _adopted_backoff,
    (_S.STOPPING, Started): _started_while_stopping,
    (_S.STOPPING, StartFailed): _stopped_before_start,
    (_S.STOPPING, Exited): _exited,
    (_S.STOPPING, Noted): _noted,
    (_S.STOPPING, Adopted): _adopted_stopping,
    (_S.COMPLETED, Adopted): _adopted_final,
    (_S.FAILED, Adopted): _adopted_final,
    (_S.STOPPED, Adopted): _adopted_final,
}
