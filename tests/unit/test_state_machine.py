"""Folding changes is total, idempotent, and keeps every index equal to what the entries imply."""

from __future__ import annotations

import pytest

from cloudless.core import keys
from cloudless.core.model import (
    ClusterRecord,
    CoordinatorRecord,
    LeaderRecord,
    NodeSpec,
    Record,
    Suspicion,
    TaskDesired,
    TaskObserved,
    TaskState,
)
from cloudless.core.state import Removed, StateEvent, StateMachine
from cloudless.testing.builders import (
    build_malformed,
    build_node,
    build_stored,
    build_task_template,
    build_workload,
)


def desired(task_id: str = "web-1", node_id: str = "n1", workload: str = "web") -> TaskDesired:
    return TaskDesired(
        id=task_id,
        namespace="default",
        workload=workload,
        workload_uid="u",
        task_generation=1,
        slot=0,
        node_id=node_id,
        spec=build_task_template(),
    )


def observed(task_id: str = "web-1", state: TaskState = TaskState.RUNNING) -> TaskObserved:
    return TaskObserved(task_id=task_id, node_id="n1", sequence=1, state=state)


DESIRED, OBSERVED = keys.task_desired("web-1"), keys.task_observed("web-1")


def folded(*events: StateEvent) -> StateMachine:
    machine = StateMachine()
    for event in events:
        machine.apply(event.mod_revision, [event])
    return machine


def test_a_task_is_found_by_id_by_workload_and_by_node() -> None:
    machine = folded(build_stored(DESIRED, desired(), 1), build_stored(OBSERVED, observed(), 2))
    assert machine.tasks["web-1"].state is TaskState.RUNNING
    assert list(machine.tasks_of("default", "web")) == ["web-1"]
    assert list(machine.tasks_on("n1")) == ["web-1"]
    machine.apply(3, [Removed(DESIRED, 3), Removed(OBSERVED, 3)])
    assert not machine.tasks
    assert not machine.tasks_of("default", "web")
    assert not machine.tasks_on("n1")
    assert not machine.stray_observed
    assert machine.digest == 0


def test_a_report_without_a_task_is_stray_until_the_task_comes() -> None:
    machine = folded(build_stored(OBSERVED, observed(), 1))
    assert machine.stray_observed == {"web-1": 1}
    machine.apply(2, [build_stored(DESIRED, desired(), 2)])
    assert not machine.stray_observed
    assert machine.tasks["web-1"].observed_revision == 1
    machine.apply(3, [Removed(DESIRED, 3)])
    assert machine.stray_observed == {"web-1": 1}


def test_a_node_is_assembled_from_its_records_and_goes_with_the_last() -> None:
    machine = folded(
        build_stored(keys.node_spec("n1"), NodeSpec(labels={"a": "b"}), 1),
        build_stored(keys.node_info("n1"), build_node("n1", labels={"a": "x", "c": "d"}), 2),
    )
    assert machine.nodes["n1"].labels == {"a": "b", "c": "d"}
    machine.apply(3, [Removed(keys.node_info("n1"), 3)])
    assert machine.nodes["n1"].info is None
    machine.apply(4, [Removed(keys.node_spec("n1"), 4)])
    assert not machine.nodes


def test_the_election_queue_is_ordered_by_create_revision_not_by_key() -> None:
    machine = folded(
        build_stored(keys.election(9), LeaderRecord(coordinator_id="a"), 5),
        build_stored(keys.election(1), LeaderRecord(coordinator_id="b"), 6),
        build_stored(keys.election(9), LeaderRecord(coordinator_id="a", campaigned_at_ms=1), 7, create_revision=5),
    )
    assert [(c.record.coordinator_id, c.term) for c in machine.candidates()] == [("a", 5), ("b", 6)]


def test_other_records_are_found_where_they_belong() -> None:
    machine = folded(
        build_stored(keys.CLUSTER, ClusterRecord(id="c"), 1),
        build_stored(keys.coordinator("c1"), CoordinatorRecord(id="c1"), 2),
        build_stored(keys.suspicion(5, "c1"), Suspicion(coordinator_id="c1", term=5), 3),
        build_stored(keys.workload("default", "web"), build_workload(), 5),
    )
    assert machine.cluster == ClusterRecord(id="c")
    assert list(machine.coordinators) == ["c1"]
    assert list(machine.suspicions(5)) == ["c1"]
    assert machine.workloads["default", "web"].mod_revision == 5
    assert machine.entry_count == 4
    assert machine.mod_revision(keys.CLUSTER) == 1


def test_folding_the_same_events_again_changes_nothing() -> None:
    events: list[StateEvent] = [build_stored(DESIRED, desired(), 1), build_stored(OBSERVED, observed(), 2)]
    machine = folded(*events)
    digest = machine.digest
    assert machine.apply(2, events).transitions == ()
    assert (machine.digest, machine.revision) == (digest, 2)


def test_an_older_event_never_overwrites_a_newer_entry() -> None:
    machine = folded(build_stored(OBSERVED, observed(state=TaskState.FAILED), 5))
    assert machine.apply(6, [build_stored(OBSERVED, observed(), 3)]).transitions == ()
    assert machine.revision == 6


def test_transitions_say_what_was_and_what_is() -> None:
    machine = StateMachine()
    (made,) = machine.apply(1, [build_stored(OBSERVED, observed(), 1)]).transitions
    assert (made.before, made.after, made.kind) == (None, observed(), keys.Kind.TASK_OBSERVED)
    (gone,) = machine.apply(2, [Removed(OBSERVED, 2)]).transitions
    assert (gone.before, gone.after) == (observed(), None)
    assert machine.apply(3, [Removed(OBSERVED, 3)]).transitions == ()


@pytest.mark.parametrize(
    "key",
    [DESIRED, OBSERVED, keys.node_info("n1"), keys.workload("default", "web"), keys.CLUSTER, keys.PREFIX + "unknown"],
)
def test_what_cannot_be_read_is_quarantined_and_hides_what_it_replaced(key: str) -> None:
    records: dict[str, Record] = {
        DESIRED: desired(),
        OBSERVED: observed(),
        keys.node_info("n1"): build_node("n1"),
        keys.workload("default", "web"): build_workload(),
        keys.CLUSTER: ClusterRecord(id="c"),
    }
    machine = StateMachine()
    if key in records:
        machine.apply(1, [build_stored(key, records[key], 1)])
    machine.apply(2, [build_malformed(key, 2, create_revision=1)])
    assert list(machine.quarantined) == [key]
    assert (machine.tasks, machine.nodes, machine.workloads, machine.cluster) == ({}, {}, {}, None)
    if key in records:
        machine.apply(3, [build_stored(key, records[key], 3, create_revision=1)])
        assert not machine.quarantined
        assert machine.digest == folded(build_stored(key, records[key], 3, create_revision=1)).digest
    machine.apply(4, [Removed(key, 4)])
    assert (machine.entry_count, machine.digest, dict(machine.quarantined)) == (0, 0, {})


def test_reset_reports_only_the_differences_and_may_go_back() -> None:
    kept = build_stored(keys.CLUSTER, ClusterRecord(id="c"), 1)
    machine = folded(kept, build_stored(DESIRED, desired(), 5), build_stored(OBSERVED, observed(), 9))
    changed = build_stored(DESIRED, desired(node_id="n2"), 3)
    applied = machine.reset(4, [kept, changed])
    assert [(t.key, t.after is None) for t in applied.transitions] == [(OBSERVED, True), (DESIRED, False)]
    assert machine.revision == 4
    assert list(machine.tasks_on("n2")) == ["web-1"]
    assert not machine.tasks_on("n1")
    assert machine.digest == folded(kept, changed).digest
