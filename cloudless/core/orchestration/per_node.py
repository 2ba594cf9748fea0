"""One task on each node that fits (mode PER_NODE): who belongs on a node, and how its task is replaced.

A seat is a node's slot. What is decided follows from the node::

    fits, and has no task          start one, as soon as there is room and the last one has ended
    fits, has one                  nothing; of several the best stays
    cordoned, or out of reach      what is there stays, nothing new; outdated and lost, it is given up, so that a
                                   rollout ends without the node, which gets its new task when it returns
    drained, or fits no more       what is there stops
    removed                        its task is stopped and forgotten

An outdated task is stopped first and its successor started when it has ended: never two on one node, so that fixed
ports and devices are free. As many may be missing at a time as the rollout's bounds allow, at least one, of the nodes
that have a task or could have one now; surge means nothing here. A rollout holds seats back as it does slots.

The number of a seat is that of the newest task on its node, or the lowest that is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cloudless.core.abilities import needed_abilities
from cloudless.core.model import RolloutStrategy, WorkloadMode, WorkloadRecord
from cloudless.core.orchestration.absence import GONE_S
from cloudless.core.orchestration.census import Census, Slot
from cloudless.core.orchestration.changes import create_task, stop_task
from cloudless.core.orchestration.draft import Draft, Want
from cloudless.core.orchestration.slots import by_merit
from cloudless.core.scheduling import PASSING, Ask, Placed, find_standing_obstacle, place_on
from cloudless.core.state.view import Task, View


@dataclass(frozen=True, slots=True)
class Seats:
    """`slots` by node, `wanted` the nodes that are to have a task, `unfit` why others are not to keep theirs."""

    census: Census
    slots: dict[str, Slot]
    wanted: tuple[str, ...]
    unfit: dict[str, str]

    def wanted_slots(self) -> tuple[Slot, ...]:
        return tuple(self.slots[node_id] for node_id in self.wanted)


def take_seats(view: View, record: WorkloadRecord, census: Census, now_ms: int) -> Seats:
    """Sort the tasks of a census by node, and say on which nodes they belong."""
    slots = _seat_tasks(census)
    occupied = {node_id for node_id, slot in slots.items() if slot.occupants}
    wanted, unfit = _judge_nodes(view, record, occupied)
    for node_id in wanted:
        slots.setdefault(node_id, Slot(-1, census.generation))
    _number(slots)
    for slot in slots.values():
        slot.judge(record.spec.restart_policy, now_ms)
    by_number = {slot.number: slot for slot in slots.values()}
    return Seats(replace(census, slots=by_number), slots, wanted, unfit)


def count_wanted(view: View, record: WorkloadRecord) -> int:
    """Return how many tasks a workload is to have: its replicas, or one for each node that fits or has one."""
    if record.spec.mode is WorkloadMode.PER_NODE:
        held = (view.tasks[task_id] for task_id in view.tasks_of(record.namespace, record.name))
        active = {t.desired.node_id for t in held if t.active and t.desired.workload_uid == record.uid}
        return len(_judge_nodes(view, record, active)[0])
    return record.spec.replicas


def _judge_nodes(view: View, record: WorkloadRecord, occupied: set[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    ask = Ask(
        namespace=record.namespace,
        workload=record.name,
        requests=record.spec.requests,
        executor=record.spec.executor,
        placement=record.spec.placement,
        needs=needed_abilities(record.spec),
    )
    wanted: list[str] = []
    unfit: dict[str, str] = {}
    for node_id in sorted(view.nodes):
        node = view.nodes[node_id]
        if node.info is None:
            continue
        obstacle = find_standing_obstacle(ask, node)
        if obstacle is not None and obstacle.code not in PASSING:
            unfit[node_id] = obstacle.one
        elif obstacle is None or node_id in occupied:
            wanted.append(node_id)
    return tuple(wanted), unfit


def _seat_tasks(census: Census) -> dict[str, Slot]:
    """Return a slot for each node that has, or had, a task; it is not numbered yet."""
    slots: dict[str, Slot] = {}
    for slot in census.slots.values():
        for occupant in slot.occupants:
            seat = slots.setdefault(occupant.task.desired.node_id, Slot(-1, census.generation))
            seat.occupants.append(occupant)
        for task in slot.ended:
            slots.setdefault(task.desired.node_id, Slot(-1, census.generation)).ended.append(task)
    for seat in slots.values():
        seat.ended.sort(key=_age)
    return dict(sorted(slots.items()))


def _number(slots: dict[str, Slot]) -> None:
    """Give each seat the number of its newest task, or the lowest that is free."""
    taken: set[int] = set()
    for slot in slots.values():
        newest = max((*(o.task for o in slot.occupants), *slot.ended), key=_age, default=None)
        if newest is not None and newest.desired.slot not in taken:
            slot.number = newest.desired.slot
            taken.add(slot.number)
    free = (number for number in range(2 * len(slots)) if number not in taken)
    for _, slot in sorted(slots.items()):
        if slot.number < 0:
            slot.number = next(free)


def _age(task: Task) -> tuple[int, str]:
    return task.desired_create_revision, task.id


@dataclass(slots=True)
class NodeDraft(Draft):
    """A plan for a workload that runs one task on each node."""

    seats: Seats = field(default_factory=lambda: Seats(Census(0, {}, (), ()), {}, (), {}))

    def fill(self) -> None:
        """Decide everything."""
        for task in self.census.foreign:
            if task.active:
                self.scratch.leave(task)
                self.changes.append(stop_task(task, self.decider, "it belongs to an earlier workload of this name"))
        wanted = set(self.seats.wanted)
        for node_id, slot in self.seats.slots.items():
            if node_id not in wanted:
                self._leave(node_id, slot)
        kept = self.seats.wanted_slots()
        self._wait_for_availability(kept)
        for slot in kept:
            self._keep_best(slot)
        if self.workload.record.spec.rollout.strategy is RolloutStrategy.RECREATE:
            self._stop_all([o for slot in kept for o in self._present(slot) if o.outdated], "outdated")
            if any(o.outdated and o.absent_s is None for o in (*self.census.stopping, *self._stopped.values())):
                self.waiting.append("new tasks start when all old ones have ended")
                return
        else:
            self._replace(kept)
        self._fill_empty(kept)

    def _leave(self, node_id: str, slot: Slot) -> None:
        for occupant in self._present(slot):
            gone = occupant.absent_s == GONE_S
            why = f"node {node_id} was removed" if gone else f"its node {self.seats.unfit.get(node_id, 'fits no more')}"
            self._stop(occupant, why)

    def _keep_best(self, slot: Slot) -> None:
        present = self._present(slot)
        if slot.ending.done is not None:
            self._stop_all(present, f"task {slot.ending.done.id} is done")
            return
        present = sorted(present, key=lambda occupant: (occupant.outdated, by_merit(occupant)))
        self._stop_all(present[1:], "another task is on its node")

    def _replace(self, kept: Sequence[Slot]) -> None:
        wanted = len(kept)
        least = min(self.workload.record.spec.rollout.available_least(wanted), max(0, wanted - 1))
        lost = [o for slot in kept for o in self._present(slot) if o.outdated and o.lost]
        self._stop_all(lost, "outdated, and its node cannot be reached")
        outdated = [o for slot in kept for o in self._present(slot) if o.outdated and o.absent_s is None]
        idle = [o for o in outdated if self._is_idle(o)]
        self._stop_all(idle, "outdated, and not running")
        self._stop_first(kept, [o for o in outdated if not self._is_idle(o)], least)

    def _fill_empty(self, kept: Sequence[Slot]) -> None:
        ending = {o.task.desired.node_id for o in (*self.census.stopping, *self._stopped.values())}
        node_of = {slot.number: node_id for node_id, slot in self.seats.slots.items()}
        empty = [slot for slot in kept if slot.ending.done is None and not self._present(slot)]
        ready, _ = self._resumable([slot for slot in empty if node_of[slot.number] not in ending])
        for slot in ready:
            self._start_on(node_of[slot.number], self._want_vacant(slot))

    def _start_on(self, node_id: str, want: Want) -> None:
        number = want.slot.number
        outcome = place_on(self._ask(want), node_id, self.scratch)
        if isinstance(outcome, Placed):
            template, task_id = self._template(want.slot.target), outcome.ask.seed
            self.changes.append(
                create_task(self.workload, template, task_id, number, node_id, self.decider, want.reason)
            )
        else:
            self.unplaced.append((number, outcome.diagnosis))
