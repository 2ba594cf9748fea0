"""One task on each node that fits: nodes come, go, fit no more, and the template changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cloudless.core.model import Placement, Resources, RolloutPhase, RolloutStrategy, TaskState, WorkloadMode
from cloudless.core.orchestration import plan_reap, summarise_workload
from tests.unit.rollouts import REF, Stage


def staged(nodes: int = 3, **fields: Any) -> Stage:
    """Return a stage whose workload runs on every node."""
    stage = Stage.of(0, nodes=nodes, **fields)
    stage.cluster.update_workload(mode=WorkloadMode.PER_NODE, replicas=1)
    stage.go_on()
    return stage


def by_node(stage: Stage) -> Counter[str]:
    return Counter(task.desired.node_id for task in stage.tasks() if task.active)


def test_each_node_has_one_and_a_new_node_gets_one() -> None:
    stage = staged()
    assert by_node(stage) == {"n0": 1, "n1": 1, "n2": 1}
    before = {task.id for task in stage.tasks()}
    stage.cluster.add_node("n3")
    stage.go_on()
    assert by_node(stage)["n3"] == 1
    assert before <= {task.id for task in stage.tasks() if task.active}
    assert len({task.desired.slot for task in stage.tasks()}) == 4
    summary = summarise_workload(stage.cluster.machine, *REF)
    assert (summary.desired, summary.running) == (4, 4)


def test_a_removed_node_loses_its_task_and_is_not_missed() -> None:
    stage = staged()
    stage.cluster.remove_node("n1")
    stage.plan()
    assert by_node(stage) == {"n0": 1, "n2": 1}
    assert summarise_workload(stage.cluster.machine, *REF).desired == 2
    stage.cluster.commit(plan_reap(stage.cluster.machine, stage.now_ms))
    assert "n1" not in {task.desired.node_id for task in stage.tasks()}


def test_an_unreachable_or_cordoned_node_keeps_its_task_and_gets_no_other() -> None:
    stage = staged()
    before = {task.id for task in stage.tasks() if task.active}
    stage.cluster.set_reachable("n1", False)
    stage.cluster.set_node_spec("n2", cordoned=True)
    stage.cluster.add_node("n3", reachable=False)
    stage.go_on()
    assert {task.id for task in stage.tasks() if task.active} == before
    (task,) = [task for task in stage.tasks() if task.desired.node_id == "n2"]
    stage.cluster.report(task.id, TaskState.FAILED, finished_at_ms=stage.now_ms)
    stage.pass_s(100)
    stage.go_on()
    assert by_node(stage) == {"n0": 1, "n1": 1}


def test_a_drained_node_is_emptied_and_has_a_task_again_afterwards() -> None:
    stage = staged()
    stage.cluster.set_node_spec("n1", draining=True, cordoned=True)
    stage.go_on()
    assert by_node(stage) == {"n0": 1, "n2": 1}
    stage.cluster.set_node_spec("n1")
    stage.go_on()
    assert by_node(stage) == {"n0": 1, "n1": 1, "n2": 1}


def test_a_node_that_fits_no_more_loses_its_task() -> None:
    stage = staged()
    stage.cluster.set_node_spec("n0", labels={"disk": "ssd"})
    stage.cluster.update_workload(placement=Placement(node_selector={"disk": "ssd"}))
    stage.go_on()
    assert by_node(stage) == {"n0": 1}


def test_a_node_without_room_is_told_of_and_served_when_there_is_room() -> None:
    stage = staged(nodes=1)
    stage.cluster.add_node("full", capacity=Resources(10, 10))
    plan = stage.go_on()
    ((_, diagnosis),) = plan.unplaced
    assert "full" in diagnosis.text
    assert by_node(stage) == {"n0": 1}


def test_an_update_goes_node_by_node_and_never_has_two_on_one() -> None:
    stage = staged(nodes=4)
    stage.change("v2")
    for _ in range(20):
        stage.plan()
        living = Counter(task.desired.node_id for task in stage.tasks() if not task.ended)
        assert max(living.values()) == 1
        available = sum(1 for t in stage.tasks() if t.active and t.state is TaskState.RUNNING)
        assert available >= 3
        stage.obey()
    assert (stage.versions(), stage.notes.phase) == ({"v2": 4}, RolloutPhase.COMPLETED)


def test_more_may_be_missing_if_so_asked() -> None:
    stage = staged(nodes=4, max_surge=0, max_unavailable_percent=50)
    stage.change("v2")
    stage.plan()
    assert sum(1 for task in stage.tasks() if not task.wanted) == 2


def test_what_never_becomes_ready_is_taken_back_on_its_one_node() -> None:
    stage = staged(nodes=3, progress_deadline_s=60)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v1": 2, "v2": 1}
    stage.pass_s(2)
    stage.go_on()
    stage.pass_s(60)
    stage.go_on()
    assert stage.versions() == {"v1": 3}


def test_a_canary_is_tried_on_some_nodes_only() -> None:
    stage = staged(nodes=4, strategy=RolloutStrategy.CANARY, canary=1)
    stage.change("v2")
    stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v1": 3, "v2": 1}, RolloutPhase.AWAITING_PROMOTION)
    stage.cluster.add_node("n4")
    stage.go_on()
    assert stage.versions() == {"v1": 4, "v2": 1}
    stage.promote()
    stage.go_on()
    assert stage.versions() == {"v2": 5}


def test_recreate_starts_when_all_old_ones_have_ended() -> None:
    stage = staged(nodes=3, strategy=RolloutStrategy.RECREATE)
    stage.change("v2")
    stage.plan()
    assert not [task for task in stage.tasks() if task.wanted]
    stage.go_on()
    assert stage.versions() == {"v2": 3}


def test_going_from_replicas_to_nodes_and_back_leaves_what_may_stay() -> None:
    stage = Stage.of(5, nodes=3)
    stage.cluster.update_workload(mode=WorkloadMode.PER_NODE)
    stage.go_on()
    assert by_node(stage) == {"n0": 1, "n1": 1, "n2": 1}
    stage.cluster.update_workload(mode=WorkloadMode.REPLICATED, replicas=2)
    stage.go_on()
    assert sum(by_node(stage).values()) == 2
