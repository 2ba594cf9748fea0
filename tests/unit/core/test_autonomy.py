"""How long tasks go on without a coordinator, and what becomes of them then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.autonomy import LastWord, describe_overdue, find_overdue, note_period_s
from cloudless.core.localtask import (
    Adopted,
    Assigned,
    BackoffOver,
    Event,
    Exited,
    LocalTask,
    Moment,
    Remove,
    Start,
    Stop,
    StopWanted,
    Unlisted,
)
from cloudless.core.model import Desired, Instance, TaskDesired, TaskSpec, TaskState
from cloudless.core.taskflow import step

S = TaskState
NOW = Moment(1000.0, 5_000_000)
FOREVER = float("inf")


def build_task(stop_after_s: float, state: TaskState = S.RUNNING, task_id: str = "t1") -> LocalTask:
    desired = TaskDesired(
        id=task_id, namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
        spec=TaskSpec(command=("x",), stop_grace_s=7.0, stop_after_s=stop_after_s),
    )  # fmt: skip
    return LocalTask(desired=desired, state=state, attempt=1)


@pytest.mark.parametrize(
    ("word", "silence_s"),
    [
        (LastWord(990.0, "b1"), 10.0),
        (LastWord(1000.5, "b1"), 0.0),
        (LastWord(990.0, "b2"), FOREVER),
        (LastWord(), FOREVER),
    ],
)
def test_silence_is_told_within_one_boot_only(word: LastWord, silence_s: float) -> None:
    assert word.silence_s(NOW.monotonic_s, "b1") == silence_s


@pytest.mark.parametrize(
    ("task", "silence_s", "overdue"),
    [
        (build_task(0.0), FOREVER, False),
        (build_task(60.0), 59.9, False),
        (build_task(60.0), 60.0, True),
        (build_task(60.0), FOREVER, True),
        (build_task(60.0, S.BACKOFF), 60.0, True),
        (build_task(60.0, S.ACCEPTED), 60.0, True),
        (build_task(60.0, S.FAILED), 60.0, False),
        (replace(build_task(60.0), listed=False), 60.0, False),
    ],
)
def test_what_has_a_limit_must_not_go_on_beyond_it(task: LocalTask, silence_s: float, overdue: bool) -> None:
    assert find_overdue([task], silence_s) == (("t1",) if overdue else ())


def test_the_last_word_is_noted_often_enough_for_the_shortest_limit() -> None:
    assert note_period_s([build_task(0.0)]) is None
    assert note_period_s([build_task(0.0), build_task(20.0), build_task(5.0)]) == 0.5
    assert note_period_s([build_task(86_400.0)]) == 30.0


def test_the_reason_says_what_was_missed_and_the_limit() -> None:
    task = build_task(60.0)
    assert describe_overdue(task, 61.2) == "stopped: no coordinator was reached for 61 s (stopAfter is 60 s)"
    assert "nobody can say" in describe_overdue(task, FOREVER)


def test_a_stopped_task_ends_for_good_and_keeps_its_reason() -> None:
    task, actions = step(build_task(60.0), StopWanted("stopped: no coordinator"), NOW)
    assert (task.state, task.message) == (S.STOPPING, "stopping; stopped: no coordinator")
    assert Stop(1, 7.0) in actions
    running = replace(task.desired, desired=Desired.RUNNING)
    task, actions = step(task, Assigned(running), NOW)
    assert not actions, "a coordinator that comes back too late does not bring it back"
    task, _ = step(task, Exited(Instance(task_id="t1", attempt=1, running=False, signal=15)), NOW)
    assert (task.state, task.message) == (S.STOPPED, "stopped: no coordinator")


@pytest.mark.parametrize("state", [S.ACCEPTED, S.BACKOFF])
def test_a_task_that_does_not_run_is_stopped_at_once(state: TaskState) -> None:
    task, _ = step(build_task(60.0, state), StopWanted("why"), NOW)
    assert (task.state, task.message) == (S.STOPPED, "why")


@given(
    st.lists(
        st.sampled_from(
            [
                Adopted(None),
                Adopted(Instance(task_id="t1", attempt=1, running=True)),
                Assigned(build_task(1.0).desired),
                BackoffOver(1),
                Unlisted(),
            ]
        ),
        max_size=8,
    ),
    st.sampled_from([S.ACCEPTED, S.STARTING, S.RUNNING, S.BACKOFF]),
)
def test_whatever_follows_a_stop_nothing_is_started_again(events: list[Event], state: TaskState) -> None:
    task, _ = step(build_task(1.0, state), StopWanted("why"), NOW)
    for event in events:
        task, actions = step(task, event, NOW)
        assert not any(isinstance(action, Start) for action in actions)
        if Remove() in actions:
            break
