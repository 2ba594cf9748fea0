"""Emptying a node: replacements first, then as far as enough stay available, at last because the time is over."""

from __future__ import annotations

from cloudless.core.model import Resources, TaskState
from tests.unit.rollouts import Stage

ONE_TASK = Resources(150, 100)
"""Room for one task of 100 millicores and 64 MB."""


def full_stage(replicas: int, spare_nodes: int = 0, **rollout: object) -> Stage:
    """Return a stage where each task fills a node of its own, n0 first, and `spare_nodes` are empty."""
    stage = Stage()
    for number in range(replicas + spare_nodes):
        stage.cluster.add_node(f"n{number}", capacity=ONE_TASK)
    made = Stage.of(replicas, nodes=0, **rollout)
    stage.cluster.add_workload(made.record)
    stage.go_on()
    return stage


def drain(stage: Stage, node_id: str, within_s: float = 0.0) -> None:
    until_ms = stage.now_ms + int(within_s * 1000) if within_s else 0
    stage.cluster.set_node_spec(node_id, draining=True, cordoned=True, drain_until_ms=until_ms)


def nodes_of(stage: Stage) -> set[str]:
    return {task.desired.node_id for task in stage.tasks() if task.active}


def a_used_node(stage: Stage) -> str:
    return min(nodes_of(stage))


def test_where_there_is_room_the_replacement_comes_first_and_has_to_be_ready() -> None:
    stage = full_stage(3, spare_nodes=1)
    node = a_used_node(stage)
    drain(stage, node)
    stage.plan()
    assert len(nodes_of(stage)) == 4
    (new,) = [task for task in stage.tasks() if task.state is None]
    stage.cluster.report(new.id, TaskState.RUNNING, ready=False)
    assert any("stays until" in line for line in stage.plan().waiting)
    assert node in nodes_of(stage)
    stage.cluster.report(new.id, TaskState.RUNNING, ready=True)
    stage.go_on()
    assert node not in nodes_of(stage)


def test_without_room_nothing_goes_that_has_to_stay_available() -> None:
    stage = full_stage(3)
    node = a_used_node(stage)
    drain(stage, node)
    plan = stage.go_on()
    assert node in nodes_of(stage)
    assert any("until there is room elsewhere" in line for line in plan.waiting)


def test_without_room_as_many_go_as_may_be_missing() -> None:
    stage = full_stage(4, max_unavailable=1)
    first, second = sorted(nodes_of(stage))[:2]
    drain(stage, first)
    drain(stage, second)
    stage.go_on()
    assert len(nodes_of(stage)) == 3
    assert len({first, second} & nodes_of(stage)) == 1
    stage.cluster.add_node("more", capacity=ONE_TASK)
    stage.cluster.add_node("still-more", capacity=ONE_TASK)
    stage.go_on()
    assert len(nodes_of(stage)) == 4
    assert not {first, second} & nodes_of(stage)


def test_what_does_its_work_no_more_is_not_kept_for_it() -> None:
    stage = full_stage(3)
    node = a_used_node(stage)
    (task,) = [task for task in stage.tasks() if task.desired.node_id == node]
    stage.cluster.report(task.id, TaskState.RUNNING, ready=False)
    drain(stage, node)
    stage.go_on()
    assert node not in nodes_of(stage)


def test_when_the_time_is_over_the_node_is_emptied_come_what_may() -> None:
    stage = full_stage(3)
    node = a_used_node(stage)
    drain(stage, node, within_s=60)
    assert stage.go_on().next_deadline_s == 60
    stage.pass_s(59)
    stage.go_on()
    assert node in nodes_of(stage)
    stage.pass_s(1)
    stage.go_on()
    assert node not in nodes_of(stage)
    (stopped,) = [task for task in stage.tasks() if not task.wanted]
    assert "deadline of its drain" in stopped.desired.reason


def test_a_drain_that_is_ended_stops_nothing_more() -> None:
    stage = full_stage(3)
    node = a_used_node(stage)
    drain(stage, node, within_s=60)
    stage.go_on()
    stage.cluster.set_node_spec(node)
    stage.pass_s(100)
    stage.go_on()
    assert len(nodes_of(stage)) == 3


def test_a_drain_during_a_rollout_harms_neither() -> None:
    stage = Stage.of(4, nodes=4)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    drain(stage, a_used_node(stage))
    for _ in range(2):
        stage.pass_s(600)
        stage.go_on()
    assert stage.record.rollback_of == 2
    assert not {"n0", "n1", "n2", "n3"} <= nodes_of(stage)
    assert stage.versions() == {"v1": 4}
    available = [t for t in stage.tasks() if t.active and t.observed is not None and t.observed.ready]
    assert len(available) >= 4
