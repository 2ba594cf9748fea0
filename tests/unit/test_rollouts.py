"""How a change of a template is carried through, held back and taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import Rollout, RolloutPhase, RolloutRecord, RolloutStrategy, TaskState
from cloudless.core.orchestration import change_spec, find_revision, plan_workload
from cloudless.core.orchestration.revisions import HISTORY_MAX
from cloudless.testing.builders import build_malformed
from tests.unit.rollouts import REF, Stage

P = RolloutPhase


def test_a_rollout_is_noted_from_its_begin_to_its_end() -> None:
    stage = Stage.of(3)
    stage.change("v2")
    assert not stage.cluster.commit(stage.decide().changes)
    assert (stage.notes.phase, stage.notes.generation, stage.notes.stable_generation) == (P.PROGRESSING, 2, 1)
    stage.go_on()
    assert (stage.notes.phase, stage.versions()) == (P.COMPLETED, {"v2": 3})
    assert stage.decide().next_deadline_s is None


def test_a_first_note_that_is_sent_again_does_not_outlive_its_workload() -> None:
    stage = Stage.of(2)
    stage.change("v2")
    (noting,) = stage.decide().changes
    assert [put.key for put in noting.puts] == [keys.rollout(*REF)]
    stage.cluster.delete(keys.workload(*REF))
    assert stage.cluster.commit([noting]) == [noting], "refused"


def test_notes_left_by_an_earlier_workload_of_the_name_are_written_over() -> None:
    stage = Stage.of(2)
    left = RolloutRecord(namespace=REF[0], workload=REF[1], workload_uid="another", rollout=7, generation=7)
    stage.cluster.put(keys.rollout(*REF), left)
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v2": 2}


def test_a_workload_that_never_changed_has_no_notes() -> None:
    stage = Stage.of(3)
    stage.cluster.update_workload(replicas=5)
    stage.go_on()
    assert not stage.cluster.machine.held(Kind.ROLLOUT)
    assert not stage.cluster.machine.held(Kind.REVISION)


def test_a_new_task_counts_once_it_has_been_ready_for_long_enough() -> None:
    stage = Stage.of(2, min_ready_s=30)
    stage.pass_s(60)
    stage.change("v2")
    plan = stage.go_on()
    assert stage.versions() == {"v1": 2, "v2": 1}
    assert plan.next_deadline_s == 30
    stage.pass_s(29)
    assert not stage.decide().changes
    stage.pass_s(1)
    stage.go_on()
    assert stage.versions() == {"v1": 1, "v2": 2}


def test_batches_rest_between_each_other() -> None:
    stage = Stage.of(6, max_surge=6, batch_size=2, pause_s=20)
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v1": 4, "v2": 2}
    stage.pass_s(19)
    assert stage.go_on().next_deadline_s == 1
    assert stage.versions() == {"v1": 4, "v2": 2}
    stage.pass_s(1)
    stage.go_on()
    assert stage.versions() == {"v1": 2, "v2": 4}
    stage.pass_s(20)
    stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v2": 6}, P.COMPLETED)


def test_a_pause_without_a_batch_size_rests_after_what_the_bounds_allow() -> None:
    stage = Stage.of(4, max_surge=1, max_unavailable=1, pause_s=20)
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v1": 2, "v2": 2}


def test_what_never_becomes_ready_is_taken_back_and_the_old_ones_were_never_touched() -> None:
    stage = Stage.of(3, progress_deadline_s=60)
    stage.broken.add("v2")
    old = {task.id for task in stage.tasks()}
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v1": 3, "v2": 1}
    stage.pass_s(60)
    stage.go_on()
    assert {task.id for task in stage.tasks() if task.active} == old
    assert stage.record.spec.command == ("run", "v1")
    assert (stage.record.generation, stage.record.task_generation, stage.record.rollback_of) == (3, 1, 2)
    assert (stage.notes.phase, stage.notes.rollback_of) == (P.COMPLETED, 2)
    kept = find_revision(stage.cluster.machine, stage.record, 2)
    assert kept is not None
    assert "no progress for 60 s" in kept.reason


def test_a_rollback_leaves_all_that_is_no_template_as_it_is_now() -> None:
    stage = Stage.of(3, progress_deadline_s=60)
    stage.broken.add("v2")
    stage.cluster.update_workload(command=("run", "v2"), replicas=4, lost_after_s=9.0)
    stage.go_on()
    stage.pass_s(60)
    stage.go_on()
    assert (stage.record.spec.replicas, stage.record.spec.lost_after_s) == (4, 9.0)
    assert stage.versions() == {"v1": 4}


def test_progress_puts_the_deadline_off_but_going_to_and_fro_does_not() -> None:
    stage = Stage.of(3, progress_deadline_s=60, min_ready_s=1)
    stage.pass_s(10)
    stage.change("v2")
    for _ in range(3):
        stage.go_on()
        stage.pass_s(50)
    stage.go_on()
    assert stage.notes.phase is P.COMPLETED
    stage.change("v3")
    stage.go_on()
    for ready in (True, False) * 4:
        (new,) = [t for t in stage.tasks() if t.active and t.desired.spec.command[-1] == "v3"]
        stage.cluster.report(new.id, TaskState.RUNNING, ready=ready, ready_since_ms=stage.now_ms)
        stage.plan()
        stage.pass_s(0.9 if ready else 20)
        if stage.record.rollback_of:
            break
    stage.go_on()
    assert stage.record.rollback_of == 3


def test_a_short_deadline_is_kept_too_although_checkpoints_come_more_often_than_progress_is_noted() -> None:
    stage = Stage.of(3, max_surge=0, max_unavailable=1, progress_deadline_s=5)
    stage.broken.add("v2")
    stage.change("v2")
    for _ in range(10):
        stage.go_on()
        stage.pass_s(1.3)
    stage.go_on()
    assert (stage.record.rollback_of, stage.versions()) == (2, {"v1": 3})


def test_a_rollback_is_never_rolled_back() -> None:
    stage = Stage.of(3, max_surge=0, max_unavailable=3, progress_deadline_s=60)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    stage.broken.add("v1")
    for _ in range(20):
        stage.pass_s(60)
        stage.go_on()
    assert (stage.record.rollback_of, stage.record.generation) == (2, 3)
    assert stage.notes.phase is P.FAILED
    assert "a rollback is not rolled back" in stage.notes.reason


@pytest.mark.parametrize("auto_rollback", [True, False])
def test_a_rollout_that_cannot_be_taken_back_has_failed_and_goes_on_trying(auto_rollback: bool) -> None:
    stage = Stage.of(3, auto_rollback=auto_rollback, progress_deadline_s=60)
    if auto_rollback:
        stage.change("v2")
        stage.go_on()
        for task in stage.tasks():
            if task.active:
                stage.cluster.report(task.id, TaskState.RUNNING, ready=False)
        stage.cluster.delete(keys.rollout(*REF))  # nobody knows of anything good any more
    stage.broken.add("v3")
    stage.change("v3")
    stage.go_on()
    stage.pass_s(60)
    stage.go_on()
    assert stage.notes.phase is P.FAILED
    assert stage.record.spec.command == ("run", "v3")
    stage.broken.clear()
    for task in stage.tasks():
        if task.active and not (task.observed and task.observed.ready):
            stage.cluster.report(task.id, TaskState.RUNNING, ready=True)
    stage.go_on()
    assert (stage.notes.phase, stage.versions()) == (P.COMPLETED, {"v3": 3})


def test_no_deadline_means_no_end() -> None:
    stage = Stage.of(3, progress_deadline_s=0)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    stage.pass_s(10**6)
    assert stage.go_on().next_deadline_s is None
    assert stage.notes.phase is P.PROGRESSING


def test_a_new_leader_counts_on_from_what_was_written_whatever_its_clock_says() -> None:
    stage = Stage.of(3, progress_deadline_s=100)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    stage.pass_s(50)
    stage.go_on()  # written here
    stage.pass_s(24)
    stage.term, stage.now_ms = 2, stage.now_ms + 86_400_000
    stage.go_on()
    assert not stage.record.rollback_of
    stage.pass_s(49)
    stage.go_on()
    assert not stage.record.rollback_of
    stage.term, stage.now_ms = 3, 5
    stage.pass_s(1)
    stage.go_on()
    stage.pass_s(26)
    stage.go_on()
    assert stage.record.rollback_of == 2, "at most a quarter is lost with each leader"


def test_a_change_during_a_rollout_takes_its_place() -> None:
    stage = Stage.of(4, max_surge=2)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v1": 4, "v2": 2}
    stage.pause()
    stage.go_on()
    stage.change("v3")
    stage.go_on()
    assert stage.versions() == {"v3": 4}
    assert (stage.notes.phase, stage.notes.stable_generation) == (P.COMPLETED, 1)


def test_putting_the_old_template_back_keeps_the_tasks_that_still_have_it() -> None:
    stage = Stage.of(4)
    old = {task.id for task in stage.tasks()}
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    stage.change("v1")
    stage.go_on()
    assert {task.id for task in stage.tasks() if task.active} == old
    assert stage.notes.phase is P.COMPLETED


def test_a_paused_rollout_begins_nothing_more_and_keeps_all_replicas() -> None:
    stage = Stage.of(4)
    stage.change("v2")
    for _ in range(3):
        stage.plan()
        stage.obey()
    counts = stage.versions()
    assert set(counts) == {"v1", "v2"}
    stage.pause()
    plan = stage.go_on()
    assert stage.notes.phase is P.PAUSED
    assert "paused" in plan.waiting[0]
    begun = stage.versions()["v2"]
    victim = next(t for t in stage.tasks() if t.active and t.desired.spec.command[-1] == "v1")
    stage.cluster.report(victim.id, TaskState.FAILED, finished_at_ms=stage.now_ms)
    stage.pass_s(100)
    stage.go_on()
    assert stage.versions() == {"v1": 4 - begun, "v2": begun}, "what fails meanwhile comes back as it was"
    stage.pass_s(10**5)
    stage.go_on()
    assert not stage.record.rollback_of, "no deadline runs meanwhile"
    stage.resume()
    stage.go_on()
    assert stage.versions() == {"v2": 4}


def test_scaling_while_paused_adds_tasks_as_they_were() -> None:
    stage = Stage.of(2)
    stage.change("v2")
    stage.cluster.commit(stage.decide().changes)
    stage.pause()
    stage.go_on()
    stage.cluster.update_workload(replicas=5)
    stage.go_on()
    assert stage.versions() == {"v1": 5}


def test_a_canary_waits_for_a_person_and_the_others_follow() -> None:
    stage = Stage.of(5, strategy=RolloutStrategy.CANARY, canary=2)
    stage.change("v2")
    plan = stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v1": 3, "v2": 2}, P.AWAITING_PROMOTION)
    assert "promote" in plan.waiting[0]
    stage.pass_s(10**6)
    stage.go_on()
    assert stage.notes.phase is P.AWAITING_PROMOTION
    stage.promote()
    stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v2": 5}, P.COMPLETED)


def test_a_canary_may_promote_itself_and_one_that_is_not_well_goes_back() -> None:
    stage = Stage.of(5, strategy=RolloutStrategy.CANARY, canary=1, auto_promote=True, progress_deadline_s=60)
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v2": 5}
    stage.broken.add("v3")
    stage.change("v3")
    stage.go_on()
    assert stage.versions() == {"v2": 5, "v3": 1}
    stage.pass_s(60)
    stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v2": 5}, P.COMPLETED)


def test_a_canary_that_stops_being_well_awaits_no_promotion_any_more() -> None:
    stage = Stage.of(3, strategy=RolloutStrategy.CANARY, canary=1, progress_deadline_s=60)
    stage.change("v2")
    stage.go_on()
    (canary,) = [t for t in stage.tasks() if t.active and t.desired.spec.command[-1] == "v2"]
    stage.cluster.report(canary.id, TaskState.RUNNING, ready=False)
    stage.go_on()
    assert stage.notes.phase is P.PROGRESSING
    stage.pass_s(60)
    stage.go_on()
    assert stage.record.rollback_of == 2


def test_blue_and_green_stand_beside_each_other_until_all_new_ones_are_ready() -> None:
    stage = Stage.of(4, strategy=RolloutStrategy.BLUE_GREEN)
    stage.change("v2")
    stage.plan()
    assert stage.versions() == {"v1": 4, "v2": 4}
    stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v1": 4, "v2": 4}, P.AWAITING_PROMOTION)
    stage.promote()
    stage.plan()
    assert stage.versions() == {"v2": 4}, "the old ones end together"
    stage.go_on()
    assert stage.notes.phase is P.COMPLETED


def test_green_that_does_not_become_ready_is_taken_away() -> None:
    stage = Stage.of(4, strategy=RolloutStrategy.BLUE_GREEN, auto_promote=True, progress_deadline_s=60)
    old = {task.id for task in stage.tasks()}
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v1": 4, "v2": 4}
    stage.pass_s(60)
    stage.go_on()
    assert {task.id for task in stage.tasks() if task.active} == old


def test_recreate_goes_back_when_the_new_ones_do_not_come_up() -> None:
    stage = Stage.of(3, strategy=RolloutStrategy.RECREATE, progress_deadline_s=60)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v2": 3}
    stage.pass_s(2)
    assert not stage.go_on().changes  # noted: the old ones are gone
    stage.pass_s(60)
    stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v1": 3}, P.COMPLETED)


def test_old_tasks_that_are_not_ready_do_not_stand_in_the_way() -> None:
    stage = Stage.of(3, max_surge=0, max_unavailable=1)
    first = stage.tasks()[0]
    stage.cluster.report(first.id, TaskState.RUNNING, ready=False)
    stage.change("v2")
    stage.plan()
    assert [task.id for task in stage.tasks() if not task.wanted] == [first.id]
    stage.go_on()
    assert stage.versions() == {"v2": 3}


def test_the_history_is_bounded_and_keeps_what_may_be_put_back() -> None:
    stage = Stage.of(1)
    stage.broken.update(f"v{n}" for n in range(2, 40))
    for number in range(2, 30):
        stage.change(f"v{number}")
        stage.plan()
    assert len(stage.record.history) == HISTORY_MAX
    assert stage.record.history[0] == 1
    held = {int(parts[2]) for parts in stage.cluster.machine.held(Kind.REVISION)}
    assert held == set(stage.record.history)


def test_what_is_kept_goes_with_the_workload() -> None:
    stage = Stage.of(2)
    stage.change("v2")
    stage.go_on()
    stage.cluster.mark_deleted()
    stage.go_on()
    left = list(stage.cluster.machine.keys())
    assert [key for key in left if not key.startswith(keys.NODES)] == []


def test_the_same_specification_again_is_no_change() -> None:
    stage = Stage.of(2)
    record = stage.record
    changed = change_spec(stage.cluster.machine, record, replace(record.spec, rollout=Rollout(max_surge=2)), 5)
    assert (changed.record.task_generation, changed.record.rollout_generation, changed.puts) == (1, 0, ())


def test_notes_that_cannot_be_read_leave_the_workload_as_it_is() -> None:
    stage = Stage.of(2)
    stage.change("v2")
    stage.go_on()
    key = keys.rollout(*REF)
    revision = stage.cluster.machine.revision + 1
    stage.cluster.machine.apply(revision, [build_malformed(key, revision)])
    stage.change("v3")
    plan = plan_workload(stage.cluster.machine, *REF, stage.now_ms, 1, {})
    assert not plan.changes
    assert "cannot be read" in plan.waiting[0]


def test_a_first_version_that_is_changed_before_it_was_ready_for_long_enough_is_what_comes_back() -> None:
    stage = Stage.of(3, min_ready_s=30, progress_deadline_s=60)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    stage.pass_s(61)
    stage.go_on()
    stage.pass_s(31)
    stage.go_on()
    assert (stage.versions(), stage.notes.phase, stage.notes.rollback_of) == ({"v1": 3}, P.COMPLETED, 2)
