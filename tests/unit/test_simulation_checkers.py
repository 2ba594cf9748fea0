"""Each checker of the simulation lets what is right pass and refuses a planted violation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudless.core import keys
from cloudless.core.model import (
    Desired,
    LeaderRecord,
    NodeStatus,
    Placement,
    Reachability,
    RestartCondition,
    RestartPolicy,
    Rollout,
    RolloutStrategy,
    SpreadTopology,
    Taint,
    TaintEffect,
    TaskObserved,
    TaskState,
    WorkloadTerm,
)
from cloudless.core.state import Candidate
from cloudless.ports import Compare, Get, Put, Relation, Target, Txn
from cloudless.testing.builders import build_workload
from cloudless.testing.sim import checkers
from cloudless.testing.sim.checkers import leading, moves, nodes, placement, requests, revisions, tasks
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.happenings import (
    Answered,
    Asked,
    AskedStore,
    Began,
    Disturbed,
    Finished,
    Followed,
    Handled,
    LeftOffice,
    Read,
    RefusedAssignments,
    ReportAcknowledged,
    SawRevision,
    Soothed,
    Stored,
    TookOffice,
)
from cloudless.testing.sim.users import Operation
from tests.unit.leading import report
from tests.unit.sight import Sight, life, process, put

KEY = keys.election(1)
NAMES = sorted(checker.__name__ for checker in checkers.ALL)


# --- leading ---


def test_a_leaders_record_written_by_another_is_refused() -> None:
    sight = Sight(leading.LeadersWrite)
    leader, other = process("c1"), process("c2")
    sight.tell(sight.stored(put(KEY), by=leader))
    sight.cluster.add_node("n1")
    first = Candidate(KEY, LeaderRecord(coordinator_id="c1"), 5)
    change = {keys.node_status("n1"): None}
    sight.tell(sight.stored(by=leader, leader=first, before=change))
    sight.refuses(sight.stored(by=other, leader=first, before=change))
    sight.refuses(sight.stored(by=leader, leader=None, before=change))


def fenced(term: int) -> Txn:
    return Txn(compares=(Compare(KEY, Target.CREATE, Relation.EQUAL, term),), then=(Txn(),))


def test_a_write_of_an_older_term_after_one_of_a_newer_is_refused() -> None:
    sight = Sight(leading.TermsForward)
    for term in (3, 3, 7):
        sight.tell(sight.stored(txn=fenced(term)))
    sight.refuses(sight.stored(txn=fenced(3)))


def test_acting_before_ones_state_has_the_revision_of_the_confirmation_is_refused() -> None:
    sight = Sight(leading.Barrier)
    one = life("c1")
    sight.refuses(TookOffice(one, 5, 9))
    confirmation = Txn(compares=(Compare(KEY, Target.CREATE, Relation.EQUAL, 5),), then=(Get(KEY),))
    sight.tell(AskedStore(one.process, "txn", confirmation, 8))
    sight.tell(TookOffice(one, 5, 8))
    sight.refuses(TookOffice(one, 5, 7))


def test_two_scopes_at_once_and_resigning_under_a_running_one_are_refused() -> None:
    sight = Sight(leading.OneScope)
    one = life("c1")
    sight.tell(TookOffice(one, 5, 9))
    sight.refuses(TookOffice(one, 6, 9))
    sight.refuses(AskedStore(one.process, "revoke", None, 9))
    sight.tell(LeftOffice(one, 5))
    sight.tell(AskedStore(one.process, "revoke", None, 9))
    sight.tell(TookOffice(one, 7, 9))


def test_being_sure_of_leading_with_an_expired_lease_is_refused() -> None:
    sight = Sight(leading.SureLeader)
    one = SimpleNamespace(id="c1", process=process("c1"), leadership=SimpleNamespace(leading_term=5, lease_id=77))
    sight.coordinators["c1"] = one
    sight.tell(sight.stored(lease_id=76))
    one.leadership.leading_term = 0
    sight.tell(sight.stored(lease_id=77))
    one.leadership.leading_term = 5
    one.process.running = False
    sight.tell(sight.stored())
    one.process.running = True
    sight.refuses(sight.stored())


# --- revisions ---


def test_a_copy_or_an_agent_led_back_is_refused() -> None:
    sight = Sight(revisions.Forward)
    one = life("c1")
    sight.tell(SawRevision(one, 9, 0))
    sight.tell(SawRevision(one, 9, 0))
    sight.refuses(SawRevision(one, 8, 0))
    sight.tell(Followed("n1", 5, 9))
    sight.tell(Followed("n1", 0, 9))
    sight.refuses(Followed("n1", 5, 8))
    sight.refuses(Followed("n1", 4, 9))


def test_sending_an_agent_what_it_must_refuse_is_refused_unless_coordinators_are_forgetful() -> None:
    sight = Sight(revisions.NeverServedBack)
    sight.refuses(RefusedAssignments("n1", "stale-revision"))
    sight.options.forgetful = True
    sight.tell(RefusedAssignments("n1", "stale-revision"))


def test_another_digest_than_the_stores_at_a_revision_is_refused() -> None:
    sight = Sight(revisions.SameDigest)
    sight.cluster.add_node("n1")
    digest, revision = sight.truth.digest, sight.truth.revision
    sight.tell(sight.stored())
    sight.tell(SawRevision(life("c1"), revision, digest))
    sight.tell(SawRevision(life("c1"), revision + 1, digest))
    sight.refuses(SawRevision(life("c1"), revision, digest + 1))


# --- tasks ---


def with_task(checker: type[Checker]) -> Sight:
    sight = Sight(checker)
    sight.cluster.add_node("n1")
    sight.cluster.add_node("n2")
    sight.cluster.add_workload(build_workload(replicas=2))
    sight.cluster.put(keys.task_desired("t1"), desired("t1"))
    return sight


def desired(task_id: str, node_id: str = "n1", slot: int = 0, **fields: object):
    from cloudless.core.model import TaskDesired
    from cloudless.testing.builders import build_task_template

    made = TaskDesired(
        id=task_id, namespace="default", workload="web", workload_uid="uid-1", task_generation=1, slot=slot,
        node_id=node_id, spec=build_task_template(),
    )  # fmt: skip
    return replace(made, **fields)  # type: ignore[arg-type]


def test_an_attempt_that_begins_twice_or_beside_another_or_elsewhere_or_after_its_end_is_refused() -> None:
    sight = with_task(tasks.StartedOnce)
    sight.refuses(Began("n2", "t1", 1, 1))
    sight.tell(Began("n1", "t1", 1, 1))
    sight.refuses(Began("n1", "t1", 2, 2))
    sight.tell(Finished("n1", "t1", 1))
    sight.refuses(Began("n1", "t1", 1, 1))
    sight.tell(Began("n1", "t1", 2, 2))
    sight.tell(Finished("n1", "t1", 2))
    sight.cluster.report("t1", TaskState.FAILED)
    sight.refuses(Began("n1", "t1", 3, 3))


def test_a_start_that_the_journal_does_not_know_is_refused() -> None:
    sight = Sight(tasks.JournalFirst)
    sight.tell(Began("n1", "t1", 1, 1))
    sight.refuses(Began("n1", "t1", 2, 1))
    sight.refuses(Began("n1", "t1", 1, -1))


def test_a_report_acknowledged_before_it_is_stored_is_refused() -> None:
    sight = with_task(tasks.ReportsDurable)
    sight.refuses(ReportAcknowledged("n1", "t1", 1))
    sight.cluster.report("t1", TaskState.RUNNING)
    sight.tell(ReportAcknowledged("n1", "t1", 1))
    sight.refuses(ReportAcknowledged("n1", "t1", 2))
    sight.tell(ReportAcknowledged("n1", "unknown", 2))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (report("t1", 5), report("t1", 5)),
        (report("t1", 5, TaskState.RUNNING), report("t1", 6, TaskState.STARTING)),
        (report("t1", 5, TaskState.STOPPED), report("t1", 6, TaskState.FAILED)),
    ],
)
def test_a_report_that_goes_back_is_refused(before: TaskObserved, after: TaskObserved) -> None:
    sight = with_task(tasks.StatesForward)
    sight.cluster.put(keys.task_observed("t1"), after)
    sight.refuses(sight.stored(before={keys.task_observed("t1"): before}))


def test_a_report_that_goes_on_is_not_refused() -> None:
    sight = with_task(tasks.StatesForward)
    sight.cluster.put(keys.task_observed("t1"), replace(report("t1", 6, TaskState.STARTING), attempt=2))
    sight.tell(sight.stored(before={keys.task_observed("t1"): report("t1", 5, TaskState.BACKOFF)}))


def test_a_stopped_task_that_is_to_run_again_or_moves_is_refused() -> None:
    sight = with_task(tasks.StatesForward)
    sight.refuses(sight.stored(before={keys.task_desired("t1"): desired("t1", desired=Desired.STOPPED)}))
    sight.refuses(sight.stored(before={keys.task_desired("t1"): desired("t1", node_id="n2")}))


def test_more_on_a_node_than_fits_is_refused() -> None:
    sight = with_task(tasks.Reservations)
    for number in range(2, 41):
        sight.cluster.put(keys.task_desired(f"t{number}"), desired(f"t{number}", slot=number))
        sight.tell(sight.stored(before={keys.task_desired(f"t{number}"): None}))
    sight.cluster.put(keys.task_desired("t41"), desired("t41", slot=41))
    sight.refuses(sight.stored(before={keys.task_desired("t41"): None}))
    sight.cluster.put(keys.task_desired("t42"), desired("t42", node_id="nowhere"))
    sight.refuses(sight.stored(before={keys.task_desired("t42"): None}))


def test_a_placement_that_breaks_a_constraint_is_refused_unless_the_leader_could_not_know() -> None:
    sight = with_task(placement.PlacementKept)
    sight.options.kinds = ()
    held = sight.truth.workloads["default", "web"].record
    apart = Placement(workload_anti_affinity=(WorkloadTerm(workload="web"),))
    sight.cluster.add_workload(replace(held, spec=replace(held.spec, placement=apart)))
    sight.loop.now_s += 60
    sight.cluster.put(keys.task_desired("t2"), desired("t2", slot=1))
    sight.refuses(sight.stored(before={keys.task_desired("t2"): None}))
    sight.cluster.delete(keys.task_desired("t2"))
    sight.cluster.put(keys.task_desired("t3"), desired("t3", slot=1, node_id="n2"))
    elsewhere = sight.stored(before={keys.task_desired("t3"): None})
    sight.tell(elsewhere)
    sight.loop.now_s += 60
    sight.cluster.set_node_spec("n2", taints=(Taint(key="x", effect=TaintEffect.NO_SCHEDULE),))
    sight.refuses(elsewhere)
    sight.tell(sight.stored(before={keys.node_spec("n2"): None}))
    sight.tell(elsewhere)


def test_a_second_task_for_a_slot_that_is_filled_well_is_refused() -> None:
    sight = with_task(tasks.SlotsFilledOnce)
    sight.cluster.put(keys.task_desired("t2"), desired("t2", node_id="n2"))
    second = sight.stored(before={keys.task_desired("t2"): None})
    sight.refuses(second)
    sight.cluster.set_reachable("n1", False)
    sight.tell(second)


def test_a_healthy_task_that_is_stopped_is_refused() -> None:
    sight = with_task(tasks.HealthyTasksStay)
    sight.cluster.report("t1", TaskState.RUNNING)
    sight.cluster.put(keys.task_desired("t1"), desired("t1", desired=Desired.STOPPED))
    stop = sight.stored(before={keys.task_desired("t1"): desired("t1")})
    sight.refuses(stop)
    sight.cluster.set_node_spec("n1", draining=True)
    sight.tell(stop)


def test_fewer_running_replicas_than_the_rollout_allows_is_refused() -> None:
    sight = with_task(tasks.FloorKept)
    sight.cluster.put(keys.task_desired("t2"), desired("t2", node_id="n2", slot=1))
    for task_id in ("t1", "t2"):
        sight.cluster.report(task_id, TaskState.RUNNING)
        sight.tell(sight.stored(before={keys.task_observed(task_id): None}))
    sight.loop.now_s += 60
    sight.cluster.put(keys.task_desired("t1"), desired("t1", desired=Desired.STOPPED))
    sight.refuses(sight.stored(before={keys.task_desired("t1"): desired("t1")}))


# --- moves ---


def about_to_move() -> Sight:
    """Return what is seen of a workload whose two tasks are both on n1, in a cluster where tasks may be moved."""
    sight = with_task(moves.MovesKept)
    sight.options.kinds, sight.options.rebalance_after_s = (), 1
    change_web(sight, replicas=2, placement=Placement(spread_topology=SpreadTopology.NODE))
    sight.cluster.put(keys.task_desired("t2"), desired("t2", slot=1))
    for task_id in ("t1", "t2"):
        sight.cluster.report(task_id, TaskState.RUNNING)
    sight.loop.now_s += 60
    return sight


def change_web(sight: Sight, **spec: object) -> None:
    held = sight.truth.workloads["default", "web"].record
    sight.cluster.add_workload(replace(held, spec=replace(held.spec, **spec)))  # type: ignore[arg-type]


def moved(sight: Sight, **successor: object) -> Stored:
    """Return the write that begins to move t2: to n2 and as t3, unless `successor` says otherwise."""
    if "t3" in sight.truth.tasks:
        sight.cluster.delete(keys.task_desired("t3"))
    sight.cluster.put(keys.task_desired("t3"), desired("t3", **{"slot": 1, "node_id": "n2"} | successor))  # type: ignore[arg-type]
    sight.cluster.put(keys.task_desired("t2"), desired("t2", slot=1, successor_id="t3"))
    return sight.stored(before={keys.task_desired("t3"): None, keys.task_desired("t2"): desired("t2", slot=1)})


def test_a_move_is_refused_if_it_is_not_wanted_or_leads_nowhere_better() -> None:
    sight = about_to_move()
    sight.refuses(moved(sight, node_id="n1"))
    sight.refuses(moved(sight, slot=0))
    sight.tell(moved(sight))
    late = sight.stored(before={keys.task_desired("t2"): desired("t2", slot=1)})
    sight.refuses(late)
    sight.options.rebalance_after_s = 0
    sight.refuses(moved(sight))
    sight.options.rebalance_after_s = 1
    sight.cluster.add_node("n3")
    sight.cluster.put(keys.task_desired("t1"), desired("t1", node_id="n3"))
    sight.refuses(moved(sight))


@pytest.mark.parametrize(
    "spec",
    [
        {"rollout": Rollout(strategy=RolloutStrategy.RECREATE)},
        {"rollout": Rollout(max_surge=0, max_unavailable=1)},
        {"restart_policy": RestartPolicy(condition=RestartCondition.NEVER)},
    ],
)
def test_a_move_that_its_workload_does_not_permit_is_refused(spec: dict[str, object]) -> None:
    sight = about_to_move()
    change_web(sight, **spec)
    sight.refuses(moved(sight))


def test_a_move_during_a_drain_or_another_move_is_refused_unless_the_leader_could_not_know() -> None:
    sight = about_to_move()
    sight.cluster.set_node_spec("n1", draining=True)
    sight.refuses(moved(sight))
    sight.tell(sight.stored(before={keys.node_spec("n1"): None}))
    sight.tell(moved(sight))
    sight.loop.now_s += 60
    sight.cluster.set_node_spec("n1")
    sight.cluster.put(keys.task_desired("o2"), desired("o2", node_id="n2", workload="other"))
    sight.cluster.put(keys.task_desired("o1"), desired("o1", workload="other", successor_id="o2"))
    sight.refuses(moved(sight))


def test_a_successor_that_is_taken_back_without_a_reason_is_refused() -> None:
    sight = about_to_move()
    sight.tell(moved(sight))
    sight.cluster.put(keys.task_desired("t3"), desired("t3", slot=1, node_id="n2", desired=Desired.STOPPED))
    stop = sight.stored(before={keys.task_desired("t3"): desired("t3", slot=1, node_id="n2")})
    sight.refuses(stop)
    sight.loop.now_s += 600
    sight.tell(stop)


def test_a_spread_that_stays_uneven_is_seen_unless_a_move_has_failed() -> None:
    sight = about_to_move()
    sight.options.placing = None
    assert moves.find_uneven(sight) == "task t1 on n1 would be better off on n2"
    moved(sight)
    sight.cluster.report("t3", TaskState.FAILED)
    assert moves.find_uneven(sight) == ""


# --- nodes ---


def test_a_healthy_node_called_unreachable_is_refused_and_excused_by_a_fault_that_could_explain_it() -> None:
    sight = Sight(nodes.HealthyNodesStay)
    sight.cluster.add_node("n1")
    sight.cluster.put(keys.node_status("n1"), NodeStatus(reachability=Reachability.UNREACHABLE))
    lost = sight.stored(before={keys.node_status("n1"): None})
    sight.tell(lost)  # too early to know
    sight.loop.now_s += 60
    sight.refuses(lost)
    sight.tell(Disturbed("pause-coordinator", "c1"))
    sight.refuses(lost)
    sight.tell(Disturbed("pause-coordinator", "c2"))
    sight.tell(lost)
    sight.tell(Soothed("pause-coordinator", "c1"))
    sight.tell(Soothed("pause-coordinator", "c2"))
    sight.loop.now_s += 60
    sight.refuses(lost)
    sight.tell(Disturbed("cut", "c1>n1"))
    sight.tell(lost)


# --- requests ---

SPEC = keys.workload("default", "web")


def written(request_id: str) -> dict[str, object]:
    record = keys.request(request_id)
    return {"txn": Txn(then=(Txn(then=(Put(SPEC, b""), Put(record, b""))),)), "events": (put(record),)}


def scaled(sight: Sight, request_id: str) -> Stored:
    asked = written(request_id)
    old = build_workload(replicas=1)
    new = replace(old, generation=old.generation + 1, spec=replace(old.spec, replicas=3))
    sight.cluster.put(SPEC, new)
    return sight.stored(*asked["events"], txn=asked["txn"], before={SPEC: old})  # type: ignore[arg-type, misc]


def test_a_request_with_two_effects_is_refused() -> None:
    sight = Sight(requests.OneEffect)
    sight.tell(Asked("r1", Operation("scale", "web", 3)))
    sight.tell(scaled(sight, "r1"))
    sight.refuses(scaled(sight, "r1"))


def test_a_change_that_undoes_another_or_that_nobody_asked_for_is_refused() -> None:
    sight = Sight(requests.OneEffect)
    sight.tell(Asked("r1", Operation("scale", "web", 3)))
    change = scaled(sight, "r1")
    lost = replace(change.transitions[0].before, labels={"changed": "meanwhile"})
    sight.refuses(sight.stored(*change.events, txn=change.txn, before={SPEC: lost}))
    sight.refuses(sight.stored(before={SPEC: change.transitions[0].before}))


def test_an_acknowledged_write_that_was_not_done_or_elsewhere_is_refused() -> None:
    sight = Sight(requests.AcknowledgedSurvive)
    operation = Operation("scale", "web", 3)
    sight.refuses(Answered("r1", operation, 9, ""))
    sight.tell(change := scaled(sight, "r1"))
    sight.tell(Answered("r1", operation, change.revision, ""))
    sight.refuses(Answered("r1", operation, change.revision + 1, ""))
    sight.tell(Answered("r2", operation, change.revision, ""))  # it was so already
    sight.refuses(Answered("r3", Operation("scale", "web", 2), change.revision, ""))
    sight.tell(Answered("r4", Operation("scale", "web", 2), 0, "not-found"))


def test_a_read_older_than_what_was_acknowledged_before_it_is_refused() -> None:
    sight = Sight(requests.ReadsFresh)
    sight.tell(Read(7, 7))
    sight.refuses(Read(7, 6))


def test_a_request_that_outlives_its_time_is_refused() -> None:
    sight = Sight(requests.AnsweredInTime)
    sight.tell(Handled("Scale", 1.9, 2.0, "ok", stalled=False))
    sight.tell(Handled("Scale", 9.0, 2.0, "ok", stalled=True))
    sight.refuses(Handled("Scale", 2.2, 2.0, "ok", stalled=False))
    sight.refuses(Handled("Scale", 1.0, 2.0, "cancelled", stalled=False))


def test_every_checker_has_been_shown_a_violation() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in NAMES if f".{name})" not in source] == []
