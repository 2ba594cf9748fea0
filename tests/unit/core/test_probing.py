"""Probes: what answers come to, when tries are due, and what a verdict does to a task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.localtask import (
    Adopted,
    Assigned,
    BackoffOver,
    Exited,
    LocalTask,
    Moment,
    Noted,
    Probed,
    ProbePurpose,
    Report,
    ScheduleAt,
    Started,
    Stop,
    StopWanted,
)
from cloudless.core.model import (
    Instance,
    Probe,
    ProbeKind,
    RestartCondition,
    RestartPolicy,
    TaskDesired,
    TaskSpec,
    TaskState,
)
from cloudless.core.probing import Answer, Tally, count, first_try_s, judge, next_try_s, probes_of
from cloudless.core.taskflow import accept, observe, step

S = TaskState
YES, NO, UNKNOWN = Answer.SUCCESS, Answer.FAILURE, Answer.UNKNOWN
LIVENESS, READINESS = ProbePurpose.LIVENESS, ProbePurpose.READINESS
NOW = Moment(1000.0, 5_000_000)
LATER = Moment(1010.0, 5_010_000)


def build_probe(**fields: Any) -> Probe:
    return replace(Probe(kind=ProbeKind.TCP, port="http"), **fields)


def build_running(*, ready: bool = False, policy: RestartPolicy | None = None, **probes: Any) -> LocalTask:
    probes = probes or {"liveness_probe": build_probe(), "readiness_probe": build_probe()}
    spec = TaskSpec(command=("x",), stop_grace_s=7.0, restart_policy=policy or RestartPolicy(), **probes)
    desired = TaskDesired(
        id="t1", namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
        spec=spec,
    )  # fmt: skip
    task, _ = step(accept(desired), Assigned(desired), NOW)
    task, _ = step(task, Started(living()), NOW)
    return step(task, Probed(1, READINESS, True), NOW)[0] if ready else task


def living(attempt: int = 1, **fields: Any) -> Instance:
    return Instance(task_id="t1", attempt=attempt, running=True, pid=77, started_at_ms=4, **fields)


def ended(code: int = 0, attempt: int = 1) -> Instance:
    return Instance(task_id="t1", attempt=attempt, running=False, exit_code=code, finished_at_ms=9)


# --- counting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([], None),
        ([YES], None),
        ([YES, YES], True),
        ([NO, NO], None),
        ([NO, NO, NO], False),
        ([NO, NO, YES, NO, NO], None),
        ([NO, NO, NO, YES], None),
        ([NO, NO, NO, YES, YES], True),
        ([NO, UNKNOWN, NO, UNKNOWN, NO], False),
        ([UNKNOWN] * 9, None),
    ],
)
def test_a_row_of_answers_settles_the_probe(answers: list[Answer], verdict: bool | None) -> None:
    tally = Tally()
    for answer in answers:
        tally = count(tally, answer)
    assert judge(build_probe(success_threshold=2, failure_threshold=3), tally) is verdict


@given(st.lists(st.sampled_from([YES, NO, UNKNOWN])), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_is_what_the_last_row_of_real_answers_says(answers: list[Answer], good: int, bad: int) -> None:
    probe = build_probe(success_threshold=good, failure_threshold=bad)
    tally = Tally()
    for answer in answers:
        tally = count(tally, answer)
    real = [answer for answer in answers if answer is not UNKNOWN]
    verdict = judge(probe, tally)
    assert (verdict is True) == (real[-good:] == [YES] * good)
    assert (verdict is False) == (real[-bad:] == [NO] * bad)


# --- timing -------------------------------------------------------------------------------------


def test_the_first_try_comes_after_the_delay_and_the_next_a_period_later() -> None:
    probe = build_probe(initial_delay_s=5.0, period_s=10.0)
    task = build_running(liveness_probe=probe)
    assert first_try_s(task, probe, NOW.monotonic_s) == 1005.0
    assert next_try_s(probe, 1005.0, 1005.2) == 1015.0
    assert next_try_s(probe, 1005.0, 1100.0) == 1100.0, "missed tries are not made up for"


def test_the_delay_counts_from_the_start_of_the_attempt_not_from_the_adoption() -> None:
    probe = build_probe(initial_delay_s=60.0)
    task, _ = step(build_running(liveness_probe=probe), Adopted(living(ran_s=20.0)), LATER)
    assert first_try_s(task, probe, LATER.monotonic_s) == LATER.monotonic_s + 40.0


def test_tries_of_tasks_that_are_found_again_are_spread_over_a_period() -> None:
    probe = build_probe(period_s=10.0)
    task = replace(build_running(liveness_probe=probe), begun_s=NOW.monotonic_s - 3600)
    moments = []
    for number in range(200):
        named = replace(task, desired=replace(task.desired, id=f"web-{number}"))
        moments.append(first_try_s(named, probe, NOW.monotonic_s) - NOW.monotonic_s)
    assert all(0 <= moment < 10 for moment in moments)
    for second in range(10):
        assert 5 <= sum(second <= moment < second + 1 for moment in moments) <= 50


@given(st.floats(0, 3600), st.floats(0.1, 3600), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_try_is_never_due_in_the_past_and_never_more_than_delay_or_period_away(
    delay_s: float, period_s: float, begun_s: float, ran_s: float
) -> None:
    probe = build_probe(initial_delay_s=delay_s, period_s=period_s)
    task = replace(build_running(liveness_probe=probe), begun_s=begun_s)
    now_s = begun_s + ran_s
    assert now_s <= first_try_s(task, probe, now_s) <= now_s + max(delay_s, period_s) + 0.001
    assert now_s <= next_try_s(probe, begun_s, now_s) <= now_s + period_s + 0.001


# --- what is asked ------------------------------------------------------------------------------


def test_only_a_task_that_runs_and_is_to_go_on_is_asked() -> None:
    task = build_running()
    assert [purpose for purpose, _ in probes_of(task)] == [LIVENESS, READINESS]
    assert not list(probes_of(step(task, StopWanted(), NOW)[0]))
    assert not list(probes_of(step(task, Probed(1, LIVENESS, False, "no"), NOW)[0]))
    assert not list(probes_of(step(task, Exited(ended(1)), NOW)[0]))
    assert [purpose for purpose, _ in probes_of(build_running(readiness_probe=build_probe()))] == [READINESS]


# --- readiness ----------------------------------------------------------------------------------


def test_a_task_is_ready_once_its_probe_has_passed_and_says_why_it_is_not() -> None:
    task = build_running()
    assert (task.ready, task.ready_since_ms) == (False, 0)
    task, actions = step(task, Probed(1, READINESS, None, "connection refused"), NOW)
    assert (task.ready, task.message, actions) == (False, "not ready: connection refused", (Report(),))
    assert step(task, Probed(1, READINESS, False, "connection refused"), NOW) == (task, ())
    task, actions = step(task, Probed(1, READINESS, True), LATER)
    assert (task.ready, task.ready_since_ms, task.message, actions) == (True, LATER.wall_ms, "", (Report(),))
    report = observe(task, node_id="n1", host="h")
    assert (report.ready, report.ready_since_ms, report.probe_failures) == (True, LATER.wall_ms, 0)


def test_a_single_failure_below_the_threshold_changes_nothing_of_a_ready_task() -> None:
    task = build_running(ready=True)
    assert step(task, Probed(1, READINESS, None, "timed out"), LATER) == (task, ())


def test_a_task_without_a_readiness_probe_is_ready_from_the_start() -> None:
    task = build_running(liveness_probe=build_probe())
    assert (task.ready, task.ready_since_ms) == (True, 0)


def test_each_attempt_has_to_become_ready_anew() -> None:
    task, _ = step(build_running(ready=True), Exited(ended(1)), LATER)
    task, _ = step(task, BackoffOver(1), LATER)
    task, _ = step(task, Started(living(2)), LATER)
    assert (task.state, task.ready, task.ready_since_ms) == (S.RUNNING, False, 0)


@pytest.mark.parametrize("ready", [True, False])
def test_a_task_found_again_keeps_its_readiness(ready: bool) -> None:
    task = build_running(ready=ready)
    found, _ = step(task, Adopted(living(ran_s=10.0)), LATER)
    assert (found.ready, found.ready_since_ms) == (task.ready, task.ready_since_ms)


def test_what_the_executor_says_and_why_a_task_is_not_ready_do_not_hide_each_other() -> None:
    task, _ = step(build_running(), Noted(1, "state unknown"), NOW)
    task, _ = step(task, Probed(1, READINESS, False, "timed out"), NOW)
    assert task.message == "not ready: timed out; state unknown"
    assert step(task, Noted(1, ""), NOW)[0].message == "not ready: timed out"
    assert step(task, Probed(1, READINESS, True), NOW)[0].message == "state unknown"


# --- liveness -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "after"),
    [
        (RestartCondition.ALWAYS, S.BACKOFF),
        (RestartCondition.ON_FAILURE, S.BACKOFF),
        (RestartCondition.NEVER, S.FAILED),
    ],
)
def test_a_liveness_failure_ends_the_attempt_as_failed_however_it_exits(
    condition: RestartCondition, after: TaskState
) -> None:
    task = build_running(ready=True, policy=RestartPolicy(condition=condition))
    task, actions = step(task, Probed(1, LIVENESS, False, "timed out after 1 s"), LATER)
    assert actions == (Stop(1, 7.0), Report())
    why = "the liveness probe failed 3 times in a row: timed out after 1 s"
    assert (task.state, task.message, task.ready, task.probe_failures) == (S.RUNNING, why, False, 1)
    assert step(task, Probed(1, LIVENESS, False, "again"), LATER) == (task, ()), "it is being ended already"
    assert step(task, Probed(1, READINESS, True), LATER) == (task, ()), "what is being ended is not available"
    task, _ = step(task, Exited(ended(0)), LATER)
    assert task.state is after
    assert task.message.startswith(why)
    assert task.ailing == ""


def test_liveness_failures_wait_longer_each_time_and_end_with_max_retries() -> None:
    task = build_running(policy=RestartPolicy(max_retries=3))
    waits = []
    while task.state is S.RUNNING:
        task, _ = step(task, Probed(task.attempt, LIVENESS, False, "no"), NOW)
        task, actions = step(task, Exited(ended(0, task.attempt)), NOW)
        waits += [action.monotonic_s - NOW.monotonic_s for action in actions if isinstance(action, ScheduleAt)]
        task, _ = step(task, BackoffOver(task.attempt), NOW)
        task, _ = step(task, Started(living(task.attempt)), NOW)
    assert waits == [1, 2, 4]
    assert (task.state, task.probe_failures) == (S.FAILED, 4)
    assert "gave up after 3 restarts in a row" in task.message


def test_an_agent_that_restarts_while_an_ailing_task_ends_goes_on_with_ending_it() -> None:
    task, _ = step(build_running(), Probed(1, LIVENESS, False, "no"), NOW)
    found, actions = step(task, Adopted(living(ran_s=5.0)), LATER)
    assert Stop(1, 7.0) in actions
    assert found.message == task.message
    assert step(found, Exited(ended(0)), LATER)[0].state is S.BACKOFF
    gone, _ = step(task, Adopted(ended(0)), LATER)
    assert gone.state is S.BACKOFF
    assert "liveness probe" in gone.message


@given(
    st.lists(
        st.tuples(st.sampled_from(ProbePurpose), st.sampled_from([True, False, None]), st.sampled_from(["", "a", "b"])),
        max_size=30,
    )
)
def test_whatever_probes_say_only_liveness_ends_a_task_and_readiness_follows_its_last_verdict(
    probed: list[tuple[ProbePurpose, bool | None, str]],
) -> None:
    task, expected, ailing = build_running(), False, False
    for purpose, passed, words in probed:
        before = task
        task, actions = step(task, Probed(1, purpose, passed, words), NOW)
        if not ailing and purpose is READINESS and passed is not None:
            expected = passed
        if not ailing and purpose is LIVENESS and passed is False:
            ailing, expected = True, False
            assert any(isinstance(action, Stop) for action in actions)
        else:
            assert not any(isinstance(action, Stop) for action in actions)
        assert (task.state, task.ready) == (S.RUNNING, expected)
        assert (Report() in actions) == (task != before)
