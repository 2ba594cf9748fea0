"""A task is moved to a node that suits it better: which one, when not, and how the move ends whatever happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudless.core import keys
from cloudless.core.model import (
    Desired,
    Placement,
    Reconcile,
    Resources,
    RestartCondition,
    RestartPolicy,
    Rollout,
    RolloutStrategy,
    SchedulerRecord,
    SpreadTopology,
    Taint,
    TaintEffect,
    TaskDesired,
    TaskState,
    Topology,
    Volume,
    WorkloadMode,
    WorkloadTerm,
)
from cloudless.core.orchestration import summarise_workload
from cloudless.core.orchestration.changes import Decider
from cloudless.core.orchestration.rebalance import find_unrest, plan_move
from cloudless.core.orchestration.succession import SUCCESSOR_DEADLINE_S
from cloudless.core.plan import Change
from cloudless.core.scheduling import Scratch
from cloudless.core.state import Task
from cloudless.testing.builders import build_workload
from tests.unit.rollouts import REF, Stage

NODE = Placement(spread_topology=SpreadTopology.NODE)
ZONE = Placement(spread_topology=SpreadTopology.ZONE)


def lopsided(
    replicas: int = 3, placement: Placement = NODE, added: str = "new", zone: str = "z2", **spec: Any
) -> Stage:
    """Return a stage whose tasks run on two nodes of one zone, with a third node that came later and is empty."""
    stage = Stage()
    for node_id in ("n0", "n1"):
        stage.cluster.add_node(node_id, zone="z1", capacity=Resources(20_000, 65_536))
    stage.cluster.add_workload(build_workload(replicas=replicas, placement=placement, **spec))
    stage.go_on()
    stage.cluster.add_node(added, zone=zone, capacity=Resources(20_000, 65_536))
    return stage


def find(stage: Stage) -> Change | None:
    machine = stage.cluster.machine
    return plan_move(machine, [REF], Decider(stage.term, stage.now_ms), {}, Scratch(machine))


def begin(stage: Stage) -> tuple[Task, Task]:
    """Begin the move that is found; return the old task and its successor."""
    change = find(stage)
    assert change is not None
    assert not stage.cluster.commit([change])
    (old,) = [task for task in stage.tasks() if task.active and task.desired.successor_id]
    return old, stage.cluster.machine.tasks[old.desired.successor_id]


def counts(stage: Stage) -> dict[str, int]:
    found: dict[str, int] = {}
    for task in stage.tasks():
        if task.active:
            found[task.desired.node_id] = found.get(task.desired.node_id, 0) + 1
    return found


def active(stage: Stage) -> set[str]:
    return {task.id for task in stage.tasks() if task.active}


# --- which ---


def test_tasks_come_back_to_an_empty_node_one_by_one_until_all_is_even() -> None:
    stage = lopsided(6)
    moves = 0
    while find(stage) is not None:
        before = active(stage)
        old, new = begin(stage)
        assert new.desired.node_id == "new"
        assert new.desired.slot == old.desired.slot
        stage.plan()
        assert active(stage) == before | {new.id}, "the old one stays until the new one is available"
        assert find(stage) is None, "one at a time"
        stage.go_on()
        assert active(stage) == before - {old.id} | {new.id}
        moves += 1
    assert moves == 2
    assert counts(stage) == {"n0": 2, "n1": 2, "new": 2}


def test_the_youngest_task_of_the_fullest_node_goes_and_the_reason_is_said() -> None:
    stage = lopsided(3)
    fullest = max(counts(stage), key=counts(stage).__getitem__)
    there = [task for task in stage.tasks() if task.desired.node_id == fullest]
    change = find(stage)
    assert change is not None
    old, new = begin(stage)
    assert old.id == max(there, key=lambda task: task.desired_create_revision).id
    assert new.desired.reason == f"instead of {old.id}, to spread better: new has 2 tasks of it fewer than {fullest}"
    assert change.reason.endswith(new.desired.reason)
    assert any(f"{old.id} stays until {new.id} runs" in line for line in stage.plan().waiting)


def test_a_difference_of_one_is_no_reason() -> None:
    stage = lopsided(2)
    assert counts(stage) == {"n0": 1, "n1": 1}
    assert find(stage) is None


def test_zones_come_before_nodes() -> None:
    stage = lopsided(3, ZONE)
    old, new = begin(stage)
    assert new.desired.reason.endswith(f"zone z2 has 3 tasks of it fewer than that of {old.desired.node_id}")
    stage.go_on()
    assert find(stage) is None, "two and one is as even as three can be over two zones"
    assert counts(stage) == {"n0": 1, "n1": 1, "new": 1}


def test_within_a_zone_a_node_that_was_added_gets_its_share() -> None:
    stage = lopsided(4, ZONE, zone="z1")
    begin(stage)
    stage.go_on()
    assert find(stage) is None
    assert sorted(counts(stage).values()) == [1, 1, 2]


def test_who_packs_tightly_is_left_where_he_is() -> None:
    stage = lopsided(6, Placement())
    assert find(stage) is None


def test_levelling_moves_to_an_emptier_node_if_the_difference_is_clear() -> None:
    stage = Stage()
    stage.cluster.put(keys.SCHEDULER, SchedulerRecord(pack=0, balance=50))
    stage.cluster.add_node("n0", capacity=Resources(2_000, 2_000))
    stage.cluster.add_workload(build_workload(replicas=6, requests=Resources(200, 200)))
    stage.go_on()
    stage.cluster.add_node("n1", capacity=Resources(2_000, 2_000))
    moves = 0
    while find(stage) is not None:
        begin(stage)
        stage.go_on()
        moves += 1
    assert counts(stage) == {"n0": 4, "n1": 2} or counts(stage) == {"n0": 3, "n1": 3}
    assert moves in (2, 3)


def test_a_node_without_room_or_that_may_not_be_used_gets_nothing() -> None:
    stage = lopsided()
    stage.cluster.set_node_spec("new", cordoned=True)
    assert find(stage) is None
    stage.cluster.set_node_spec("new", taints=(Taint(key="gpu", effect=TaintEffect.NO_SCHEDULE),))
    assert find(stage) is None
    stage.cluster.set_node_spec("new", taints=(Taint(key="old", effect=TaintEffect.PREFER_NO_SCHEDULE),))
    assert find(stage) is None, "not one that is to be avoided either"
    stage.cluster.set_node_spec("new")
    assert find(stage) is not None
    stage.cluster.set_reachable("new", False)
    assert find(stage) is None
    full = lopsided(placement=replace(NODE, zones=("z1",)))
    assert find(full) is None


# --- when not ---


@pytest.mark.parametrize(
    "spec",
    [
        {"restart_policy": RestartPolicy(condition=RestartCondition.ON_FAILURE)},
        {"restart_policy": RestartPolicy(condition=RestartCondition.NEVER)},
        {"stop_after_s": 60.0},
        {"rollout": Rollout(strategy=RolloutStrategy.RECREATE)},
        {"rollout": Rollout(max_surge=0, max_unavailable=1)},
        {"volumes": (Volume(name="data", mount_path="/data", host_path="/srv"),)},
    ],
    ids=["on-failure", "never", "stop-after", "recreate", "no-surge", "volume"],
)
def test_workloads_that_do_not_permit_it_are_left_alone(spec: dict[str, Any]) -> None:
    assert find(lopsided(**spec)) is None


def test_one_task_on_each_node_is_no_spread() -> None:
    stage = lopsided()
    stage.cluster.update_workload(mode=WorkloadMode.PER_NODE, replicas=1)
    assert find(stage) is None


def test_nothing_is_moved_while_a_node_is_drained_or_a_task_ends() -> None:
    stage = lopsided()
    stage.cluster.set_node_spec("n0", draining=True, cordoned=True)
    assert find_unrest(stage.cluster.machine) == "node n0 is being drained"
    assert find(stage) is None
    other = lopsided()
    other.cluster.add_workload(build_workload("other", uid="uid-2", replicas=1))
    machine = other.cluster.machine
    task = other.tasks()[0]
    other.cluster.put(keys.task_desired(task.id), replace(task.desired, desired=Desired.STOPPED))
    assert find_unrest(machine) == f"task {task.id} is ending"
    other.cluster.set_reachable(task.desired.node_id, False)
    assert find_unrest(machine) == "", "whoever waits for a node that is away waits for ever"


def test_a_workload_that_is_not_wholly_available_is_left_alone() -> None:
    stage = lopsided()
    first = stage.tasks()[0]
    stage.cluster.report(first.id, TaskState.RUNNING, ready=False)
    assert find(stage) is None
    stage.cluster.report(first.id, TaskState.RUNNING, ready=True)
    assert find(stage) is not None
    stage.cluster.update_workload(replicas=4)
    assert find(stage) is None


def test_a_rollout_under_way_comes_first() -> None:
    stage = lopsided()
    stage.change("v2")
    assert find(stage) is None
    stage.plan()
    assert find(stage) is None
    stage.go_on()
    stage.cluster.remove_node("new")
    stage.go_on()
    stage.cluster.add_node("newer", capacity=Resources(20_000, 65_536))
    assert find(stage) is not None, "after the rollout it is its turn"


def test_company_that_others_need_stays() -> None:
    stage = lopsided()
    near = Placement(workload_affinity=(WorkloadTerm(workload="web", topology=Topology.NODE),))
    stage.cluster.add_workload(build_workload("guest", uid="uid-2", replicas=0, placement=near))
    assert find(stage) is None
    stage.cluster.add_workload(
        build_workload("guest", uid="uid-2", replicas=0, placement=replace(near, workload_affinity=()))
    )
    assert find(stage) is not None


def test_a_slot_whose_task_has_failed_is_left_where_it_works() -> None:
    stage = lopsided(2, placement=replace(NODE, zones=("z1",)))
    stage.cluster.remove_node("n1")
    stage.go_on()
    stage.cluster.add_node("n1", zone="z1", capacity=Resources(20_000, 65_536))
    for task in [task for task in stage.tasks() if task.active]:
        stage.cluster.report(task.id, TaskState.FAILED, finished_at_ms=stage.now_ms, exit_code=1)
        stage.pass_s(100)
        stage.cluster.set_node_spec("n1", cordoned=True)
        stage.go_on()
    stage.cluster.set_node_spec("n1")
    assert counts(stage) == {"n0": 2}
    assert find(stage) is None


# --- how it ends ---


def test_a_successor_that_fails_leaves_all_as_it_was_and_is_not_tried_again() -> None:
    stage = lopsided()
    before = active(stage)
    _, new = begin(stage)
    stage.cluster.report(new.id, TaskState.FAILED, finished_at_ms=stage.now_ms, exit_code=1)
    stage.go_on()
    assert active(stage) == before
    stage.pass_s(3600)
    stage.go_on()
    assert find(stage) is None
    summary = summarise_workload(stage.cluster.machine, *REF)
    assert (summary.running, summary.active) == (3, 3)


def test_a_successor_that_does_not_become_available_in_time_is_given_up() -> None:
    stage = lopsided(rollout=Rollout(progress_deadline_s=0))
    before = active(stage)
    _, new = begin(stage)
    stage.cluster.report(new.id, TaskState.RUNNING, ready=False)
    plan = stage.plan()
    assert plan.next_deadline_s == SUCCESSOR_DEADLINE_S
    stage.pass_s(SUCCESSOR_DEADLINE_S - 1)
    assert not stage.plan().changes
    assert active(stage) == before | {new.id}
    stage.pass_s(1)
    stage.plan()
    assert active(stage) == before
    assert "was not available in time" in stage.cluster.machine.tasks[new.id].desired.reason
    stage.go_on()
    assert active(stage) == before
    assert find(stage) is None


@pytest.mark.parametrize("ending", ["late", "drained"])
def test_a_successor_that_was_forgotten_gets_no_namesake(ending: str) -> None:
    stage = lopsided()
    old, new = begin(stage)
    if ending == "late":
        stage.pass_s(SUCCESSOR_DEADLINE_S)
    else:
        stage.cluster.set_node_spec("new", draining=True, cordoned=True)
    stage.go_on()
    assert new.id not in active(stage)
    for key in (keys.task_desired(new.id), keys.task_observed(new.id)):
        if stage.cluster.machine.mod_revision(key):
            stage.cluster.delete(key)
    stage.cluster.set_node_spec("new")
    stage.cluster.set_node_spec(old.desired.node_id, draining=True, cordoned=True)
    stage.go_on()
    assert old.id not in active(stage)
    assert len(active(stage)) == 3
    assert new.id not in stage.cluster.machine.tasks


def test_the_deadline_is_the_rollouts_and_a_clock_that_went_back_does_not_prolong_it() -> None:
    stage = lopsided(rollout=Rollout(progress_deadline_s=30))
    before = active(stage)
    _, new = begin(stage)
    stage.cluster.report(new.id, TaskState.RUNNING, ready=False)
    stage.pass_s(-1)
    stage.plan()
    assert active(stage) == before


@pytest.mark.parametrize("drained", ["old", "new"])
def test_a_drain_in_the_middle_leaves_the_other_one(drained: str) -> None:
    stage = lopsided()
    before = active(stage)
    old, new = begin(stage)
    node_id = (old if drained == "old" else new).desired.node_id
    stage.cluster.set_node_spec(node_id, draining=True, cordoned=True)
    stage.go_on()
    kept, gone = (new, old) if drained == "old" else (old, new)
    assert kept.id in active(stage)
    assert gone.id not in active(stage)
    assert len(active(stage)) == len(before) == 3
    stage.cluster.set_node_spec(node_id)
    assert find(stage) is not None, "a drain says nothing against the next try"


@pytest.mark.parametrize("policy", list(Reconcile))
@pytest.mark.parametrize("lost", ["old", "new"])
def test_a_node_lost_in_the_middle_leaves_the_other_one_and_its_return_ends_the_move(
    policy: Reconcile, lost: str
) -> None:
    stage = lopsided(reconcile=policy)
    old, new = begin(stage)
    node_id = (old if lost == "old" else new).desired.node_id
    stage.cluster.set_reachable(node_id, False, stage.now_ms)
    stage.plan()
    for task in stage.tasks():
        if task.active and task.state is None and task.desired.node_id != node_id:
            stage.cluster.report(task.id, TaskState.RUNNING, started_at_ms=stage.now_ms)
    stage.plan()
    serving = {t.desired.slot for t in stage.tasks() if t.active and t.desired.node_id != node_id}
    assert serving == {0, 1, 2}
    stage.cluster.set_reachable(node_id, True, stage.now_ms)
    stage.pass_s(10)
    stage.go_on()
    assert len(active(stage)) == 3
    assert (new if lost == "old" else old).id in active(stage) or policy is not Reconcile.KEEP_REPLACEMENT


def test_scaling_down_and_deleting_in_the_middle_leave_nothing_behind() -> None:
    stage = lopsided()
    begin(stage)
    stage.cluster.update_workload(replicas=1)
    stage.go_on()
    assert len(active(stage)) == 1
    stage = lopsided()
    begin(stage)
    stage.cluster.mark_deleted()
    for _ in range(4):
        assert not stage.cluster.commit(stage.decide().changes)
        stage.obey()
    assert not stage.cluster.machine.tasks


def test_a_new_template_in_the_middle_replaces_both() -> None:
    stage = lopsided()
    begin(stage)
    stage.change("v2")
    stage.go_on()
    assert stage.versions() == {"v2": 3}


def test_the_next_leader_goes_on_with_a_move() -> None:
    stage = lopsided()
    old, new = begin(stage)
    stage.term += 1
    stage.plan()
    assert {old.id, new.id} <= active(stage)
    stage.go_on()
    assert old.id not in active(stage)


def test_a_move_from_an_older_view_is_refused() -> None:
    stage = lopsided()
    change = find(stage)
    assert change is not None
    (marked,) = [put.record for put in change.puts if isinstance(put.record, TaskDesired) and put.record.successor_id]
    stage.cluster.put(keys.task_desired(marked.id), replace(marked, successor_id="", desired=Desired.STOPPED))
    assert stage.cluster.commit([change]) == [change]


def test_another_workloads_empty_slot_is_filled_beside_a_move() -> None:
    stage = lopsided(4)
    begin(stage)
    other = next(task for task in stage.tasks() if task.active and not task.desired.successor_id and task.state)
    stage.cluster.report(other.id, TaskState.FAILED, finished_at_ms=stage.now_ms, exit_code=1)
    stage.pass_s(2)
    stage.plan()
    assert len(active(stage)) == 5, "four slots, one of them with two"
