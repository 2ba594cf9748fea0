"""A workload under random faults: plans are safe at every step, and all is well some time after the faults end.

The loop is closed: plans are committed to a state machine, simulated agents report what they would. Now and then a task
is moved to a better node, at any moment that the planner allows.
Safety is checked after every plan, liveness after the faults have stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core import keys
from cloudless.core.model import (
    Placement,
    Resources,
    RestartCondition,
    RestartPolicy,
    Rollout,
    RolloutRecord,
    RolloutStrategy,
    SpreadTopology,
    TaskState,
)
from cloudless.core.orchestration import plan_reap, plan_workloads, summarise_workload
from cloudless.core.orchestration.changes import Decider
from cloudless.core.orchestration.rebalance import plan_move
from cloudless.core.plan import Change
from cloudless.core.scheduling import Scratch
from cloudless.core.state import Task
from cloudless.testing.builders import TestCluster, build_workload

NODES = ("n1", "n2", "n3", "n4")
REF = ("default", "web")
CPU_MILLICORES = 600
ROUNDS_MAX = 6
"""Notes on a rollout (begun, a batch opened, promoted), each followed by what they permit."""


def is_note(changes: Sequence[Change]) -> bool:
    """Whether a plan only writes down how a rollout is doing: it acts on what it wrote in the next round."""
    return all(isinstance(put.record, RolloutRecord) for change in changes for put in change.puts)


class Loop:
    """One workload, four nodes, a leader that plans, agents that obey, fail, or are cut off."""

    def __init__(
        self, rollout: Rollout, lost_after_s: float, spread: SpreadTopology = SpreadTopology.ZONE, replicas: int = 3
    ) -> None:
        self.cluster = TestCluster()
        self.now_ms = 1_000_000
        self.down: dict[str, int] = {}
        self.version = 0
        self.rollout = rollout
        for index, node_id in enumerate(NODES):
            self.cluster.add_node(node_id, zone=f"z{index % 2}", capacity=Resources(CPU_MILLICORES, 4096, 0, 0, 0))
        self.cluster.add_workload(
            build_workload(
                replicas=replicas,
                rollout=rollout,
                lost_after_s=lost_after_s,
                placement=Placement(spread_topology=spread),
            )
        )

    # --- what may happen ---

    def plan(self) -> int:
        """Plan, commit, check; return how many changes there were."""
        before = self.running_slots()
        done = 0
        for _ in range(ROUNDS_MAX):
            result = self.ask()
            if not result.plan.changes:
                return done
            refused = self.cluster.commit(result.plan.changes)
            assert not refused, "a plan from the newest view is never refused"
            if not is_note(result.plan.changes):
                self.check_safety(before)
            before = self.running_slots()
            done += len(result.plan.changes)
        raise AssertionError("planning again without news changes something, again and again")

    def unreachable_s(self) -> dict[str, float]:
        return {node_id: (self.now_ms - since) / 1000 for node_id, since in self.down.items()}

    def ask(self):
        return plan_workloads(self.cluster.machine, [REF], self.now_ms, 1, self.unreachable_s())

    def rebalance(self) -> bool:
        """Begin a move if there is one, check what a move has to keep, and plan; return whether there was one."""
        machine, away_s = self.cluster.machine, self.unreachable_s()
        change = plan_move(machine, [REF], Decider(1, self.now_ms), away_s, Scratch(machine, away_s))
        if change is None:
            return False
        before, running = len(self.open_tasks()), self.running_slots()
        assert not self.moves(), "one at a time"
        assert not self.cluster.commit([change]), "a move from the newest view is never refused"
        ((old, new),) = self.moves()
        assert (old.desired.slot, old.desired.task_generation) == (new.desired.slot, new.desired.task_generation)
        assert old.desired.node_id != new.desired.node_id
        assert new.desired.node_id not in self.down
        assert len(self.open_tasks()) == before + 1
        assert self.running_slots() == running
        self.check_safety(running)
        self.plan()
        return True

    def moves(self) -> list[tuple[Task, Task]]:
        """Return every task that is to give way to another one which is there, with that one."""
        tasks = self.cluster.machine.tasks
        found = [(task, tasks.get(task.desired.successor_id)) for task in self.open_tasks() if task.active]
        return [(old, new) for old, new in found if new is not None and new.active]

    def agent(self, index: int, fails: bool) -> None:
        """Let one task's agent report its next state, unless its node is cut off."""
        tasks = self.open_tasks()
        if tasks:
            self.report(tasks[index % len(tasks)], fails)

    def report(self, task: Task, fails: bool = False) -> None:
        if task.desired.node_id in self.down:
            return
        if not task.wanted:
            self.cluster.report(task.id, TaskState.STOPPED, finished_at_ms=self.now_ms)
        elif fails:
            self.cluster.report(task.id, TaskState.FAILED, finished_at_ms=self.now_ms, exit_code=1)
        elif task.state is None:
            self.cluster.report(task.id, TaskState.ACCEPTED)
        elif task.state is not TaskState.RUNNING:
            self.cluster.report(task.id, TaskState.RUNNING, started_at_ms=self.now_ms)

    def toggle_node(self, node_id: str) -> None:
        if self.down.pop(node_id, None) is None:
            self.down[node_id] = self.now_ms
        self.cluster.set_reachable(node_id, node_id not in self.down, self.now_ms)

    def toggle_drain(self, node_id: str) -> None:
        draining = self.cluster.machine.nodes[node_id].spec.draining
        self.cluster.set_node_spec(node_id, draining=not draining, cordoned=not draining)

    def update(self) -> None:
        self.version += 1
        self.cluster.update_workload(command=("run", str(self.version)))

    # --- what must hold ---

    def open_tasks(self) -> list[Task]:
        return [task for _, task in sorted(self.cluster.machine.tasks.items()) if not task.ended]

    def running_slots(self) -> set[int]:
        return {
            task.desired.slot
            for task in self.open_tasks()
            if task.active and task.state is TaskState.RUNNING and task.desired.node_id not in self.down
        }

    def check_safety(self, running_before: set[int]) -> None:
        machine = self.cluster.machine
        record = machine.workloads[REF].record
        replicas = record.spec.replicas
        active = [task for task in self.open_tasks() if task.active]
        per_slot = Counter(task.desired.slot for task in active)
        assert all(count <= 2 for count in per_slot.values()), "a move has two tasks in a slot, not more"
        assert len(per_slot) <= replicas
        for node_id in NODES:
            used = sum(
                task.desired.spec.requests.cpu_millicores
                for task in self.open_tasks()
                if task.desired.node_id == node_id
            )
            assert used <= CPU_MILLICORES
        moving = {old.id for old, new in self.moves() if not self.has_to_go(new)}
        staying = Counter(
            task.desired.slot
            for task in active
            if task.id not in moving
            and task.desired.task_generation == record.task_generation
            and not machine.nodes[task.desired.node_id].spec.draining
            and task.desired.node_id not in self.down
        )
        assert all(count == 1 for count in staying.values()), "one staying task per slot"
        extra = sum(1 for task in active if task.id in moving or self.has_to_go(task))
        assert len(moving) <= 1
        if record.spec.rollout.strategy is RolloutStrategy.ROLLING_UPDATE:
            assert len(active) <= replicas + record.spec.rollout.surge_of(replicas) + extra
            floor = min(len(running_before), record.spec.rollout.available_least(replicas))
            assert len(self.running_slots()) >= floor, "a plan never takes availability below the floor"
        else:
            generations = {t.desired.task_generation for t in self.open_tasks() if t.desired.node_id not in self.down}
            assert len(generations) <= 1 or not any(
                t.wanted and t.desired.task_generation < record.task_generation for t in self.open_tasks()
            )

    def calm_down(self) -> None:
        """Let time pass, plan and obey for a while."""
        for _ in range(4):
            self.now_ms += 30_000
            self.plan()
            for task in self.open_tasks():
                self.report(task)

    def has_to_go(self, task: Task) -> bool:
        node_id = task.desired.node_id
        return self.cluster.machine.nodes[node_id].spec.draining or node_id in self.down

    def heal(self) -> None:
        for node_id in NODES:
            if node_id in self.down:
                self.toggle_node(node_id)
            if self.cluster.machine.nodes[node_id].spec.draining:
                self.toggle_drain(node_id)

    def settle(self, rounds_max: int = 120) -> None:
        """Plan and obey until nothing changes and nothing is waited for."""
        for _ in range(rounds_max):
            changed = self.plan()
            for task in self.open_tasks():
                changed += 1 if (not task.wanted or task.state is not TaskState.RUNNING) else 0
                self.report(task)
            self.now_ms += 10_000
            changed += self.rebalance()
            if not changed and self.ask().next_deadline_s is None and not self.ask().plan.changes:
                return
        raise AssertionError("does not settle")


STEP = st.one_of(
    st.tuples(st.just("plan")),
    st.tuples(st.just("agent"), st.integers(0, 20), st.booleans()),
    st.tuples(st.just("agent"), st.integers(0, 20), st.just(False)),
    st.tuples(st.just("all")),
    st.tuples(st.just("node"), st.sampled_from(NODES)),
    st.tuples(st.just("drain"), st.sampled_from(NODES)),
    st.tuples(st.just("scale"), st.integers(0, 8)),
    st.tuples(st.just("update")),
    st.tuples(st.just("reap")),
    st.tuples(st.just("calm")),
    st.tuples(st.just("rebalance")),
    st.tuples(st.just("return"), st.sampled_from([NODES[:1], NODES[1:3], NODES[::2]])),
    st.tuples(st.just("time"), st.integers(0, 60_000)),
)
SPREADS = st.sampled_from([(SpreadTopology.ZONE, 3), (SpreadTopology.NODE, 7), (SpreadTopology.ZONE, 7)])
ROLLOUTS = st.sampled_from(
    [
        Rollout(max_surge=1, max_unavailable=0),
        Rollout(max_surge=0, max_unavailable=1),
        Rollout(max_surge=2, max_unavailable=2),
        Rollout(max_surge=0, min_available=2),
        Rollout(max_surge=0, max_surge_percent=30, max_unavailable_percent=30),
        Rollout(max_surge=0, min_available_percent=100),
        Rollout(strategy=RolloutStrategy.RECREATE),
    ]
)


def run_step(loop: Loop, step: tuple) -> None:
    match step:
        case ("plan",):
            loop.plan()
        case ("agent", index, fails):
            loop.agent(index, fails)
        case ("all",):
            for task in loop.open_tasks():
                loop.report(task)
        case ("node", node_id):
            loop.toggle_node(node_id)
        case ("drain", node_id):
            loop.toggle_drain(node_id)
        case ("scale", replicas):
            loop.cluster.update_workload(replicas=replicas)
        case ("update",):
            loop.update()
        case ("reap",):
            assert not loop.cluster.commit(plan_reap(loop.cluster.machine, loop.now_ms))
        case ("calm",):
            loop.calm_down()
        case ("rebalance",):
            loop.rebalance()
        case ("return", node_ids) if not loop.down:
            for _ in range(2):
                for node_id in node_ids:
                    loop.toggle_node(node_id)
                loop.calm_down()
            loop.rebalance()
        case ("time", ms):
            loop.now_ms += ms


@settings(max_examples=250, deadline=None)
@given(ROLLOUTS, st.sampled_from([0.0, 20.0]), st.lists(STEP, max_size=40), SPREADS)
def test_under_faults_plans_are_safe_and_afterwards_all_replicas_run(
    rollout: Rollout, lost_after_s: float, steps: list[tuple], spread: tuple[SpreadTopology, int]
) -> None:
    loop = Loop(rollout, lost_after_s, *spread)
    for step in steps:
        run_step(loop, step)
    loop.heal()
    loop.settle()
    summary = summarise_workload(loop.cluster.machine, *REF)
    assert summary.running == summary.desired == summary.active == summary.updated
    assert summary.stopping == summary.unknown == summary.pending == 0


@settings(max_examples=60, deadline=None)
@given(ROLLOUTS, st.lists(STEP, max_size=25))
def test_a_deleted_workload_leaves_nothing_behind(rollout: Rollout, steps: list[tuple]) -> None:
    loop = Loop(rollout, 0.0)
    for step in steps:
        run_step(loop, step)
    loop.heal()
    loop.cluster.mark_deleted()
    for _ in range(4):
        assert not loop.cluster.commit(loop.ask().plan.changes)
        for task in loop.open_tasks():
            loop.report(task)
    assert not loop.cluster.machine.tasks
    assert not loop.cluster.machine.stray_observed
    assert not loop.cluster.machine.mod_revision(keys.workload(*REF))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([RestartCondition.ON_FAILURE, RestartCondition.NEVER]),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([TaskState.COMPLETED, TaskState.FAILED])), max_size=12),
)
def test_finished_slots_are_not_run_again_and_the_rest_end_done(
    condition: RestartCondition, max_retries: int, ends: list[tuple[int, TaskState]]
) -> None:
    loop = Loop(Rollout(), 0.0)
    loop.cluster.update_workload(restart_policy=RestartPolicy(condition=condition, max_retries=max_retries))
    for index, state in ends:
        loop.plan()
        tasks = loop.open_tasks()
        if tasks:
            loop.cluster.report(tasks[index % len(tasks)].id, state, finished_at_ms=loop.now_ms)
        loop.now_ms += 61_000
    loop.settle()
    machine = loop.cluster.machine
    for slot in range(3):
        own = [t for t in machine.tasks.values() if t.desired.slot == slot and t.desired.task_generation == 2]
        completed = [task for task in own if task.state is TaskState.COMPLETED]
        assert len(completed) <= 1
        if completed or condition is RestartCondition.NEVER:
            assert len([task for task in own if task.ended]) + len([t for t in own if t.active]) >= 1
        assert not (completed and any(task.active for task in own))
