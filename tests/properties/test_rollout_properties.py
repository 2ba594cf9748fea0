"""Rollouts under random failures: safe after every single change, and over some time after the failures end.

Nodes are lost and return, tasks fail, readiness flips, leaders change in the middle with clocks of their own, people
pause, promote, undo, scale and change their minds. Tasks are moved to better nodes between two rollouts, and a rollout
may begin in the middle of such a move.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudless.core import keys
from cloudless.core.manifest import parse_manifest, to_manifest
from cloudless.core.model import (
    Placement,
    Reconcile,
    RolloutPhase,
    RolloutStrategy,
    SpreadTopology,
    TaskState,
    WorkloadMode,
)
from cloudless.core.model import WorkloadRecord as Record
from cloudless.core.orchestration import WorkloadPlan, find_rollout, plan_reap, plan_workload
from cloudless.core.orchestration.changes import Decider
from cloudless.core.orchestration.orders import promote, undo
from cloudless.core.orchestration.readiness import available_in_s
from cloudless.core.orchestration.rebalance import plan_move
from cloudless.core.plan import Change, PutRecord
from cloudless.core.scheduling import Scratch
from cloudless.core.state import Removed, StateMachine, Task
from cloudless.errors import UserError
from tests.unit.rollouts import REF, ROUNDS_MAX, Stage

NODES = ("n0", "n1", "n2", "n3")
HOUR_MS = 3_600_000


@dataclass(slots=True)
class Trial(Stage):
    """`down`: since when which node is unreachable. `unready`: tasks whose readiness was lost."""

    down: dict[str, int] = field(default_factory=dict)
    unready: set[str] = field(default_factory=set)
    version: int = 1

    # --- what happens ---

    def unreachable_s(self) -> dict[str, float]:
        return {node_id: (self.now_ms - since) / 1000 for node_id, since in self.down.items()}

    def decide(self) -> WorkloadPlan:
        return plan_workload(self.cluster.machine, *REF, self.now_ms, self.term, self.unreachable_s())

    def rebalance(self) -> None:
        """Begin a move if there is one: then no rollout is under way, and nothing is taken from what is available."""
        machine, away_s = self.cluster.machine, self.unreachable_s()
        change = plan_move(machine, [REF], Decider(self.term, self.now_ms), away_s, Scratch(machine, away_s))
        if change is None:
            return
        available = self.available()
        assert len(available) == self.record.spec.replicas
        assert not self.record.rollout_generation or self.notes.phase is RolloutPhase.COMPLETED
        assert not self.cluster.commit([change]), "a move from the newest view is never refused"
        assert self.available() == available
        self.plan()

    def moving(self) -> int:
        """Return how many tasks are to give way to one that is there."""
        tasks = self.cluster.machine.tasks
        successors = [tasks.get(task.desired.successor_id) for task in self.open_tasks() if task.active]
        return sum(1 for successor in successors if successor is not None and successor.active)

    def plan(self) -> WorkloadPlan:
        """Plan, commit change by change, and check after each."""
        for _ in range(ROUNDS_MAX):
            plan = self.decide()
            if not plan.changes:
                self.check_bounds()
                return plan
            for change in plan.changes:
                before, available, least = self.record, self.available(), self.least()
                begun = self.begun()
                assert not self.cluster.commit([change]), "a plan from the newest view is never refused"
                self.check_change(change, before, min(len(available), least), begun)
        raise AssertionError("does not come to rest without news")

    def report(self, task: Task, fails: bool = False) -> None:
        if task.desired.node_id in self.down:
            return
        version = task.desired.spec.command[-1]
        ready = version not in self.broken and task.id not in self.unready
        stamps = {"started_at_ms": self.now_ms, "ready_since_ms": self.now_ms if ready else 0, "ready": ready}
        if not task.wanted:
            self.cluster.report(task.id, TaskState.STOPPED, finished_at_ms=self.now_ms)
        elif fails:
            self.cluster.report(task.id, TaskState.FAILED, finished_at_ms=self.now_ms, exit_code=1)
        elif task.state is not TaskState.RUNNING or (task.observed and task.observed.ready) != ready:
            self.cluster.report(task.id, TaskState.RUNNING, **stamps)

    def open_tasks(self) -> list[Task]:
        return [task for task in self.tasks() if not task.ended]

    def run_step(self, step: tuple) -> None:
        tasks = self.open_tasks()
        match step:
            case ("plan",):
                self.plan()
            case ("agent", index, fails) if tasks:
                self.report(tasks[index % len(tasks)], fails)
            case ("all",):
                for task in tasks:
                    self.report(task)
            case ("ready", index) if tasks:
                self.unready ^= {tasks[index % len(tasks)].id}
            case ("node", node_id):
                if self.down.pop(node_id, None) is None:
                    self.down[node_id] = self.now_ms
                self.cluster.set_reachable(node_id, node_id not in self.down, self.now_ms)
            case ("change", broken):
                self.version += 1
                self.broken |= {f"v{self.version}"} if broken else set()
                self.change(f"v{self.version}")
            case ("back",):
                self.change("v1")
            case ("scale", replicas):
                self.cluster.update_workload(replicas=replicas)
            case ("return", node_ids) if not self.down:
                for _ in range(2):
                    for node_id in node_ids:
                        self.run_step(("node", node_id))
                    for _ in range(6):
                        self.pass_s(30)
                        self.plan()
                        for task in self.open_tasks():
                            self.report(task)
                self.rebalance()
            case ("rebalance",):
                self.rebalance()
            case ("leader", jump_ms):
                self.term, self.now_ms = self.term + 1, max(0, self.now_ms + jump_ms)
            case ("time", seconds):
                self.pass_s(seconds)
            case ("order", order):
                self.order(order)
            case ("reap",):
                assert not self.cluster.commit(plan_reap(self.cluster.machine, self.now_ms))

    def order(self, order: str) -> None:
        match order:
            case "pause":
                self.pause()
            case "resume":
                self.resume()
            case "promote" | "undo":
                try:
                    more = () if order == "promote" else (0, self.now_ms)
                    changed = (promote if order == "promote" else undo)(self.cluster.machine, self.record, *more)
                except UserError:
                    return
                if changed is not None:
                    puts = (PutRecord(keys.workload(*REF), changed.record), *changed.puts)
                    assert not self.cluster.commit([Change(puts=puts, deletes=changed.deletes)])

    # --- what must hold ---

    def available(self) -> set[int]:
        """Return the slots with a task that does its work."""
        return {
            task.desired.slot
            for task in self.open_tasks()
            if task.active
            and task.desired.node_id not in self.down
            and available_in_s(task, self.record.spec.rollout.min_ready_s, self.now_ms) == 0
        }

    def begun(self) -> set[int]:
        generation = self.record.task_generation
        return {t.desired.slot for t in self.tasks() if t.wanted and t.desired.task_generation == generation}

    def least(self) -> int:
        wanted = len(self.wanted_nodes()) if self.per_node else self.record.spec.replicas
        least = self.record.spec.rollout.available_least(wanted)
        return min(least, max(0, wanted - 1)) if self.per_node else least

    @property
    def per_node(self) -> bool:
        return self.record.spec.mode is WorkloadMode.PER_NODE

    def wanted_nodes(self) -> list[str]:
        occupied = {task.desired.node_id for task in self.open_tasks() if task.active}
        return [node_id for node_id in NODES if node_id in occupied or node_id not in self.down]

    def check_change(self, change: Change, before: Record, floor: int, begun: set[int]) -> None:
        if self.record != before:
            assert before.rollback_of == 0, "a rollback was rolled back"
            assert before.spec.rollout.auto_rollback
            assert self.record.task_generation in before.history
            return
        if before.spec.rollout.strategy is not RolloutStrategy.RECREATE:
            assert len(self.available()) >= min(floor, self.least()), "a change took availability below the floor"
        noted = find_rollout(self.cluster.machine, self.record)
        if noted is None or noted.record.rollout != self.record.rollout_generation:
            return
        added = self.begun() - begun
        if noted.record.phase is RolloutPhase.PAUSED and noted.record.stable_generation:
            assert not added, "something was begun while paused"
        if self.record.spec.rollout.strategy is RolloutStrategy.CANARY and not noted.record.promoted:
            known = noted.record.stable_generation in self.record.history
            assert not (added and known) or len(self.begun()) <= max(self.record.spec.rollout.canary, len(begun)), (
                "more than the canary was begun"
            )

    def check_bounds(self) -> None:
        """Check what holds once there is nothing left to do."""
        rollout, replicas = self.record.spec.rollout, self.record.spec.replicas
        active = [task for task in self.open_tasks() if task.active]
        if self.per_node:
            living = [t.desired.node_id for t in self.open_tasks() if t.desired.node_id not in self.down]
            assert len(living) == len(set(living)), "two tasks on one node"
            return
        lost = sum(1 for task in active if task.desired.node_id in self.down)
        if self.record.spec.reconcile is not Reconcile.KEEP_REPLACEMENT:  # both run until it is clear who stays
            held = [(task.desired.slot, task.desired.task_generation) for task in active]
            lost += len(held) - len(set(held))
        surge = replicas if rollout.strategy is RolloutStrategy.BLUE_GREEN else rollout.surge_of(replicas)
        if rollout.strategy is RolloutStrategy.RECREATE:
            surge = 0
        most = replicas + surge + lost + self.moving()
        assert len(active) <= max(most, self.allowed_before(active)), "more than the surge allows"

    def allowed_before(self, active: list[Task]) -> int:
        """After BLUE_GREEN both colours may still be there when another change comes: two for each slot."""
        blue_green = self.record.spec.rollout.strategy is RolloutStrategy.BLUE_GREEN
        return 2 * len({task.desired.slot for task in active}) if blue_green else 0

    def heal(self) -> None:
        self.broken.clear()
        self.unready.clear()
        for node_id in list(self.down):
            self.run_step(("node", node_id))
        self.resume()

    def settle(self, rounds_max: int = 200) -> None:
        """Let all be well until nothing changes and nothing is waited for."""
        for _ in range(rounds_max):
            revision = self.cluster.machine.revision
            plan = self.plan()
            for task in self.open_tasks():
                self.report(task)
            noted = find_rollout(self.cluster.machine, self.record)
            if noted is not None and noted.record.phase is RolloutPhase.AWAITING_PROMOTION:
                self.order("promote")
            if self.cluster.machine.revision == revision and plan.next_deadline_s is None:
                return
            self.pass_s(10)
        raise AssertionError(f"does not settle: {self.decide().waiting}")

    def check_end(self) -> None:
        record, machine = self.record, self.cluster.machine
        if record.rollout_generation:
            assert self.notes.rollout == record.rollout_generation
            assert self.notes.phase is RolloutPhase.COMPLETED
        active = [task for task in self.open_tasks() if task.active]
        assert {t.desired.task_generation for t in active} <= {record.task_generation}
        wanted = len(self.wanted_nodes()) if self.per_node else record.spec.replicas
        assert len(active) == len(self.available()) == wanted
        last = {event.key: event for event in self.cluster.history}
        fresh = StateMachine()
        fresh.reset(machine.revision, [event for event in last.values() if not isinstance(event, Removed)])
        assert (fresh.digest, dict(fresh.tasks)) == (machine.digest, dict(machine.tasks)), "incremental = rebuilt"
        assert parse_manifest(to_manifest(record)).spec == record.spec, "to apply what there is changes nothing"


STEP = st.one_of(
    st.tuples(st.just("plan")),
    st.tuples(st.just("plan")),
    st.tuples(st.just("all")),
    st.tuples(st.just("agent"), st.integers(0, 20), st.booleans()),
    st.tuples(st.just("ready"), st.integers(0, 20)),
    st.tuples(st.just("node"), st.sampled_from(NODES)),
    st.tuples(st.just("return"), st.sampled_from([NODES[:1], NODES[1:3]])),
    st.tuples(st.just("rebalance")),
    st.tuples(st.just("change"), st.booleans()),
    st.tuples(st.just("back")),
    st.tuples(st.just("scale"), st.integers(0, 7)),
    st.tuples(st.just("leader"), st.sampled_from([0, 1_000, -1_000, HOUR_MS, -HOUR_MS, 24 * HOUR_MS])),
    st.tuples(st.just("time"), st.integers(0, 70)),
    st.tuples(st.just("order"), st.sampled_from(["pause", "resume", "promote", "undo"])),
    st.tuples(st.just("reap")),
)
PACE = st.fixed_dictionaries(
    {
        "batch_size": st.sampled_from([0, 1, 2]),
        "pause_s": st.sampled_from([0.0, 15.0]),
        "min_ready_s": st.sampled_from([0.0, 5.0]),
        "progress_deadline_s": st.sampled_from([0.0, 60.0]),
        "auto_rollback": st.booleans(),
    }
)
BOUNDS = st.sampled_from(
    [
        {},
        {"max_surge": 0, "max_unavailable": 1},
        {"max_surge": 2, "max_unavailable": 2},
        {"max_surge": 0, "min_available": 2},
        {"max_surge": 0, "max_surge_percent": 30, "max_unavailable_percent": 30},
        {"max_surge": 0, "min_available_percent": 60},
    ]
)
STRATEGY = st.sampled_from(
    [
        {},
        {"strategy": RolloutStrategy.RECREATE},
        {"strategy": RolloutStrategy.CANARY, "canary": 1},
        {"strategy": RolloutStrategy.CANARY, "canary": 2, "auto_promote": True},
        {"strategy": RolloutStrategy.BLUE_GREEN},
        {"strategy": RolloutStrategy.BLUE_GREEN, "auto_promote": True},
    ]
)


AWAY = st.fixed_dictionaries(
    {
        "reconcile": st.sampled_from(list(Reconcile)),
        "lost_after_s": st.sampled_from([0.0, 20.0]),
        "placement": st.sampled_from([Placement(), Placement(spread_topology=SpreadTopology.NODE)]),
        "replicas": st.sampled_from([3, 6]),
    }
)


def staged(rollout: dict, per_node: bool = False, **spec: Any) -> Trial:
    trial = Trial.of(0 if per_node else 3, nodes=len(NODES), **rollout)
    assert isinstance(trial, Trial)
    trial.cluster.update_workload(**spec)
    if per_node:
        trial.cluster.update_workload(mode=WorkloadMode.PER_NODE, replicas=1)
        trial.go_on()
    return trial


PROMPT = {"batch_size": 0, "pause_s": 0.0, "min_ready_s": 0.0, "progress_deadline_s": 0.0, "auto_rollback": False}
STAYING = {"reconcile": Reconcile.KEEP_ORIGINAL, "lost_after_s": 0.0}


@settings(max_examples=300, deadline=None)
@given(BOUNDS, PACE, STRATEGY, AWAY, st.lists(STEP, max_size=40))
@example({}, PROMPT, {}, STAYING, [("ready", 0), ("change", False), ("all",), ("scale", 1)])
def test_rollouts_are_safe_at_every_step_and_end_when_the_failures_do(
    bounds: dict, pace: dict, strategy: dict, away: dict, steps: list[tuple]
) -> None:
    trial = staged({**bounds, **pace, **strategy}, **away)
    for step in steps:
        trial.run_step(step)
    trial.heal()
    trial.settle()
    trial.check_end()


@settings(max_examples=100, deadline=None)
@given(
    BOUNDS, PACE, st.sampled_from([{}, {"strategy": RolloutStrategy.CANARY, "canary": 1}]), st.lists(STEP, max_size=30)
)
def test_so_they_are_with_one_task_on_each_node(bounds: dict, pace: dict, strategy: dict, steps: list[tuple]) -> None:
    trial = staged({**bounds, **pace, **strategy}, per_node=True)
    for step in steps:
        if step[0] != "scale":
            trial.run_step(step)
    trial.heal()
    trial.settle()
    trial.check_end()
