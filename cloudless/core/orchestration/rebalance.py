"""Which task to move to a better node, once all is calm: so a node that returned is used again without a new task.

A placement is never looked at again by itself; a node that comes back, is added or opened stays empty until something
is scheduled. If operators want so (`SchedulerRecord.rebalance_after_s`), this finds one task at a time that the
scheduler would rather put elsewhere now, and starts its successor there. From then on it is `draft`'s: the old task
stops once its successor is available, and stays if that one fails or no longer may be where it is.

What is better, in this order, is what placement itself spreads by::

    domain   spreadTopology zone or region: the task's zone has at least two tasks of the workload more
    node     any spreadTopology: its node has at least two more, in a zone that has no fewer
    room     the setting `balance`: its node is fuller than the other one will be, by `MARGIN` at least,
             and neither domain nor node speaks for the one or the other

So each move lessens the sum of the squares of tasks by domain, or else that by node, or else the fullest of the two
nodes. It follows that no row of moves ever leads back to where it began, and a move back is never better.

Nothing is moved while anything else moves or a node is being drained (`find_unrest`). Left alone are workloads that are
not wholly available, have a rollout under way, end by themselves, keep data on their nodes (volumes), must be near for
others (required affinity), or do not permit a task more for a while: RECREATE, `stopAfter`, no surge. So are those of
which a move has failed, until the task that bears its mark is replaced (`succession`). Nobody has to make way for a
successor, whatever its priority.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloudless.core import keys
from cloudless.core.model import (
    RestartCondition,
    RolloutPhase,
    RolloutStrategy,
    SpreadTopology,
    WorkloadMode,
    WorkloadRecord,
)
from cloudless.core.orchestration.asking import build_ask
from cloudless.core.orchestration.census import Census, Slot, take_census
from cloudless.core.orchestration.changes import (
    Decider,
    Template,
    build_task_id,
    create_task,
    move_task,
    newest_by_slot,
)
from cloudless.core.orchestration.revisions import find_rollout
from cloudless.core.orchestration.slots import are_calm
from cloudless.core.plan import Change
from cloudless.core.scheduling import Placed, Scratch, place
from cloudless.core.scheduling.neighbours import selection_of
from cloudless.core.scheduling.placement import spread_domain
from cloudless.core.scheduling.shelf import WHOLE
from cloudless.core.state.view import Task, View, Workload
from cloudless.core.template import build_task_spec

MARGIN = WHOLE // 10
"""A tenth of a node's cpu or memory, or a twentieth of both."""
SOURCES_MAX = 8
"""Nodes of one workload that are looked at in one plan."""


def find_unrest(view: View) -> str:
    """Return what in the whole cluster speaks against moving anything now, "" if nothing does."""
    for node_id, node in view.nodes.items():
        if node.spec.draining:
            return f"node {node_id} is being drained"
    for task in view.tasks.values():
        if task.ended or not _is_reachable(view, task):
            continue
        if not task.wanted:
            return f"task {task.id} is ending"
        successor = view.tasks.get(task.desired.successor_id)
        if successor is not None and successor.active and _is_reachable(view, successor):
            return f"task {task.id} is being moved"
    return ""


def plan_move(
    view: View,
    refs: Iterable[tuple[str, str]],
    decider: Decider,
    unreachable_s: Mapping[str, float],
    scratch: Scratch,
) -> Change | None:
    """Return the first move that makes the spread of one of these workloads (namespace, name) clearly better.

    None if there is none, or if `find_unrest` finds something. `unreachable_s` is as for `plan_workload`; `scratch` is
    good for the next plan once it is renewed.
    """
    if find_unrest(view):
        return None
    for ref in refs:
        workload = view.workloads.get(ref)
        if workload is not None and may_move(view, workload.record):
            change = _find_move(view, workload, decider, unreachable_s, scratch)
            if change is not None:
                return change
    return None


def may_move(view: View, record: WorkloadRecord) -> bool:
    """Return whether tasks of a workload may be moved at all, as far as its own record and its rollout tell."""
    spec = record.spec
    if record.deleted_at_ms or spec.mode is not WorkloadMode.REPLICATED or not spec.replicas:
        return False
    if spec.restart_policy.condition is not RestartCondition.ALWAYS or spec.stop_after_s or spec.volumes:
        return False
    if spec.rollout.strategy is RolloutStrategy.RECREATE or not spec.rollout.surge_of(spec.replicas):
        return False
    if not record.rollout_generation:
        return keys.rollout(record.namespace, record.name) not in view.quarantined
    noted = find_rollout(view, record)
    if noted is None or noted.record.rollout != record.rollout_generation:
        return False
    return noted.record.phase is RolloutPhase.COMPLETED


def _is_reachable(view: View, task: Task) -> bool:
    node = view.nodes.get(task.desired.node_id)
    return node is not None and node.reachable


@dataclass(slots=True)
class _Spread:
    """Where a workload's tasks are: by node, and by domain of its `spreadTopology`."""

    topology: SpreadTopology
    scratch: Scratch
    by_node: dict[str, int]
    by_domain: dict[str, int]

    @classmethod
    def of(cls, record: WorkloadRecord, tasks: Sequence[Task], scratch: Scratch) -> _Spread:
        made = cls(record.spec.placement.spread_topology, scratch, {}, {})
        for task in tasks:
            node_id, domain = task.desired.node_id, made.domain(task.desired.node_id)
            made.by_node[node_id] = made.by_node.get(node_id, 0) + 1
            made.by_domain[domain] = made.by_domain.get(domain, 0) + 1
        return made

    def domain(self, node_id: str) -> str:
        return spread_domain(self.topology, self.scratch.rooms[node_id].shelf.site)

    @property
    def least(self) -> int:
        """By how many tasks nodes have to differ for a move not to make them less even; not asked for by NONE."""
        return 0 if self.topology is SpreadTopology.NONE else 1

    def count(self, node_id: str) -> int:
        """Return how many of the tasks are on a node, as far as that matters."""
        return self.least * self.by_node.get(node_id, 0)

    def order(self, slot: Slot) -> tuple[int, int, str, int, int]:
        """Order slots: of the fullest node first, the youngest task of it first."""
        task = slot.occupants[0].task
        node_id = task.desired.node_id
        free = self.scratch.rooms[node_id].free_share
        return -self.count(node_id), free, node_id, -task.desired_create_revision, slot.number

    def may_gain(self, node_id: str) -> bool:
        """Return whether a task of a node could be better off on one without any."""
        domain = self.domain(node_id)
        return self.count(node_id) >= 2 or (bool(domain) and self.by_domain[domain] >= 2) or self.levels

    @property
    def levels(self) -> bool:
        return self.scratch.settings.balance > 0

    def find_gain(self, source: str, target: str, left: int) -> str:
        """Return in words why a task is better on `target` than on `source`, "" if it is not clearly so.

        `left` is what stays free on the target, as `free_share` counts.
        """
        here, there = self.domain(source), self.domain(target)
        if here != there:
            more = self.by_domain[here] - self.by_domain.get(there, 0)
            if more >= 2:
                told = f"{self.topology.value} {there.rpartition('/')[2]}"
                return f"{told} has {more} tasks of it fewer than that of {source}"
            if more < 1:
                return ""
        more = self.count(source) - self.count(target)
        if more >= 2:
            return f"{target} has {more} tasks of it fewer than {source}"
        if more < self.least or not self.levels:
            return ""
        # One more, here or in the domain, is the same the other way round after the move: room alone decides.
        better = left >= self.scratch.rooms[source].free_share + MARGIN
        return f"{target} is emptier than {source}" if better else ""


def _find_move(
    view: View, workload: Workload, decider: Decider, unreachable_s: Mapping[str, float], scratch: Scratch
) -> Change | None:
    record = workload.record
    census = take_census(view, workload, decider.now_ms, unreachable_s)
    if not _is_well(census, record):
        return None
    tasks = [slot.occupants[0].task for slot in census.slots.values()]
    scratch.renew((), unreachable_s)
    if any(task.desired.node_id not in scratch.rooms for task in tasks):
        return None  # what such a node is like cannot be read
    spread = _Spread.of(record, tasks, scratch)
    template = Template(record.task_generation, build_task_spec(record.spec))
    newest = newest_by_slot(view, workload)
    for source in _find_sources(census, spread):
        scratch.renew((), unreachable_s)
        old = source.occupants[0].task
        others = [task.desired.node_id for task in tasks if task is not old]
        scratch.count_staying((record.namespace, record.name, template.generation), others)
        ask = build_ask(record, template, build_task_id(view, workload, source.number, newest.get(source.number, 0)))
        (outcome,) = place([ask], view, scratch)
        if not isinstance(outcome, Placed) or outcome.node_id == old.desired.node_id:
            continue
        why = spread.find_gain(old.desired.node_id, outcome.node_id, scratch.rooms[outcome.node_id].free_share)
        if why and not _is_leant_on(view, record):
            reason = f"instead of {old.id}, to spread better: {why}"
            start = create_task(workload, template, ask.seed, source.number, outcome.node_id, decider, reason)
            return move_task(start, ask.seed, old, decider)
    return None


def _is_well(census: Census, record: WorkloadRecord) -> bool:
    """Return whether every replica is available and alone in its slot, no others are wanted, and no move has failed."""
    slots = census.slots.values()
    whole = len(slots) == record.spec.replicas and not any(task.active for task in census.foreign)
    if not whole or not are_calm(slots):
        return False
    return all(slot.available and slot.occupants and not slot.occupants[0].task.desired.successor_id for slot in slots)


def _is_leant_on(view: View, record: WorkloadRecord) -> bool:
    """Return whether another workload's tasks have to be near those of this one."""
    return any(
        not term.weight and selection_of(other.namespace, term).holds(record.namespace, record.name, record.labels)
        for workload in view.workloads.values()
        if (other := workload.record) is not record
        for term in other.spec.placement.workload_affinity
    )


def _find_sources(census: Census, spread: _Spread) -> Iterator[Slot]:
    """Yield the slot of the youngest task on the fullest node of each domain, the fullest domains first; some at most.

    Not a slot in which a task of this template has ended by itself: it is left where it works.
    """
    movable: dict[str, list[Slot]] = {}
    for slot in census.slots.values():
        if slot.ending.last is None:
            movable.setdefault(spread.domain(slot.occupants[0].task.desired.node_id), []).append(slot)
    first = {domain: min(slots, key=spread.order) for domain, slots in movable.items()}
    worth = [domain for domain, slot in first.items() if spread.may_gain(slot.occupants[0].task.desired.node_id)]
    for domain in sorted(worth, key=lambda domain: (-spread.by_domain[domain], domain))[:SOURCES_MAX]:
        yield first[domain]
