"""A task on its agent, event by event: what it becomes and what is to be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.lifecycle import FINAL, MOVES, is_final, may_move
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
from cloudless.core.model import (
    Desired,
    Instance,
    RestartCondition,
    RestartPolicy,
    TaskDesired,
    TaskSpec,
    TaskState,
)
from cloudless.core.taskflow import BACKOFF_MAX_S, STABLE_S, accept, observe, step

S = TaskState
NOW = Moment(1000.0, 5_000_000)


def build_desired(desired: Desired = Desired.RUNNING, **policy: Any) -> TaskDesired:
    spec = TaskSpec(command=("x",), stop_grace_s=7.0, restart_policy=RestartPolicy(**policy))
    return TaskDesired(
        id="t1", namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
        spec=spec, desired=desired,
    )  # fmt: skip


def build_task(state: TaskState, **fields: Any) -> LocalTask:
    policy = fields.pop("policy", {})
    attempt = fields.pop("attempt", 0 if state is S.ACCEPTED else 1)
    return LocalTask(desired=build_desired(**policy), state=state, attempt=attempt, **fields)


def living(attempt: int = 1, **fields: Any) -> Instance:
    return Instance(task_id="t1", attempt=attempt, running=True, pid=77, started_at_ms=4, **fields)


def ended(code: int = 0, attempt: int = 1, **fields: Any) -> Instance:
    return Instance(task_id="t1", attempt=attempt, running=False, exit_code=code, finished_at_ms=9, **fields)


def killed(number: int, attempt: int = 1) -> Instance:
    return ended(-1, attempt, signal=number)


START = Start(1)
STOP = Stop(1, 7.0)
WATCH = Watch(1)
STOPPED = replace(build_desired(), desired=Desired.STOPPED)
TEMPORARY = StartFailed(1, StartFault.TEMPORARY, "busy")

# state before, event, state after, actions besides Report (which every change of state brings)
TABLE: list[tuple[TaskState, Event, TaskState, tuple[Action, ...]]] = [
    (S.ACCEPTED, Assigned(build_desired()), S.STARTING, (START,)),
    (S.ACCEPTED, Assigned(STOPPED), S.STOPPED, ()),
    (S.ACCEPTED, StopWanted("why"), S.STOPPED, ()),
    (S.ACCEPTED, Unlisted(), S.STOPPED, (Remove(),)),
    (S.ACCEPTED, Adopted(None), S.STARTING, (START,)),
    (S.STARTING, Assigned(build_desired()), S.STARTING, ()),
    (S.STARTING, Assigned(STOPPED), S.STOPPING, (STOP,)),
    (S.STARTING, StopWanted(), S.STOPPING, (STOP,)),
    (S.STARTING, Started(living()), S.RUNNING, (WATCH,)),
    (S.STARTING, Started(ended(0)), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.STARTING, TEMPORARY, S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.STARTING, StartFailed(1, StartFault.PORT_TAKEN, "port 80"), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.STARTING, StartFailed(1, StartFault.AGENT, "disk"), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.STARTING, StartFailed(1, StartFault.PERMANENT, "no such command"), S.FAILED, ()),
    (S.STARTING, Noted(1, "fetching"), S.STARTING, (Report(),)),
    (S.RUNNING, Noted(1, "unknown"), S.RUNNING, (Report(),)),
    (S.STOPPING, Noted(1, "unknown"), S.STOPPING, (Report(),)),
    (S.BACKOFF, Noted(1, "unknown"), S.BACKOFF, ()),
    (S.STARTING, Adopted(None), S.STARTING, (START,)),
    (S.STARTING, Adopted(living()), S.RUNNING, (WATCH,)),
    (S.STARTING, Adopted(ended(1)), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.RUNNING, Assigned(build_desired()), S.RUNNING, ()),
    (S.RUNNING, Assigned(STOPPED), S.STOPPING, (STOP,)),
    (S.RUNNING, StopWanted(), S.STOPPING, (STOP,)),
    (S.RUNNING, Unlisted(), S.STOPPING, (STOP,)),
    (S.RUNNING, Exited(ended(1)), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.RUNNING, Exited(killed(9)), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.RUNNING, Adopted(None), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.RUNNING, Adopted(living()), S.RUNNING, (WATCH, Report())),
    (S.RUNNING, Adopted(ended(1)), S.BACKOFF, (ScheduleAt(1001.0, 1),)),
    (S.BACKOFF, Assigned(build_desired()), S.BACKOFF, ()),
    (S.BACKOFF, Assigned(STOPPED), S.STOPPED, ()),
    (S.BACKOFF, StopWanted(), S.STOPPED, ()),
    (S.BACKOFF, Unlisted(), S.STOPPED, (Remove(),)),
    (S.BACKOFF, BackoffOver(1), S.STARTING, (Start(2),)),
    (S.STOPPING, Assigned(build_desired()), S.STOPPING, ()),
    (S.STOPPING, StopWanted(), S.STOPPING, ()),
    (S.STOPPING, Started(living()), S.STOPPING, (WATCH, STOP)),
    (S.STOPPING, TEMPORARY, S.STOPPED, ()),
    (S.STOPPING, Exited(killed(15)), S.STOPPED, ()),
    (S.STOPPING, Adopted(None), S.STOPPED, ()),
    (S.STOPPING, Adopted(living()), S.STOPPING, (WATCH, STOP)),
    (S.STOPPING, Adopted(ended(0)), S.STOPPED, ()),
    (S.STOPPING, BackoffOver(1), S.STOPPING, ()),
    (S.RUNNING, Probed(1, ProbePurpose.LIVENESS, False, "no"), S.RUNNING, (STOP, Report())),
    (S.RUNNING, Probed(1, ProbePurpose.LIVENESS, True), S.RUNNING, ()),
    (S.RUNNING, Probed(1, ProbePurpose.LIVENESS, None, "no"), S.RUNNING, ()),
    (S.RUNNING, Probed(1, ProbePurpose.READINESS, False, "no"), S.RUNNING, (Report(),)),
    (S.RUNNING, Probed(1, ProbePurpose.READINESS, True), S.RUNNING, ()),
    (S.BACKOFF, Probed(1, ProbePurpose.LIVENESS, False, "no"), S.BACKOFF, ()),
    (S.STOPPING, Probed(1, ProbePurpose.LIVENESS, False, "no"), S.STOPPING, ()),
    (S.STOPPING, Probed(1, ProbePurpose.READINESS, False, "no"), S.STOPPING, ()),
]


@pytest.mark.parametrize(
    ("before", "event", "after", "actions"), TABLE, ids=lambda value: getattr(value, "value", None)
)
def test_an_event_moves_the_task_and_names_what_to_do(
    before: TaskState, event: Event, after: TaskState, actions: tuple[Action, ...]
) -> None:
    task, todo = step(build_task(before), event, NOW)
    assert task.state is after
    assert [a for a in todo if not isinstance(a, Report)] == [a for a in actions if not isinstance(a, Report)]
    reported = Report() in todo
    assert reported == (before is not after or Report() in actions)
    assert task.sequence == int(reported)


@pytest.mark.parametrize(
    ("condition", "instance", "after"),
    [
        (RestartCondition.ALWAYS, ended(0), S.BACKOFF),
        (RestartCondition.ALWAYS, ended(1), S.BACKOFF),
        (RestartCondition.ON_FAILURE, ended(0), S.COMPLETED),
        (RestartCondition.ON_FAILURE, ended(1), S.BACKOFF),
        (RestartCondition.ON_FAILURE, killed(9), S.BACKOFF),
        (RestartCondition.NEVER, ended(0), S.COMPLETED),
        (RestartCondition.NEVER, ended(1), S.FAILED),
        (RestartCondition.NEVER, killed(9), S.FAILED),
    ],
)
def test_the_restart_policy_decides_after_an_end(
    condition: RestartCondition, instance: Instance, after: TaskState
) -> None:
    task, _ = step(build_task(S.RUNNING, policy={"condition": condition}), Exited(instance), NOW)
    assert task.state is after
    assert (task.exit_code, task.signal) == (instance.exit_code, instance.signal)


def crash_loop(task: LocalTask, count_max: int, ran_s: float = 0.1) -> list[float]:
    """Let every attempt crash; return the waits between attempts."""
    waits: list[float] = []
    for _ in range(count_max):
        task, actions = step(task, Exited(ended(1, task.attempt, ran_s=ran_s)), NOW)
        deadlines = [action for action in actions if isinstance(action, ScheduleAt)]
        if not deadlines:
            assert task.state is S.FAILED
            break
        waits.append(deadlines[0].monotonic_s - NOW.monotonic_s)
        task, _ = step(task, BackoffOver(task.attempt), NOW)
        task, _ = step(task, Started(living(task.attempt)), NOW)
    return waits


def test_the_wait_doubles_up_to_a_minute() -> None:
    assert crash_loop(build_task(S.RUNNING), 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_wait_stays_bounded_after_thousands_of_crashes() -> None:
    waiting, _ = step(build_task(S.RUNNING, retries=5000), Exited(ended(1)), NOW)
    assert waiting.backoff_until_s == NOW.monotonic_s + BACKOFF_MAX_S


def test_after_max_retries_in_a_row_the_task_has_failed() -> None:
    assert crash_loop(build_task(S.RUNNING, policy={"max_retries": 3}), 9) == [1, 2, 4]


def test_a_stable_minute_forgives_earlier_crashes() -> None:
    assert crash_loop(build_task(S.RUNNING, policy={"max_retries": 2}), 6, ran_s=STABLE_S) == [1] * 6


def test_an_agent_that_cannot_write_its_journal_waits_without_counting_a_restart() -> None:
    task = build_task(S.STARTING, policy={"max_retries": 1})
    for _ in range(5):
        task, _ = step(task, StartFailed(task.attempt, StartFault.AGENT, "disk full"), NOW)
        assert (task.state, task.retries, task.message) == (S.BACKOFF, 0, "disk full")
        task, _ = step(task, BackoffOver(task.attempt), NOW)


@pytest.mark.parametrize(
    "event",
    [
        Started(living(1)),
        StartFailed(1, StartFault.PERMANENT, "late"),
        Exited(ended(1, 1)),
        BackoffOver(1),
        Probed(1, ProbePurpose.LIVENESS, False, "no"),
        Probed(1, ProbePurpose.READINESS, False, "no"),
    ],
)
@pytest.mark.parametrize("state", [S.STARTING, S.RUNNING, S.BACKOFF, S.STOPPING])
def test_an_event_of_an_older_attempt_changes_nothing(state: TaskState, event: Event) -> None:
    task = build_task(state, attempt=2)
    assert step(task, event, NOW) == (task, ())


def test_stopped_is_never_taken_back() -> None:
    task, _ = step(build_task(S.RUNNING), Assigned(STOPPED), NOW)
    task, actions = step(task, Assigned(build_desired()), NOW)
    assert (task.state, task.desired.desired, actions) == (S.STOPPING, Desired.STOPPED, ())
    task, _ = step(task, Exited(ended(1)), NOW)
    assert task.state is S.STOPPED


def test_a_task_is_forgotten_once_it_has_ended_and_is_no_longer_listed() -> None:
    task, actions = step(build_task(S.RUNNING), Unlisted(), NOW)
    assert Remove() not in actions
    task, actions = step(task, Exited(ended(0)), NOW)
    assert actions[-1] == Remove()
    ended_first, actions = step(build_task(S.COMPLETED), Unlisted(), NOW)
    assert (ended_first.state, actions) == (S.COMPLETED, (Remove(),))
    # Forgetting was cut off by a crash: it is asked for again.
    assert step(ended_first, Adopted(ended(0)), NOW)[1] == (Remove(),)


def test_a_back_off_goes_on_after_the_agent_came_back_but_never_longer_than_it_was() -> None:
    waiting = build_task(S.BACKOFF, retries=2, backoff_until_s=1001.5)
    assert step(waiting, Adopted(ended(1)), NOW)[1] == (ScheduleAt(1001.5, 1),)
    rebooted = replace(waiting, backoff_until_s=9_999_999.0)
    assert step(rebooted, Adopted(ended(1)), NOW)[1] == (ScheduleAt(1002.0, 1),)


def test_an_executor_ahead_of_the_journal_is_followed() -> None:
    task, _ = step(build_task(S.STARTING, attempt=1), Adopted(living(3)), NOW)
    assert (task.state, task.attempt, task.restarts) == (S.RUNNING, 3, 2)


def test_an_end_while_the_agent_was_away_is_reported_as_it_was() -> None:
    task, actions = step(build_task(S.RUNNING, policy={"condition": RestartCondition.NEVER}), Adopted(ended(3)), NOW)
    report = observe(task, node_id="n1", host="h")
    assert (report.state, report.exit_code, report.restarts) == (S.FAILED, 3, 0)
    assert "3" in report.message
    assert Report() in actions


def events() -> st.SearchStrategy[Event]:
    attempts = st.integers(0, 3)
    instances = st.one_of(attempts.map(living), st.builds(ended, st.sampled_from([0, 1]), attempts))
    faults = st.sampled_from(list(StartFault))
    return st.one_of(
        st.sampled_from([Assigned(build_desired()), Assigned(STOPPED), StopWanted("x"), Unlisted(), Adopted(None)]),
        instances.map(Started),
        instances.map(Exited),
        instances.map(Adopted),
        attempts.map(BackoffOver),
        st.builds(StartFailed, attempts, faults, st.just("no")),
        st.builds(Probed, attempts, st.sampled_from(ProbePurpose), st.sampled_from([True, False, None]), st.just("no")),
    )


@given(st.lists(events(), max_size=30), st.sampled_from(list(RestartCondition)), st.integers(0, 2))
def test_whatever_happens_the_task_only_moves_forward(
    happened: list[Event], condition: RestartCondition, max_retries: int
) -> None:
    task = accept(build_desired(condition=condition, max_retries=max_retries), sequence=10)
    stopping = False
    for event in happened:
        after, actions = step(task, event, NOW)
        assert after.state is task.state or may_move(task.state, after.state)
        assert after.attempt >= task.attempt
        assert after.sequence == task.sequence + (Report() in actions)
        # A report for every change of state, so that no coordinator is left with an old one.
        assert after.state is task.state or Report() in actions
        stopping = stopping or event in (Assigned(STOPPED), StopWanted("x"))
        if stopping and event not in (Adopted(None),):
            assert not any(isinstance(action, Start) for action in actions)
        task = after


def test_every_state_is_reachable_and_final_states_are_left_never() -> None:
    reached = {after for _, _, after, _ in TABLE} | {S.COMPLETED, S.ACCEPTED}
    assert reached == set(S)
    for state in sorted(FINAL, key=lambda state: state.value):
        assert is_final(state)
        assert not MOVES[state]


def test_what_an_executor_has_to_say_is_told_once_and_taken_back() -> None:
    task, actions = step(build_task(S.RUNNING), Noted(1, "state unknown"), NOW)
    assert (task.message, task.sequence, actions) == ("state unknown", 1, (Report(),))
    assert step(task, Noted(1, "state unknown"), NOW) == (task, ())
    assert step(task, Noted(1, ""), NOW)[0].message == ""
    assert step(task, Adopted(living()), NOW)[0].message == ""
    stopping, _ = step(build_task(S.STOPPING, message="stopping"), Noted(1, "state unknown"), NOW)
    assert stopping.message == "stopping; state unknown"
    assert step(stopping, Noted(1, ""), NOW)[0].message == "stopping"
