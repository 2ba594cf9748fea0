"""A scenario's own workloads, besides the steady one that nothing may touch: run them, and tell their tasks."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import Any

from cloudless.adapters.member import procfs
from cloudless.cli.methods import DELETE_WORKLOAD, LIST_EVENTS
from cloudless.core.lifecycle import LIVE
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.objects_pb2 import DESIRED_RUNNING
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest
from tests.faults.rig.processes import RUN_VARIABLE
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster, manifest_of

SPREAD: dict[str, Any] = {"placement": {"spreadTopology": "node"}}


@dataclass(frozen=True, slots=True)
class Seen:
    """One running task as the coordinators tell it."""

    node_id: str
    pid: int
    attempt: int


def run_workload(trial: Trial, name: str, replicas: int, **spec: Any) -> dict[str, Seen]:
    """Apply a workload whose processes count as this trial's; return its tasks once all run."""
    env = {RUN_VARIABLE: trial.run_id, **spec.pop("env", {})}
    trial.cluster.apply(manifest_of(name, replicas=replicas, env=env, **spec))
    return wait_running(trial.cluster, name, replicas)


def running(cluster: LocalCluster, name: str) -> dict[str, Seen]:
    """Return the tasks that run and shall run."""
    return {
        task.desired.id: Seen(task.desired.node_id, task.observed.pid, task.observed.attempt)
        for task in cluster.tasks(name)
        if task.state == "RUNNING" and task.desired.desired == DESIRED_RUNNING
    }


def wait_running(cluster: LocalCluster, name: str, replicas: int, timeout_s: float = 30.0) -> dict[str, Seen]:
    """Wait until exactly so many tasks run and nothing else of the workload is alive."""

    def look() -> dict[str, Seen] | None:
        seen = running(cluster, name)
        return seen if len(seen) == replicas == live_count(cluster, name) else None

    # A workload scaled to nothing has an empty answer, which `until` would not take for one.
    found = cluster.until(lambda: [seen] if (seen := look()) is not None else [], f"{replicas} of {name}", timeout_s)
    return found[0]


def live_count(cluster: LocalCluster, name: str) -> int:
    """Return how many tasks of a workload have not ended, whatever is wanted of them."""
    live = {state.name for state in LIVE}
    return sum(task.state in live or not task.state for task in cluster.tasks(name, all=True))


def ends_told(cluster: LocalCluster, task_id: str) -> list[str]:
    """Return what the events say of the ends of a task's attempts."""
    events = cluster.call(LIST_EVENTS, ListEventsRequest(limit=1000)).events
    kinds = ("TaskRestarting", "TaskFailed", "TaskCompleted")
    return [event.message for event in events if event.subject == f"task/{task_id}" and event.kind in kinds]


def outlive_frozen(trial: Trial, name: str, before: dict[str, Seen], victim: str) -> dict[str, Seen]:
    """Freeze an agent until all its tasks run elsewhere, and the others as before; thaw it; return who runs then."""
    cluster = trial.cluster
    lost = {task for task, seen in before.items() if seen.node_id == victim}
    assert 0 < len(lost) < len(before)
    trial.load_up()
    began_s = trial.note(f"freeze {victim}")
    cluster.signal(victim, signal.SIGSTOP)
    try:
        kept = cluster.until(
            lambda: seen if len(seen := running(cluster, name)) == len(before) and not seen.keys() & lost else None,
            "all run elsewhere",
        )
        trial.figure("replaced_s", time.monotonic() - began_s)
        assert {id: seen for id, seen in before.items() if id not in lost}.items() <= kept.items()
        trial.load_up()
    finally:
        cluster.signal(victim, signal.SIGCONT)
    trial.settle()
    assert wait_running(cluster, name, len(before)) == kept, "what had replaced the lost ones stays"
    return kept


def end_with_family(trial: Trial, name: str, started: list[int]) -> None:
    """Delete a workload whose task does not want to end, and wait until all that it started has ended.

    One of them may be a short sleep in a loop; were more gone before, this would prove nothing.
    """
    trial.load_up()
    assert sum(procfs.start_ticks(pid) is not None for pid in started) >= len(started) - 1
    began_s = trial.note("ask it to end")
    trial.cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=name))
    wait_running(trial.cluster, name, 0)
    trial.cluster.until(lambda: not any(procfs.start_ticks(pid) for pid in started), "all have ended")
    trial.figure("ended_s", trial.note("all have ended") - began_s)
    trial.settle()
