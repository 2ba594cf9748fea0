"""The commands around rollouts: what they print, what they ask for, and how they exit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cloudless.cli import methods
from cloudless.cli.main import cli
from cloudless.errors import NotFound
from cloudless.rpc.v1 import objects_pb2 as objects
from cloudless.rpc.v1 import workload_pb2 as pb
from tests.unit.cli_coordinator import FakeCoordinator


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    yield made
    made.stop()


def run(coordinator: FakeCoordinator, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--coordinator", coordinator.address, "workload", *words])


def rollout_of(
    phase: str = "", *, generation: int = 2, rollback_of: int = 0, reason: str = "", **counts: Any
) -> pb.GetRolloutResponse:
    """Return how a workload stands whose rollout is in `phase` (none: it never changed)."""
    seen = {"desired": 3, "active": 3, "running": 3, "ready": 3, "updated": 3, "state": "RUNNING", **counts}
    record = objects.WorkloadRecord(
        namespace="default",
        name="web",
        generation=generation,
        task_generation=1 if rollback_of else generation,
        rollout_generation=generation if phase else 0,
        rollback_of=rollback_of,
    )
    answer = pb.GetRolloutResponse(workload=pb.Workload(record=record, summary=pb.WorkloadSummary(**seen)))
    if phase:
        answer.rollout.CopyFrom(
            objects.RolloutRecord(
                rollout=generation,
                generation=record.task_generation,
                rollback_of=rollback_of,
                phase=objects.RolloutPhase.Value(f"ROLLOUT_PHASE_{phase}"),
                reason=reason,
            )
        )
    return answer


def test_apply_with_wait_tells_how_it_goes_and_ends_well(coordinator: FakeCoordinator, tmp_path: Any) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text("x")
    result = pb.ApplyResult(namespace="default", name="web", action="changed", generation=2)
    coordinator.answer(methods.APPLY_WORKLOAD, pb.ApplyWorkloadResponse(results=[result]))
    steps = iter(
        [
            rollout_of("PROGRESSING", updated=1, active=4, ready=3),
            rollout_of("AWAITING_PROMOTION", updated=1, active=4, reason="1 new tasks are well"),
            rollout_of("COMPLETED"),
        ]
    )
    coordinator.answer(methods.GET_ROLLOUT, lambda _: next(steps))
    done = run(coordinator, "apply", "-f", str(manifest), "--wait")
    assert done.exit_code == 0
    assert "default/web: 3 of 3 ready, 1 updated, 3 old" in done.stderr
    assert "1 new tasks are well" in done.stderr
    assert "workload/web is rolled out: 3 of 3 ready, 3 updated" in done.stderr


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (rollout_of("FAILED", reason="no progress for 9 s"), "no progress for 9 s"),
        (rollout_of("PROGRESSING", generation=3, rollback_of=2, reason="rolling back generation 2"), "rolling back"),
        (rollout_of("PROGRESSING", generation=3), "generation 3 took its place"),
    ],
)
def test_a_rollout_that_ends_badly_is_told_by_the_exit_code(
    coordinator: FakeCoordinator, then: pb.GetRolloutResponse, words: str
) -> None:
    steps = iter([rollout_of("PROGRESSING", updated=1), then])
    coordinator.answer(methods.GET_ROLLOUT, lambda _: next(steps))
    ended = run(coordinator, "rollout", "status", "web", "--wait")
    assert ended.exit_code == 10
    assert words in ended.stderr


def test_a_wait_that_is_too_short_says_what_is_missing(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.GET_ROLLOUT, rollout_of("PROGRESSING", updated=1))
    coordinator.answer(methods.EXPLAIN_WORKLOAD, pb.ExplainWorkloadResponse(verdict="waits for room"))
    ended = run(coordinator, "rollout", "status", "web", "--wait", "--wait-timeout", "0")
    assert ended.exit_code == 3
    assert "waits for room" in ended.stderr


def job(condition: str = "ON_FAILURE", **counts: Any) -> pb.GetWorkloadResponse:
    """Return how a job of three tasks stands."""
    policy = objects.RestartPolicy(condition=objects.RestartCondition.Value(f"RESTART_CONDITION_{condition}"))
    record = objects.WorkloadRecord(namespace="default", name="web", spec=objects.WorkloadSpec(restart_policy=policy))
    return pb.GetWorkloadResponse(workload=pb.Workload(record=record, summary=pb.WorkloadSummary(desired=3, **counts)))


def test_a_job_can_be_waited_for_until_all_its_tasks_have_ended_well(coordinator: FakeCoordinator) -> None:
    steps = iter([job(active=2, running=2, completed=1), job(completed=3, state="COMPLETED")])
    coordinator.answer(methods.GET_WORKLOAD, lambda _: next(steps))
    done = run(coordinator, "wait", "web", "--for", "completed")
    assert done.exit_code == 0
    assert "waiting: default/web: 1 of 3 completed" in done.stderr
    assert "workload/web is completed: 0 of 3 ready, 0 updated, 3 completed" in done.stderr
    coordinator.answer(methods.GET_WORKLOAD, job(failed=1, completed=2, state="FAILED"))
    failed = run(coordinator, "wait", "web", "--for", "completed")
    assert (failed.exit_code, "1 failed" in failed.stderr) == (10, True)
    coordinator.answer(methods.GET_WORKLOAD, job(active=1, completed=2))
    assert run(coordinator, "wait", "web", "--for", "completed", "--wait-timeout", "0").exit_code == 3


def test_who_never_ends_is_not_waited_for_and_who_is_gone_need_not_be(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.GET_WORKLOAD, job("ALWAYS", active=3))
    never = run(coordinator, "wait", "web", "--for", "completed")
    assert never.exit_code == 2
    assert "restartPolicy.policy: is ALWAYS" in never.stderr
    coordinator.answer(methods.GET_WORKLOAD, NotFound("workload default/web"))
    gone = run(coordinator, "wait", "web", "--for", "gone")
    assert (gone.exit_code, gone.stderr) == (0, "workload/web is gone\n")
    coordinator.answer(methods.GET_ROLLOUT, rollout_of("COMPLETED"))
    assert "web is rolled out: 3 of 3 ready" in run(coordinator, "wait", "web").stderr


def test_a_job_that_failed_for_good_is_not_waited_for(coordinator: FakeCoordinator) -> None:
    failed = rollout_of(active=0, running=0, ready=0, updated=0, failed=3, state="FAILED")
    coordinator.answer(methods.GET_ROLLOUT, failed)
    assert run(coordinator, "rollout", "status", "web", "--wait").exit_code == 10
    done = rollout_of(active=0, running=0, ready=0, updated=0, completed=3, state="COMPLETED")
    coordinator.answer(methods.GET_ROLLOUT, done)
    assert run(coordinator, "rollout", "status", "web", "--wait").exit_code == 0


def test_status_says_phase_reason_and_counts(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.GET_ROLLOUT, rollout_of("PAUSED", reason="paused"))
    shown = run(coordinator, "rollout", "status", "web")
    assert "default/web: PAUSED" in shown.stdout
    assert "3 of 3 ready, 3 updated" in shown.stdout
    coordinator.answer(methods.GET_ROLLOUT, rollout_of())
    assert "its template never changed" in run(coordinator, "rollout", "status", "web").stdout
    assert '"state": "RUNNING"' in run(coordinator, "rollout", "status", "web", "-o", "json").stdout


@pytest.mark.parametrize("order", ["pause", "resume", "promote", "undo"])
def test_orders_reach_the_coordinator(coordinator: FakeCoordinator, order: str) -> None:
    coordinator.answer(methods.UPDATE_ROLLOUT, pb.UpdateRolloutResponse())
    given = run(coordinator, "rollout", order, "team/web", *(["--to", "4"] if order == "undo" else []))
    assert given.exit_code == 0
    asked = coordinator.requests[-1]
    assert (asked.namespace, asked.name) == ("team", "web")
    assert pb.RolloutAction.Name(asked.action) == f"ROLLOUT_ACTION_{order.upper()}"
    assert asked.to_generation == (4 if order == "undo" else 0)


def test_history_and_diff_show_what_was_before(coordinator: FakeCoordinator) -> None:
    found = [
        pb.Revision(generation=3, current=True, manifest="image: c\n"),
        pb.Revision(generation=2, manifest="image: b\n", reason="rolled back: no progress"),
        pb.Revision(generation=1, manifest="image: a\n"),
    ]
    coordinator.answer(methods.LIST_REVISIONS, pb.ListRevisionsResponse(revisions=found))
    shown = run(coordinator, "history", "web")
    assert "rolled back: no progress" in shown.stdout
    assert run(coordinator, "history", "web", "-o", "name").stdout.split() == [f"revision/{n}" for n in (3, 2, 1)]
    assert {"-image: b", "+image: c"} <= set(run(coordinator, "diff", "web").stdout.splitlines())
    assert {"-image: a", "+image: b"} <= set(run(coordinator, "diff", "web", "--to", "2").stdout.splitlines())
    assert run(coordinator, "diff", "web", "--from", "9").exit_code == 4
