"""A node returns whose task was replaced: who stays is what the workload says."""

from __future__ import annotations

import pytest

from cloudless.core.model import Reconcile, TaskState
from cloudless.core.orchestration import plan_workload
from cloudless.core.orchestration.reconcile import SETTLE_S
from cloudless.core.state import Task
from tests.unit.rollouts import REF, Stage

AWAY_S = 100.0


def lose_a_node(policy: Reconcile) -> tuple[Stage, Task, Task]:
    """Return a stage whose task was replaced because its node is away, the original and its replacement."""
    stage = Stage.of(1, nodes=3)
    stage.cluster.update_workload(reconcile=policy, lost_after_s=10.0)
    (original,) = stage.tasks()
    stage.cluster.set_reachable(original.desired.node_id, False, stage.now_ms)
    stage.pass_s(AWAY_S)
    away = {original.desired.node_id: AWAY_S}
    plan = plan_workload(stage.cluster.machine, *REF, stage.now_ms, 1, away)
    assert not stage.cluster.commit(plan.changes)
    (replacement,) = [task for task in stage.tasks() if task.id != original.id]
    stage.cluster.report(replacement.id, TaskState.RUNNING, started_at_ms=stage.now_ms)
    plan = plan_workload(stage.cluster.machine, *REF, stage.now_ms, 1, away)
    assert not plan.changes, "as long as it is away nothing more is done"
    return stage, original, replacement


def come_back(stage: Stage, original: Task) -> None:
    stage.cluster.set_reachable(original.desired.node_id, True, stage.now_ms)


def kept(stage: Stage) -> set[str]:
    return {task.id for task in stage.tasks() if task.active}


def test_the_replacement_stays_unless_otherwise_asked() -> None:
    stage, original, replacement = lose_a_node(Reconcile.KEEP_REPLACEMENT)
    assert kept(stage) == {replacement.id}
    come_back(stage, original)
    stage.go_on()
    assert kept(stage) == {replacement.id}


@pytest.mark.parametrize("policy", [Reconcile.KEEP_ORIGINAL, Reconcile.BEST])
def test_nothing_is_decided_before_the_agent_that_returned_could_report(policy: Reconcile) -> None:
    stage, original, replacement = lose_a_node(policy)
    come_back(stage, original)
    plan = stage.plan()
    assert kept(stage) == {original.id, replacement.id}
    assert plan.next_deadline_s == SETTLE_S


def test_the_original_wins_if_it_still_runs() -> None:
    stage, original, _ = lose_a_node(Reconcile.KEEP_ORIGINAL)
    come_back(stage, original)
    stage.pass_s(SETTLE_S)
    stage.go_on()
    assert kept(stage) == {original.id}


@pytest.mark.parametrize("policy", [Reconcile.KEEP_ORIGINAL, Reconcile.BEST])
def test_an_original_that_did_not_survive_does_not_cost_the_replacement(policy: Reconcile) -> None:
    stage, original, replacement = lose_a_node(policy)
    come_back(stage, original)
    stage.cluster.report(original.id, TaskState.FAILED, finished_at_ms=stage.now_ms)
    stage.pass_s(SETTLE_S)
    stage.go_on()
    assert kept(stage) == {replacement.id}


def test_an_original_that_is_not_ready_does_not_win() -> None:
    stage, original, replacement = lose_a_node(Reconcile.KEEP_ORIGINAL)
    come_back(stage, original)
    stage.cluster.report(original.id, TaskState.RUNNING, ready=False)
    stage.pass_s(SETTLE_S)
    stage.go_on()
    assert kept(stage) == {replacement.id}


def test_the_best_is_on_the_node_that_is_open() -> None:
    for closed_is_original in (True, False):
        stage, original, replacement = lose_a_node(Reconcile.BEST)
        closed, other = (original, replacement) if closed_is_original else (replacement, original)
        stage.cluster.set_node_spec(closed.desired.node_id, cordoned=True)
        come_back(stage, original)
        stage.pass_s(SETTLE_S)
        stage.go_on()
        assert kept(stage) == {other.id}


def test_an_original_of_an_older_template_is_given_up() -> None:
    stage, original, _ = lose_a_node(Reconcile.KEEP_ORIGINAL)
    stage.change("v2")
    come_back(stage, original)
    stage.pass_s(SETTLE_S)
    stage.go_on()
    assert stage.versions() == {"v2": 1}


def test_an_original_whose_node_was_removed_is_given_up() -> None:
    stage, original, replacement = lose_a_node(Reconcile.KEEP_ORIGINAL)
    stage.cluster.remove_node(original.desired.node_id)
    stage.go_on()
    assert kept(stage) == {replacement.id}
