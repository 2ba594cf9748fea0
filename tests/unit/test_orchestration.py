"""What the planners decide, case by case: one view in, a plan out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cloudless.core import keys
from cloudless.core.model import (
    NodePhase,
    NodeStatus,
    Reachability,
    Resources,
    RestartCondition,
    RestartPolicy,
    Rollout,
    RolloutStrategy,
    TaskObserved,
    TaskState,
)
from cloudless.core.orchestration import (
    WorkloadPlan,
    WorkloadState,
    explain_workload,
    find_phase,
    plan_liveness,
    plan_reap,
    plan_workload,
    plan_workloads,
    summarise_node,
    summarise_workload,
    task_state_word,
)
from cloudless.core.state import Task
from cloudless.errors import NotFound
from cloudless.testing.builders import TestCluster, build_malformed, build_workload

REF = ("default", "web")
NOW_MS = 1_000_000


def cluster_of(nodes: int = 3, **spec: Any) -> TestCluster:
    cluster = TestCluster()
    for n in range(nodes):
        cluster.add_node(f"n{n}")
    cluster.add_workload(build_workload(**spec))
    return cluster


def decide(
    cluster: TestCluster, now_ms: int = NOW_MS, unreachable_s: Mapping[str, float] | None = None
) -> WorkloadPlan:
    return plan_workload(cluster.machine, *REF, now_ms, 7, unreachable_s or {})


def carry_out(
    cluster: TestCluster, now_ms: int = NOW_MS, unreachable_s: Mapping[str, float] | None = None
) -> WorkloadPlan:
    """Do what the planner wants, after what it wants noted of a rollout; return the plan for tasks."""
    for _ in range(3):
        plan = decide(cluster, now_ms, unreachable_s)
        assert not cluster.commit(plan.changes)
        if words(plan) != ["rollout"]:
            return plan
    raise AssertionError("notes follow on notes")


def obey(cluster: TestCluster) -> None:
    """Let every agent do what is wanted of its tasks."""
    for task in list(cluster.machine.tasks.values()):
        if not task.ended and cluster.machine.nodes[task.desired.node_id].reachable:
            cluster.report(task.id, TaskState.RUNNING if task.wanted else TaskState.STOPPED)


def running_cluster(nodes: int = 3, **spec: Any) -> TestCluster:
    cluster = cluster_of(nodes, **spec)
    carry_out(cluster)
    obey(cluster)
    return cluster


def active(cluster: TestCluster) -> list[Task]:
    return sorted((t for t in cluster.machine.tasks.values() if t.active), key=lambda t: t.desired.slot)


def words(plan: WorkloadPlan) -> list[str]:
    return [change.reason.split()[0] for change in plan.changes]


# --- filling slots ---


def test_missing_slots_are_filled_from_the_lowest() -> None:
    cluster = cluster_of(replicas=3)
    carry_out(cluster)
    assert [task.desired.slot for task in active(cluster)] == [0, 1, 2]
    assert {task.desired.term for task in active(cluster)} == {7}
    assert not decide(cluster).changes


def test_a_decision_repeated_from_another_view_gives_the_same_ids_so_that_the_store_refuses_it() -> None:
    cluster = cluster_of(replicas=2)
    first, again = decide(cluster), decide(cluster)
    cluster.add_node("later")
    assert first == again
    assert created_keys(decide(cluster)) == created_keys(first)


def test_what_fills_a_slot_after_an_earlier_task_has_another_id() -> None:
    cluster = cluster_of(replicas=1)
    first = created_keys(decide(cluster))
    carry_out(cluster)
    (task,) = active(cluster)
    cluster.report(task.id, TaskState.FAILED, exit_code=1)
    later = created_keys(decide(cluster, now_ms=10**9))
    assert later
    assert later.isdisjoint(first)


def created_keys(plan: WorkloadPlan) -> set[str]:
    return {put.key for change in plan.changes for put in change.puts}


def test_a_plan_made_before_the_workload_changed_is_refused() -> None:
    cluster = cluster_of(replicas=2)
    plan = decide(cluster)
    cluster.update_workload(replicas=1)
    assert len(cluster.commit(plan.changes)) == 2


def test_scaling_down_stops_what_does_not_run_first() -> None:
    cluster = cluster_of(replicas=3)
    carry_out(cluster)
    first, _, last = active(cluster)
    for task in (first, last):
        cluster.report(task.id, TaskState.RUNNING)
    cluster.update_workload(replicas=2)
    carry_out(cluster)
    assert [task.desired.slot for task in active(cluster)] == [0, 2]
    cluster.update_workload(replicas=1)
    carry_out(cluster)
    assert [task.desired.slot for task in active(cluster)] == [0]


def test_scaling_up_again_fills_the_gap() -> None:
    cluster = running_cluster(replicas=3)
    middle = active(cluster)[1]
    cluster.report(middle.id, TaskState.FAILED, finished_at_ms=NOW_MS)
    cluster.update_workload(replicas=2)
    carry_out(cluster)
    assert [task.desired.slot for task in active(cluster)] == [0, 2]
    cluster.update_workload(replicas=3)
    carry_out(cluster, NOW_MS + 60_000)
    assert [task.desired.slot for task in active(cluster)] == [0, 1, 2]


def test_what_does_not_fit_is_named_with_its_reason() -> None:
    cluster = TestCluster()
    cluster.add_node("n0", capacity=Resources(200, 4096))
    cluster.add_workload(build_workload(replicas=3))
    plan = carry_out(cluster)
    ((slot, diagnosis),) = plan.unplaced
    assert slot == 2
    assert diagnosis.text == "0 of 1 node fits: 1 lacks cpu (asks 100m, at most 0m free)"


def test_workloads_planned_together_do_not_take_each_others_room() -> None:
    cluster = TestCluster()
    cluster.add_node("n0", capacity=Resources(100, 4096))
    cluster.add_workload(build_workload("a"))
    cluster.add_workload(build_workload("b"))
    plan = plan_workloads(cluster.machine, [("default", "a"), ("default", "b"), ("default", "a")], NOW_MS, 1, {})
    assert len(plan.plan.changes) == 1
    assert plan.workloads[1].unplaced
    assert plan.plan.revision == cluster.machine.revision


# --- tasks that end by themselves ---


@pytest.mark.parametrize(
    ("condition", "max_retries", "end", "restarts", "again"),
    [
        (RestartCondition.ALWAYS, 0, TaskState.FAILED, 0, True),
        (RestartCondition.ALWAYS, 0, TaskState.COMPLETED, 0, True),
        (RestartCondition.ALWAYS, 3, TaskState.FAILED, 3, True),
        (RestartCondition.ON_FAILURE, 0, TaskState.FAILED, 9, True),
        (RestartCondition.ON_FAILURE, 0, TaskState.COMPLETED, 0, False),
        (RestartCondition.ON_FAILURE, 3, TaskState.FAILED, 3, False),
        (RestartCondition.ON_FAILURE, 3, TaskState.FAILED, 0, True),
        (RestartCondition.NEVER, 0, TaskState.FAILED, 0, False),
        (RestartCondition.NEVER, 0, TaskState.COMPLETED, 0, False),
    ],
)
def test_an_ended_task_is_replaced_as_its_policy_says(
    condition: RestartCondition, max_retries: int, end: TaskState, restarts: int, again: bool
) -> None:
    policy = RestartPolicy(condition=condition, max_retries=max_retries)
    cluster = running_cluster(replicas=1, restart_policy=policy)
    (task,) = active(cluster)
    cluster.report(task.id, end, finished_at_ms=NOW_MS, restarts=restarts)
    at_once = decide(cluster)
    assert not at_once.changes
    assert at_once.next_deadline_s == (1.0 if again else None)
    later = carry_out(cluster, NOW_MS + 1001)
    assert words(later) == (["start"] if again else [])


def test_the_back_off_doubles_is_explained_and_ends_after_a_stable_minute() -> None:
    cluster = running_cluster(replicas=1)
    now_ms, delays = NOW_MS, []
    for _ in range(8):
        (task,) = active(cluster)
        cluster.report(task.id, TaskState.FAILED, started_at_ms=now_ms, finished_at_ms=now_ms, exit_code=3)
        plan = decide(cluster, now_ms)
        delays.append(plan.next_deadline_s)
        assert "exit code 3" in plan.waiting[0]
        now_ms += int((plan.next_deadline_s or 0) * 1000)
        assert words(carry_out(cluster, now_ms)) == ["start"]
        cluster.commit(plan_reap(cluster.machine, now_ms))
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    (task,) = active(cluster)
    cluster.report(task.id, TaskState.FAILED, started_at_ms=now_ms, finished_at_ms=now_ms + 60_000)
    assert decide(cluster, now_ms + 60_000).next_deadline_s == 1.0


@pytest.mark.parametrize("skew_ms", [-86_400_000, 86_400_000])
def test_a_wrong_clock_neither_blocks_a_slot_nor_lets_it_spin(skew_ms: int) -> None:
    cluster = running_cluster(replicas=1)
    (task,) = active(cluster)
    cluster.report(task.id, TaskState.FAILED, finished_at_ms=NOW_MS + skew_ms)
    assert not decide(cluster, NOW_MS).changes
    assert words(decide(cluster, NOW_MS + 1001)) == ["start"]


def test_a_failed_task_is_tried_on_another_node_if_there_is_one() -> None:
    cluster = running_cluster(nodes=2, replicas=1)
    (task,) = active(cluster)
    cluster.report(task.id, TaskState.FAILED, finished_at_ms=NOW_MS)
    carry_out(cluster, NOW_MS + 2000)
    assert active(cluster)[0].desired.node_id != task.desired.node_id


# --- nodes that go away ---


def test_a_task_of_a_silent_node_is_replaced_after_lost_after_and_stopped_in_the_same_plan() -> None:
    cluster = running_cluster(replicas=1, lost_after_s=30.0)
    (task,) = active(cluster)
    node_id = task.desired.node_id
    cluster.set_reachable(node_id, False)
    waiting = decide(cluster, unreachable_s={node_id: 10.0})
    assert not waiting.changes
    assert waiting.next_deadline_s == 20.0
    plan = carry_out(cluster, unreachable_s={node_id: 30.0})
    assert sorted(words(plan)) == ["start", "stop"]
    assert cluster.machine.tasks[task.id].desired.reason == f"node {node_id} unreachable for 30 s"
    assert not decide(cluster, unreachable_s={node_id: 31.0}).changes
    cluster.set_reachable(node_id, True)
    assert not decide(cluster).changes


def test_a_lost_task_stays_wanted_while_no_other_node_fits() -> None:
    cluster = running_cluster(nodes=1, replicas=1)
    cluster.set_reachable("n0", False)
    plan = decide(cluster, unreachable_s={"n0": 100.0})
    assert not plan.changes
    assert plan.unplaced[0][1].text == "0 of 1 node fits: 1 is offline"
    assert "stays wanted on node n0" in plan.waiting[0]
    cluster.set_reachable("n0", True)
    assert not decide(cluster).changes
    assert summarise_workload(cluster.machine, *REF).state is WorkloadState.RUNNING


def test_a_removed_nodes_tasks_are_lost_at_once() -> None:
    cluster = running_cluster(nodes=2, replicas=1, lost_after_s=1000.0)
    (task,) = active(cluster)
    cluster.remove_node(task.desired.node_id)
    assert sorted(words(carry_out(cluster))) == ["start", "stop"]
    assert [change.deletes[0] for change in plan_reap(cluster.machine, NOW_MS)] == [keys.task_desired(task.id)]


def test_a_node_whose_record_cannot_be_read_is_not_taken_for_removed() -> None:
    cluster = running_cluster(nodes=2, replicas=1, lost_after_s=1000.0)
    (task,) = active(cluster)
    key = keys.node_info(task.desired.node_id)
    revision = cluster.machine.revision + 1
    cluster.machine.apply(revision, [build_malformed(key, revision)])
    assert not decide(cluster).changes


def test_a_draining_node_keeps_its_task_until_the_replacement_runs() -> None:
    cluster = running_cluster(nodes=2, replicas=1)
    (old,) = active(cluster)
    cluster.set_node_spec(old.desired.node_id, draining=True)
    assert words(carry_out(cluster)) == ["start"]
    assert decide(cluster).waiting[0].startswith(f"task {old.id} stays until")
    (new,) = [task for task in active(cluster) if task.id != old.id]
    cluster.report(new.id, TaskState.RUNNING)
    assert words(carry_out(cluster)) == ["stop"]
    assert [task.id for task in active(cluster)] == [new.id]


def test_the_stop_after_a_move_is_refused_if_the_replacement_failed_meanwhile() -> None:
    cluster = running_cluster(nodes=2, replicas=1)
    (old,) = active(cluster)
    cluster.set_node_spec(old.desired.node_id, draining=True)
    carry_out(cluster)
    (new,) = [task for task in active(cluster) if task.id != old.id]
    cluster.report(new.id, TaskState.RUNNING)
    plan = decide(cluster)
    cluster.report(new.id, TaskState.FAILED, finished_at_ms=NOW_MS)
    assert len(cluster.commit(plan.changes)) == 1
    assert cluster.machine.tasks[old.id].active


# --- updates ---


def test_a_rolling_update_starts_the_new_task_before_it_stops_the_old() -> None:
    cluster = running_cluster(replicas=3)
    cluster.update_workload(command=("new",))
    history = []
    for _ in range(12):
        plan = carry_out(cluster)
        history += words(plan)
        running = sum(1 for task in active(cluster) if task.state is TaskState.RUNNING)
        assert running >= 3
        assert sum(1 for task in cluster.machine.tasks.values() if not task.ended) <= 4
        obey(cluster)
    assert history == ["start", "stop"] * 3
    assert {task.desired.task_generation for task in active(cluster)} == {2}


def test_a_rolling_update_without_surge_stops_first_within_max_unavailable() -> None:
    cluster = running_cluster(replicas=3, rollout=Rollout(max_surge=0, max_unavailable=1))
    cluster.update_workload(command=("new",))
    history = []
    for _ in range(12):
        history += words(carry_out(cluster))
        assert sum(1 for task in cluster.machine.tasks.values() if not task.ended) <= 3
        obey(cluster)
    assert history == ["stop", "start"] * 3


def test_a_rolling_update_stops_at_once_what_min_available_leaves_to_spare() -> None:
    cluster = running_cluster(replicas=4, rollout=Rollout(max_surge=0, min_available_percent=50))
    cluster.update_workload(command=("new",))
    assert words(carry_out(cluster)) == ["stop"] * 2


def test_a_rolling_update_adds_as_many_as_the_percentage_of_surge_gives() -> None:
    cluster = running_cluster(replicas=4, rollout=Rollout(max_surge=0, max_surge_percent=30))
    cluster.update_workload(command=("new",))
    assert words(carry_out(cluster)) == ["start"] * 2


def test_a_template_that_fails_does_not_spread() -> None:
    cluster = running_cluster(replicas=3)
    cluster.update_workload(command=("broken",))
    now_ms = NOW_MS
    for _ in range(20):
        carry_out(cluster, now_ms)
        for task in active(cluster):
            if task.desired.task_generation == 2:
                cluster.report(task.id, TaskState.FAILED, finished_at_ms=now_ms)
        now_ms += 3000
    old = [task for task in active(cluster) if task.state is TaskState.RUNNING]
    assert len(old) == 3
    assert {t.desired.slot for t in cluster.machine.tasks.values() if t.desired.task_generation == 2} == {0}
    cluster.update_workload(command=("mended",))
    for _ in range(12):
        carry_out(cluster, now_ms)
        obey(cluster)
    assert [task.desired.task_generation for task in active(cluster)] == [3, 3, 3]


def test_an_update_during_an_update_keeps_the_task_that_runs_and_stops_the_half_started_one() -> None:
    cluster = running_cluster(replicas=1)
    (old,) = active(cluster)
    cluster.update_workload(command=("second",))
    carry_out(cluster)
    (half,) = [task for task in active(cluster) if task.id != old.id]
    cluster.update_workload(command=("third",))
    assert words(carry_out(cluster)) == ["stop"]
    assert [task.id for task in active(cluster)] == [old.id]
    cluster.report(half.id, TaskState.STOPPED)
    assert words(carry_out(cluster)) == ["start"]


def test_recreate_starts_nothing_before_all_old_tasks_have_ended() -> None:
    cluster = running_cluster(replicas=2, rollout=Rollout(strategy=RolloutStrategy.RECREATE))
    old = active(cluster)
    cluster.update_workload(command=("new",))
    assert words(carry_out(cluster)) == ["stop", "stop"]
    cluster.report(old[0].id, TaskState.STOPPED)
    waiting = decide(cluster)
    assert not waiting.changes
    assert waiting.waiting == ("new tasks start when all old ones have ended; 1 have not",)
    cluster.report(old[1].id, TaskState.STOPPED)
    assert words(carry_out(cluster)) == ["start", "start"]


def test_scaling_does_not_restart_anything() -> None:
    cluster = running_cluster(replicas=2)
    cluster.update_workload(replicas=3)
    assert words(carry_out(cluster)) == ["start"]


# --- the end of a workload ---


def test_a_deleted_workload_goes_when_its_tasks_have_ended() -> None:
    cluster = running_cluster(replicas=2)
    cluster.mark_deleted()
    assert words(carry_out(cluster)) == ["stop", "stop"]
    assert summarise_workload(cluster.machine, *REF).state is WorkloadState.DELETING
    assert len(decide(cluster).waiting) == 2
    obey(cluster)
    assert words(carry_out(cluster)) == ["forget", "forget"]
    assert words(carry_out(cluster)) == ["remove"]
    assert not cluster.machine.workloads
    assert not cluster.machine.tasks


def test_tasks_of_an_earlier_workload_of_the_name_are_stopped_and_forgotten() -> None:
    cluster = running_cluster(replicas=1)
    (old,) = active(cluster)
    cluster.add_workload(build_workload(replicas=1, uid="uid-2"))
    assert sorted(words(carry_out(cluster))) == ["start", "stop"]
    obey(cluster)
    assert [c.reason for c in plan_reap(cluster.machine, NOW_MS)] == [
        f"forget {old.id}: it belongs to an earlier workload of this name"
    ]


def test_left_over_tasks_of_a_removed_workload_are_stopped_unless_its_record_is_unreadable() -> None:
    cluster = running_cluster(replicas=1)
    key = keys.workload(*REF)
    revision = cluster.machine.revision + 1
    cluster.machine.apply(revision, [build_malformed(key, revision)])
    assert not decide(cluster).changes
    assert not plan_reap(cluster.machine, NOW_MS)
    cluster.delete(key)
    assert words(carry_out(cluster)) == ["stop"]


# --- reaping ---


def test_a_slot_that_is_filled_again_never_gets_the_id_of_a_task_that_was_forgotten() -> None:
    cluster = running_cluster(nodes=1, replicas=2, rollout=Rollout(max_unavailable=2))
    seen: set[str] = set()
    for _ in range(4):
        ids = {task.id for task in active(cluster)}
        assert len(ids) == 2
        assert not ids & seen, "an agent may remember that one as ended"
        seen |= ids
        cluster.set_node_spec("n0", draining=True)
        carry_out(cluster)
        obey(cluster)
        cluster.commit(plan_reap(cluster.machine, NOW_MS, keep_per_workload=0))
        cluster.set_node_spec("n0")
        carry_out(cluster)
        for task in active(cluster):
            cluster.report(task.id, TaskState.RUNNING)


def test_the_newest_few_ended_tasks_are_kept_for_people() -> None:
    cluster = running_cluster(replicas=8)
    cluster.update_workload(replicas=0)
    carry_out(cluster)
    obey(cluster)
    assert len(plan_reap(cluster.machine, NOW_MS, keep_per_workload=5)) == 3
    assert not cluster.commit(plan_reap(cluster.machine, NOW_MS, keep_per_workload=5))
    assert not plan_reap(cluster.machine, NOW_MS, keep_per_workload=5)


def test_a_task_that_still_runs_is_never_forgotten() -> None:
    cluster = running_cluster(replicas=2)
    cluster.update_workload(replicas=0)
    carry_out(cluster)
    assert not plan_reap(cluster.machine, NOW_MS, keep_per_workload=0)


def test_a_report_without_a_task_is_deleted() -> None:
    cluster = cluster_of(replicas=0)
    cluster.put(
        keys.task_observed("ghost-1"),
        TaskObserved(task_id="ghost-1", node_id="n0", sequence=1, state=TaskState.RUNNING),
    )
    (change,) = plan_reap(cluster.machine, NOW_MS)
    assert change.deletes == (keys.task_observed("ghost-1"),)


# --- liveness ---


def test_a_change_of_reachability_keeps_what_else_is_known_of_a_node() -> None:
    cluster = TestCluster()
    cluster.add_node("n0")
    cluster.put(keys.node_status("n0"), NodeStatus(reachability=Reachability.REACHABLE, reliability=0.5))
    cluster.commit(plan_liveness(cluster.machine, {"n0": 9.0}, NOW_MS, 1, 3.0).changes)
    status = cluster.machine.nodes["n0"].status
    assert status is not None
    assert (status.reachability, status.reliability) == (Reachability.UNREACHABLE, 0.5)


def statuses(cluster: TestCluster, silent_s: Mapping[str, float], listening_s: float = 0.0) -> dict[str, Reachability]:
    changes, _ = plan_liveness(cluster.machine, silent_s, NOW_MS, 1, 3.0, listening_s)
    cluster.commit(changes)
    return {node_id: n.status.reachability for node_id, n in cluster.machine.nodes.items() if n.status is not None}


def test_only_changes_of_reachability_are_written() -> None:
    cluster = cluster_of(nodes=2, replicas=0)
    changes, deadline_s = plan_liveness(cluster.machine, {"n0": 1.0, "n1": 2.9}, NOW_MS, 1, 3.0)
    assert not changes
    assert deadline_s == pytest.approx(0.1)
    assert statuses(cluster, {"n0": 1.0, "n1": 3.0}) == {"n0": Reachability.REACHABLE, "n1": Reachability.UNREACHABLE}
    assert statuses(cluster, {"n0": 1.0, "n1": 0.0})["n1"] is Reachability.REACHABLE


def test_a_new_leader_changes_nothing_until_it_has_listened_for_a_timeout() -> None:
    cluster = cluster_of(nodes=2, replicas=0)
    cluster.set_reachable("n1", False)
    before = {"n0": Reachability.REACHABLE, "n1": Reachability.UNREACHABLE}
    assert statuses(cluster, {}) == before
    assert statuses(cluster, {}, listening_s=2.9) == before
    assert statuses(cluster, {}, listening_s=3.0)["n0"] is Reachability.UNREACHABLE


# --- words ---


def test_a_nodes_summary_counts_what_its_tasks_hold() -> None:
    cluster = running_cluster(nodes=1, replicas=2)
    summary = summarise_node(cluster.machine, "n0")
    assert (summary.phase, summary.live_tasks) == (NodePhase.READY, 2)
    assert summary.reserved == Resources(200, 128)
    assert summary.free.cpu_millicores == 3800
    with pytest.raises(NotFound):
        summarise_node(cluster.machine, "n9")


@pytest.mark.parametrize("spec", [{}, {"cordoned": True}, {"cordoned": True, "draining": True}], ids=str)
@pytest.mark.parametrize("replicas", [0, 2])
def test_a_nodes_phase_is_the_same_without_its_summary(spec: dict[str, bool], replicas: int) -> None:
    cluster = running_cluster(nodes=1, replicas=replicas)
    cluster.set_node_spec("n0", **spec)
    assert find_phase(cluster.machine, "n0") is summarise_node(cluster.machine, "n0").phase


def test_a_task_is_pending_before_its_first_report_and_unknown_while_its_node_is_away() -> None:
    cluster = cluster_of(nodes=1, replicas=1)
    carry_out(cluster)
    (task,) = active(cluster)
    assert task_state_word(cluster.machine, task) == "PENDING"
    obey(cluster)
    (task,) = active(cluster)
    assert task_state_word(cluster.machine, task) == "RUNNING"
    cluster.set_reachable("n0", False)
    assert task_state_word(cluster.machine, task) == "UNKNOWN"
    assert summarise_workload(cluster.machine, *REF).state is WorkloadState.DEGRADED


def test_a_workload_has_one_word_at_each_stage() -> None:
    cluster = cluster_of(replicas=2)
    state = lambda: summarise_workload(cluster.machine, *REF).state  # noqa: E731
    assert state() is WorkloadState.PENDING
    carry_out(cluster)
    cluster.report(active(cluster)[0].id, TaskState.RUNNING)
    assert state() is WorkloadState.STARTING
    obey(cluster)
    assert state() is WorkloadState.RUNNING
    cluster.update_workload(command=("new",))
    assert state() is WorkloadState.UPDATING
    cluster.update_workload(replicas=0)
    carry_out(cluster)
    obey(cluster)
    assert state() is WorkloadState.SCALED_TO_ZERO


def test_a_finished_job_is_completed_or_failed() -> None:
    cluster = running_cluster(replicas=2, restart_policy=RestartPolicy(condition=RestartCondition.NEVER))
    for task, end in zip(active(cluster), (TaskState.COMPLETED, TaskState.COMPLETED), strict=True):
        cluster.report(task.id, end)
    assert summarise_workload(cluster.machine, *REF).state is WorkloadState.COMPLETED
    cluster = running_cluster(replicas=1, restart_policy=RestartPolicy(condition=RestartCondition.NEVER))
    cluster.report(active(cluster)[0].id, TaskState.FAILED)
    assert summarise_workload(cluster.machine, *REF).state is WorkloadState.FAILED


def test_the_explanation_says_what_the_planner_would() -> None:
    cluster = cluster_of(nodes=1, replicas=50)
    carry_out(cluster)
    explanation = explain_workload(cluster.machine, *REF, NOW_MS)
    assert explanation.lines == (
        "PENDING: 0 of 50 running",
        "10 tasks have no node: 0 of 1 node fits: 1 lacks cpu (asks 100m, at most 0m free)",
    )
    with pytest.raises(NotFound):
        explain_workload(cluster.machine, "default", "nobody", NOW_MS)


def test_long_lists_of_waiting_reasons_are_cut() -> None:
    cluster = running_cluster(nodes=1, replicas=40, lost_after_s=60.0)
    cluster.set_reachable("n0", False)
    plan = decide(cluster, unreachable_s={"n0": 1.0})
    assert len(plan.waiting) == 20
    assert plan.waiting[-1] == "and 21 more"


# --- readiness ---


def test_a_task_that_runs_and_is_not_ready_neither_replaces_another_nor_counts_as_available() -> None:
    cluster = running_cluster(replicas=1)
    (old,) = active(cluster)
    cluster.update_workload(command=("new",), rollout=Rollout(max_surge=1, max_unavailable=0))
    assert words(carry_out(cluster)) == ["start"]
    (new,) = [task for task in active(cluster) if task.id != old.id]
    cluster.report(new.id, TaskState.RUNNING, ready=False)
    plan = decide(cluster)
    assert not plan.changes
    assert f"task {old.id} stays until {new.id} runs and is ready" in plan.waiting
    cluster.report(new.id, TaskState.RUNNING, ready=True)
    assert words(carry_out(cluster)) == ["stop"]


def test_a_workload_runs_when_its_tasks_are_ready_and_is_degraded_when_one_no_longer_is() -> None:
    cluster = running_cluster(replicas=2)
    first, _ = active(cluster)
    cluster.report(first.id, TaskState.RUNNING, ready=False)
    summary = summarise_workload(cluster.machine, *REF)
    assert (summary.running, summary.ready, summary.state) == (2, 1, WorkloadState.STARTING)
    assert "2 of 2 running, 1 ready" in explain_workload(cluster.machine, *REF, NOW_MS).lines[0]
    cluster.report(first.id, TaskState.RUNNING, ready=True, ready_since_ms=5)
    assert summarise_workload(cluster.machine, *REF).state is WorkloadState.RUNNING
    cluster.report(first.id, TaskState.RUNNING, ready=False, ready_since_ms=9)
    assert summarise_workload(cluster.machine, *REF).state is WorkloadState.DEGRADED
