"""How a rollout looks to a person, and waiting for its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudless.cli.plain import enum_word
from cloudless.errors import CloudlessError, RolloutFailed, StoreTimeout
from cloudless.rpc.v1.objects_pb2 import RolloutPhase, RolloutRecord
from cloudless.rpc.v1.workload_pb2 import GetRolloutResponse, WorkloadSummary

if TYPE_CHECKING:
    from cloudless.cli.client import Client


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for: the rollout named `rollout`, to the template of generation `generation`."""

    namespace: str
    name: str
    rollout: int
    generation: int

    @property
    def words(self) -> str:
        return f"{self.namespace}/{self.name}"


def phase_word(notes: RolloutRecord) -> str:
    return enum_word(RolloutPhase.DESCRIPTOR, notes.phase)


def counts(seen: WorkloadSummary) -> str:
    """Return how far the tasks are: `5 of 5 ready, 2 updated, 3 old`."""
    parts = [f"{seen.ready} of {seen.desired} ready", f"{seen.updated} updated"]
    parts += [f"{seen.active - seen.updated} old"] if seen.active > seen.updated else []
    parts += [f"{seen.completed} completed"] if seen.completed else []
    parts += [f"{seen.failed} failed"] if seen.failed else []
    return ", ".join(parts)


def wait_rolled_out(client: Client, namespace: str, name: str, timeout_s: float, applied: int = 0) -> str:
    """Wait until the newest template is everywhere and ready; return how things stand then.

    `applied` is the generation that was just applied, if any. Raises RolloutFailed if the rollout fails, is rolled
    back or is superseded, or the tasks failed for good; StoreTimeout, which says what is missing.
    """
    from cloudless.cli.methods import GET_ROLLOUT
    from cloudless.cli.waiting import wait_for
    from cloudless.rpc.v1.workload_pb2 import GetRolloutRequest

    request = GetRolloutRequest(namespace=namespace, name=name)
    goal: Goal | None = None

    def look() -> tuple[bool, str, str]:
        nonlocal goal
        answer = client.call(GET_ROLLOUT, request)
        record = answer.workload.record
        if goal is None:
            overtaken = 0 < applied < record.rollout_generation
            rollout, generation = (
                (applied, applied) if overtaken else (record.rollout_generation, record.task_generation)
            )
            goal = Goal(namespace, name, rollout, generation)
        done, missing = judge(answer, goal)
        return done, counts(answer.workload.summary), f"{goal.words}: {missing}"

    try:
        return wait_for(look, timeout_s, f"rolled out: {namespace}/{name}")
    except StoreTimeout as timeout:
        raise _explained(client, request, timeout, timeout_s) from None


def judge(answer: GetRolloutResponse, goal: Goal) -> tuple[bool, str]:
    """Return whether the goal is reached, and if not what is missing. Raises RolloutFailed if it never will be."""
    record, seen = answer.workload.record, answer.workload.summary
    if record.deleted_at_ms:
        raise RolloutFailed(f"{goal.words} is being deleted")
    if record.rollout_generation != goal.rollout:
        _refuse_another(answer, goal)
    notes = answer.rollout if answer.HasField("rollout") else None
    if record.rollout_generation and notes is None:
        return False, "waits for the leader to begin"
    if notes is not None and phase_word(notes) == "FAILED":
        raise RolloutFailed(f"{goal.words}: {notes.reason}", hint=f"`cloudless workload explain {goal.words}`")
    if seen.state == "FAILED":
        raise RolloutFailed(f"{goal.words}: its tasks failed and are not to run again ({counts(seen)})")
    if notes is not None and phase_word(notes) not in ("COMPLETED", "PROGRESSING"):
        return False, f"{counts(seen)}; {notes.reason}"
    rolled_out = notes is None or phase_word(notes) == "COMPLETED"
    ready = seen.ready + seen.completed >= seen.desired and seen.active == seen.updated
    return rolled_out and ready, counts(seen)


def _refuse_another(answer: GetRolloutResponse, goal: Goal) -> None:
    record = answer.workload.record
    if record.rollback_of == goal.generation:
        why = answer.rollout.reason if answer.HasField("rollout") else f"generation {goal.generation} is rolled back"
        raise RolloutFailed(f"{goal.words}: {why}", hint=f"`cloudless workload history {goal.words}`")
    raise RolloutFailed(f"{goal.words}: generation {record.generation} took its place before it was rolled out")


def _explained(client: Client, request: object, timeout: StoreTimeout, timeout_s: float) -> StoreTimeout:
    """Return the time-out with what the cluster itself says is missing."""
    from cloudless.cli.methods import EXPLAIN_WORKLOAD, GET_ROLLOUT
    from cloudless.rpc.v1.workload_pb2 import ExplainWorkloadRequest, GetRolloutRequest

    assert isinstance(request, GetRolloutRequest)
    name = f"{request.namespace}/{request.name}"
    try:
        client.call(GET_ROLLOUT, request)
        explain = ExplainWorkloadRequest(namespace=request.namespace, name=request.name)
        verdict = client.call(EXPLAIN_WORKLOAD, explain).verdict
    except CloudlessError:
        return timeout
    return StoreTimeout(
        f"not rolled out after {timeout_s:g} s: {name}: {verdict}", hint=f"`cloudless workload explain {name}`"
    )
