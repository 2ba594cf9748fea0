"""A workload whose template changes, step by step: a state machine, a leader that plans, agents that obey."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cloudless.core import keys
from cloudless.core.model import Resources, Rollout, RolloutRecord, TaskState, WorkloadRecord
from cloudless.core.orchestration import WorkloadPlan, find_rollout, plan_workload
from cloudless.core.state import Task
from cloudless.testing.builders import TestCluster, build_workload

REF = ("default", "web")
ROUNDS_MAX = 12


@dataclass(slots=True)
class Stage:
    """`broken`: templates (the command's last word) whose tasks run but never become ready."""

    cluster: TestCluster = field(default_factory=TestCluster)
    now_ms: int = 1_000_000
    term: int = 1
    broken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, replicas: int, nodes: int = 3, **rollout: Any) -> Stage:
        """Return a stage with a workload that runs as `v1`."""
        stage = cls()
        for number in range(nodes):
            stage.cluster.add_node(f"n{number}", capacity=Resources(20_000, 65_536))
        stage.cluster.add_workload(build_workload(replicas=replicas, command=("run", "v1"), rollout=Rollout(**rollout)))
        stage.go_on()
        return stage

    # --- what people do ---

    def change(self, version: str) -> WorkloadRecord:
        return self.cluster.update_workload(command=("run", version))

    def pause(self) -> None:
        self.put(paused_generation=self.record.rollout_generation)

    def resume(self) -> None:
        self.put(paused_generation=0)

    def promote(self) -> None:
        self.put(promoted_generation=self.record.rollout_generation)

    def put(self, **fields: Any) -> None:
        self.cluster.put(keys.workload(*REF), replace(self.record, **fields))

    # --- what the cluster does ---

    def decide(self) -> WorkloadPlan:
        return plan_workload(self.cluster.machine, *REF, self.now_ms, self.term, {})

    def plan(self) -> WorkloadPlan:
        """Plan and commit until there is nothing to do; return the last plan, which says what is waited for."""
        for _ in range(ROUNDS_MAX):
            plan = self.decide()
            if not plan.changes:
                return plan
            assert not self.cluster.commit(plan.changes)
        raise AssertionError("does not come to rest without news")

    def obey(self) -> None:
        """Let every agent do what is wanted of its tasks."""
        for task in [task for task in self.tasks() if not task.ended]:
            if not task.wanted:
                self.cluster.report(task.id, TaskState.STOPPED, finished_at_ms=self.now_ms)
            elif task.state is not TaskState.RUNNING:
                ready = task.desired.spec.command[-1] not in self.broken
                stamps = {"started_at_ms": self.now_ms, "ready_since_ms": self.now_ms if ready else 0}
                self.cluster.report(task.id, TaskState.RUNNING, ready=ready, **stamps)

    def go_on(self, rounds: int = 30) -> WorkloadPlan:
        """Plan and obey until nothing changes; no time passes."""
        for _ in range(rounds):
            before = self.cluster.machine.revision
            plan = self.plan()
            self.obey()
            if self.cluster.machine.revision == before:
                return plan
        raise AssertionError("does not come to rest")

    def pass_s(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)

    # --- what there is ---

    @property
    def record(self) -> WorkloadRecord:
        return self.cluster.machine.workloads[REF].record

    @property
    def notes(self) -> RolloutRecord:
        noted = find_rollout(self.cluster.machine, self.record)
        assert noted is not None
        return noted.record

    def tasks(self) -> list[Task]:
        return [task for _, task in sorted(self.cluster.machine.tasks.items())]

    def versions(self) -> dict[str, int]:
        """Count the active tasks by version."""
        counts: dict[str, int] = {}
        for task in self.tasks():
            if task.active:
                version = task.desired.spec.command[-1]
                counts[version] = counts.get(version, 0) + 1
        return counts
