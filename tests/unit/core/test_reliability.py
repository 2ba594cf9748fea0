"""What is seen of a node lowers its number, time raises it again, and little of that is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.core import keys
from cloudless.core.model import NodeInfo, NodeStatus, Reachability, Record, TaskObserved, TaskState
from cloudless.core.orchestration.reliability import (
    COSTS,
    HALF_LIFE_S,
    WRITE_PERIOD_S,
    Blame,
    Fault,
    ReliabilityPlan,
    Standing,
    find_blame,
    judge,
    plan_reliability,
)
from cloudless.testing.builders import TestCluster, build_node

UP, DOWN = (NodeStatus(reachability=found) for found in (Reachability.REACHABLE, Reachability.UNREACHABLE))
INFO = build_node("n1", boot_id="b1", incarnation=5)
TERM = 7
NEVER_RAN = TaskObserved(task_id="t1", node_id="n1", sequence=1, state=TaskState.FAILED, attempt=1)


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        (UP, DOWN, Fault.SILENCE),
        (DOWN, UP, None),
        (None, DOWN, None),
        (DOWN, replace(DOWN, reason="still"), None),
        (INFO, replace(INFO, boot_id="b2", incarnation=6), Fault.REBOOT),
        (INFO, replace(INFO, incarnation=6), Fault.RESTART),
        (INFO, replace(INFO, zone="z"), None),
        (None, INFO, None),
        (replace(INFO, incarnation=0), INFO, None),
        (None, NEVER_RAN, Fault.FAILED_START),
        (NEVER_RAN, replace(NEVER_RAN, message="more"), None),
        (None, replace(NEVER_RAN, started_at_ms=1), None),
        (None, replace(NEVER_RAN, state=TaskState.STOPPED), None),
        (NEVER_RAN, None, None),
    ],
)
def test_what_speaks_against_a_node(before: Record | None, after: Record | None, fault: Fault | None) -> None:
    record = before or after
    key = keys.node_info("n1") if isinstance(record, NodeInfo) else keys.node_status("n1")
    found = find_blame(TestCluster().machine, key, before, after)
    assert (found.fault if found else None) is fault
    assert found is None or found.node_id == "n1"


def test_half_of_what_is_lost_comes_back_in_a_half_life_and_a_clock_that_stands_gives_nothing() -> None:
    fallen = judge(Standing(1.0, 0.0), [Fault.SILENCE], 0.0)
    assert fallen.value == pytest.approx(1.0 - COSTS[Fault.SILENCE])
    assert judge(fallen, (), HALF_LIFE_S).value == pytest.approx(1.0 - COSTS[Fault.SILENCE] / 2)
    assert judge(fallen, (), -5.0).value == fallen.value
    assert judge(fallen, (), 100 * HALF_LIFE_S).value == 1.0


def test_it_never_leaves_its_range() -> None:
    standing = judge(Standing(1.0, 0.0), [Fault.SILENCE] * 500, 0.0)
    assert 0.0 <= standing.value < 0.01


def cluster_of_two() -> TestCluster:
    cluster = TestCluster()
    cluster.add_node("n1")
    cluster.add_node("n2")
    return cluster


def take(cluster: TestCluster, plan: ReliabilityPlan) -> list[float]:
    assert not cluster.commit(plan.changes)
    return [node.status.reliability for node in cluster.machine.nodes.values() if node.status]


def test_a_fault_is_written_at_once_and_the_next_ones_together() -> None:
    cluster = cluster_of_two()
    plan = plan_reliability(cluster.machine, {}, [], 0.0, TERM)
    assert not plan.changes
    plan = plan_reliability(cluster.machine, plan.standings, [Blame("n1", Fault.SILENCE)], 5.0, TERM)
    assert take(cluster, plan) == [0.7, 1.0]
    for second in range(1, 60):
        plan = plan_reliability(cluster.machine, plan.standings, [Blame("n1", Fault.RESTART)], 5.0 + second, TERM)
        assert not plan.changes
    plan = plan_reliability(cluster.machine, plan.standings, [], 5.0 + WRITE_PERIOD_S, TERM)
    assert take(cluster, plan)[0] < 0.1


def test_a_node_that_behaves_is_written_ever_more_rarely_and_then_no_more() -> None:
    cluster = cluster_of_two()
    plan = plan_reliability(cluster.machine, {}, [Blame("n1", Fault.SILENCE)], 0.0, TERM)
    take(cluster, plan)
    writes = 0
    for minute in range(1, 5 * 24 * 60):
        plan = plan_reliability(cluster.machine, plan.standings, [], 60.0 * minute, TERM)
        writes += len(plan.changes)
        take(cluster, plan)
    assert 5 < writes < 20
    assert [node.status.reliability for node in cluster.machine.nodes.values() if node.status] == [1.0, 1.0]


def test_a_new_leader_goes_on_with_what_is_stored() -> None:
    cluster = cluster_of_two()
    take(cluster, plan_reliability(cluster.machine, {}, [Blame("n1", Fault.SILENCE)], 0.0, TERM))
    plan = plan_reliability(cluster.machine, {}, [], 1_000_000.0, TERM)
    assert not plan.changes
    assert plan.standings["n1"].value == pytest.approx(0.7)


def test_a_node_without_a_status_is_left_alone() -> None:
    cluster = TestCluster()
    cluster.put(keys.node_info("n1"), build_node("n1"))
    assert plan_reliability(cluster.machine, {}, [Blame("n1", Fault.SILENCE)], 0.0, TERM) == ReliabilityPlan((), {})


def test_what_is_written_carries_the_term_of_the_leader_that_writes_it() -> None:
    cluster = cluster_of_two()
    take(cluster, plan_reliability(cluster.machine, {}, [Blame("n1", Fault.SILENCE)], 0.0, TERM))
    assert [node.status.term for node in cluster.machine.nodes.values() if node.status] == [TERM, 0]
