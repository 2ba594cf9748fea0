"""Fill the slots of one living workload. What is decided follows from who is in a slot::

    nobody                      start a task, unless the back-off of the last one still runs
    a task that is done         nothing; anything else in the slot is stopped
    a staying task              nothing; whatever else is in the slot stops once this one runs and is ready
    a task of a lost node       stop it and start another in the same plan; if no node fits, it stays wanted,
                                so that it lives on should its node return (not if the node was removed).
                                `reconcile` may let it stay wanted beside the new one
    a task of a draining node   start another; the old one stops once that one is available. If no node fits, it
                                stops as far as enough stay available, and else when the drain's time is over
    a task with a successor     (`rebalance`) it stops once that one is available. If the successor goes, or is not
                                available in time, it simply stays
    an outdated task            as the strategy says; RECREATE: all stop, and nothing starts before they ended

What is outdated depends on the generation that the slot aims at: a rollout may hold slots back (`course`).

A rolling update replaces outdated tasks slot by slot, within two bounds. At most `rollout.surge_of(replicas)`
tasks more than `replicas` hold a place: wanted ones, and outdated ones that are still ending. At least
`rollout.available_least(replicas)` slots are available: done, or with a task that is (`readiness`). Outdated tasks
that do not run are stopped at once, as that costs nothing; those that run and are not ready, as far as there would be
enough available ones were they all ready. A start that waits for its back-off counts as if it held a place: a template
that fails does not spread. Beside the old ones (BLUE_GREEN) a second task may stand in every slot, and none is stopped.

Beyond the bounds: a drain adds one task for each it moves, so does a rebalance, and tasks of an unreachable node do not
count once they are given up, though they may run there until the node is reached again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cloudless.core.model import Reconcile, Rollout, RolloutStrategy, TaskState
from cloudless.core.orchestration.absence import GONE_S, describe_absence
from cloudless.core.orchestration.asking import build_ask
from cloudless.core.orchestration.census import Census, Occupant, Slot
from cloudless.core.orchestration.changes import (
    Decider,
    Template,
    build_task_id,
    create_task,
    newest_by_slot,
    stop_task,
)
from cloudless.core.orchestration.course import OPEN, Course
from cloudless.core.orchestration.ending import describe_end
from cloudless.core.orchestration.reconcile import choose, find_settling_s, may_return
from cloudless.core.orchestration.revisions import find_template
from cloudless.core.orchestration.slots import are_calm, by_merit, choose_slots, list_numbers, vacant_slots
from cloudless.core.orchestration.succession import remaining_s, take_back
from cloudless.core.plan import Change
from cloudless.core.scheduling import (
    Ask,
    Diagnosis,
    Placed,
    Scratch,
    find_way,
    place,
    priority_words,
    why_leave,
)
from cloudless.core.state.view import Task, View, Workload
from cloudless.core.template import build_task_spec

CLAIMS_MAX = 10
"""Tasks of one workload that lower priorities make room for in one plan; the next ones have their turn after that."""


@dataclass(frozen=True, slots=True)
class Leaver:
    """The one occupant of a slot, that has to give way to a new task."""

    slot: Slot
    occupant: Occupant


@dataclass(frozen=True, slots=True)
class Want:
    """A task to start in `slot`. `instead_of` is lost: it is told to stop if a node is found for the new task."""

    slot: Slot
    reason: str
    instead_of: Occupant | None = None


@dataclass(slots=True)
class Draft:
    """A workload's plan in the making; `fill` makes it, the fields below `scratch` are the result."""

    view: View
    workload: Workload
    census: Census
    decider: Decider
    scratch: Scratch
    course: Course = OPEN
    changes: list[Change] = field(default_factory=list)
    unplaced: list[tuple[int, Diagnosis]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    claims: int = 0
    _stopped: dict[str, Occupant] = field(default_factory=dict)
    _newest: dict[int, int] | None = None
    _templates: dict[int, Template] = field(default_factory=dict)

    def fill(self) -> None:
        """Decide everything."""
        spec = self.workload.record.spec
        for task in self.census.foreign:
            if task.active:
                self.scratch.leave(task)
                self.changes.append(stop_task(task, self.decider, "it belongs to an earlier workload of this name"))
        kept, surplus = choose_slots(self.census, spec.replicas)
        if not self.census.stopping and len(kept) == len(self.census.slots) == spec.replicas and are_calm(kept):
            self._wait_for_availability(kept)
            return  # most plans are of a workload that is as it should be
        for slot in surplus:
            self._stop_all(slot.occupants, f"scaled down to {spec.replicas}")
        recreate = spec.rollout.strategy is RolloutStrategy.RECREATE
        if recreate:
            self._stop_all((o for slot in kept for o in slot.occupants if o.outdated), "outdated")
        self._wait_for_loss(o for slot in kept for o in self._present(slot))
        self._wait_for_availability(kept)
        self._end_drains(kept)
        leavers = [leaver for slot in kept if (leaver := self._settle(slot)) is not None]
        emptied = [slot for slot in kept if slot.ending.done is None and not self._present(slot)]
        vacant = sorted((*emptied, *vacant_slots(self.census, kept, spec.replicas)), key=lambda slot: slot.number)
        self._declare_staying(kept)
        if recreate:
            self._recreate(leavers, vacant)
        else:
            self._roll(kept, leavers, vacant, spec.rollout)

    # --- who goes ---

    def _present(self, slot: Slot) -> list[Occupant]:
        """The slot's occupants that this plan has not stopped, best first."""
        if not self._stopped and len(slot.occupants) < 2:
            return slot.occupants
        return sorted((o for o in slot.occupants if o.task.id not in self._stopped), key=by_merit)

    def _stop(self, occupant: Occupant, reason: str, replaced_by: Task | None = None) -> None:
        self._stopped[occupant.task.id] = occupant
        self.scratch.leave(occupant.task)
        if replaced_by is not None and replaced_by.desired.successor_id == occupant.task.id and not occupant.staying:
            self.changes.append(take_back(occupant.task, replaced_by, self.decider, reason))
        else:
            self.changes.append(stop_task(occupant.task, self.decider, reason, replaced_by=replaced_by))

    def _stop_all(self, occupants: Iterable[Occupant], reason: str) -> None:
        for occupant in occupants:
            self._stop(occupant, reason)

    def _settle(self, slot: Slot) -> Leaver | None:
        """Stop what the slot has no more use for; return the occupant that has to give way, if it is all there is."""
        done = slot.ending.done
        present = self._present(slot)
        if done is not None:
            self._stop_all(present, f"task {done.id} is done")
            return None
        staying = [o for o in present if o.staying]
        leaving = [o for o in present if not o.staying]
        if staying:
            staying = self._keep_one(staying)
            for old in leaving:
                self._finish_move(old, staying[0])
            return None
        self._stop_all(leaving[1:], "another task holds its slot")
        if not leaving:
            return None
        first = leaving[0]
        if self._is_idle(first) and not self.course.beside:
            self._stop(first, "outdated, and not running")
            return None
        return Leaver(slot, first)

    def _keep_one(self, staying: list[Occupant]) -> list[Occupant]:
        """Stop all but one task of a slot that nothing speaks against: a node has returned, or a drain was ended."""
        if len(staying) < 2:
            return staying
        settling_s = find_settling_s(self.view, staying, self.decider.now_ms)
        if self._reconcile is not Reconcile.KEEP_REPLACEMENT and settling_s > 0:
            self.deadlines.append(settling_s)
            self.waiting.append(
                f"slot {staying[0].task.desired.slot}: what runs on the node that returned is asked for"
            )
            return staying
        staying = choose(self.view, self._reconcile, staying)
        for loser in staying[1:]:
            winner = staying[0]
            self._stop(loser, f"task {winner.task.id} holds its slot", self._if_well(winner))
        return staying

    @staticmethod
    def _if_well(occupant: Occupant) -> Task | None:
        """Return the task that a stop relies on, if it can be relied on."""
        return occupant.task if occupant.available else None

    @property
    def _reconcile(self) -> Reconcile:
        return self.workload.record.spec.reconcile

    def _finish_move(self, old: Occupant, new: Occupant) -> None:
        waits_s = self._waits_for_successor_s(old, new)
        if old.lost:
            if not may_return(self._reconcile, old):
                self._stop(old, self._why_lost(old), self._if_well(new))
        elif self.course.beside and old.outdated and not old.draining:
            return  # all old ones end together; the rollout says what is waited for
        elif new.available:
            self._stop(old, f"replaced by {new.task.id}", new.task)
        elif self._is_idle(old):
            self._stop(old, "outdated, and not running")
        elif waits_s is not None and not waits_s:
            self._stop(new, f"was not available in time to take the place of {old.task.id}", self._if_well(old))
        else:
            self.deadlines.extend([] if waits_s is None else [waits_s])
            what = "has been ready for long enough" if new.available_in_s else "runs and is ready"
            self.waiting.append(f"task {old.task.id} stays until {new.task.id} {what}")

    def _waits_for_successor_s(self, old: Occupant, new: Occupant) -> float | None:
        """Return for how long a task that could stay is still to give way, None if it has to in any case."""
        if not old.moving or old.draining:
            return None
        return remaining_s(self.workload.record, new.task, self.decider.now_ms)

    @staticmethod
    def _is_idle(occupant: Occupant) -> bool:
        return occupant.outdated and not occupant.running and occupant.absent_s is None

    def _wait_for_loss(self, occupants: Iterable[Occupant]) -> None:
        lost_after_s = self.workload.record.spec.lost_after_s
        for occupant in occupants:
            if occupant.absent_s is not None and not occupant.lost:
                remaining_s = lost_after_s - occupant.absent_s
                self.deadlines.append(remaining_s)
                task = occupant.task.desired
                self.waiting.append(
                    f"task {task.id} is given up in {remaining_s:.0f} s unless node {task.node_id} is reached before"
                )

    def _wait_for_availability(self, kept: Iterable[Slot]) -> None:
        """Look again when a task has been ready for long enough."""
        self.deadlines.extend(o.available_in_s for slot in kept for o in self._present(slot) if o.available_in_s)

    def _end_drains(self, kept: Iterable[Slot]) -> None:
        """Stop what is still on a node whose drain has to be over by now."""
        for occupant in [o for slot in kept for o in self._present(slot) if o.leaves_in_s is not None]:
            if occupant.leaves_in_s:
                self.deadlines.append(occupant.leaves_in_s)
            else:
                node_id = occupant.task.desired.node_id
                self._stop(occupant, f"node {node_id} has to be empty by now: the deadline of its drain is over")

    # --- who comes ---

    def _recreate(self, leavers: Sequence[Leaver], vacant: Sequence[Slot]) -> None:
        ending = [o for o in (*self.census.stopping, *self._stopped.values()) if o.outdated and not o.lost]
        if ending:
            self.waiting.append(f"new tasks start when all old ones have ended; {len(ending)} have not")
            self._wait_for_loss(ending)
            return
        self._start([self._want_instead(leaver) for leaver in leavers])
        ready, _ = self._resumable(vacant)
        self._start([self._want_vacant(slot) for slot in ready])

    def _roll(self, kept: Sequence[Slot], leavers: Sequence[Leaver], vacant: Sequence[Slot], rollout: Rollout) -> None:
        replicas = self.workload.record.spec.replicas
        budget = replicas + rollout.surge_of(replicas) - self._held(kept)
        budget -= len(self._start([self._want_instead(leaver) for leaver in leavers if leaver.occupant.lost]))
        movers = [leaver for leaver in leavers if _is_drain_move(leaver.occupant)]
        started = self._start([self._want_instead(leaver) for leaver in movers])
        self._stop_movers(kept, [leaver.occupant for leaver in movers if leaver.slot.number not in started])

        ready, held_back = self._resumable(vacant)
        budget -= held_back
        now, later = ready[: max(0, budget)], ready[max(0, budget) :]
        budget -= len(self._start([self._want_vacant(slot) for slot in now]))
        if later:
            self.waiting.append(f"slots {list_numbers(later)} are filled when old tasks have ended")

        updates = sorted(leavers, key=lambda leaver: not leaver.occupant.draining)  # those have to go anyway
        outdated = {leaver.slot.number: leaver for leaver in updates if _is_update(leaver.occupant)}
        ready, held_back = self._resumable([leaver.slot for leaver in outdated.values()])
        budget -= held_back
        started = self._start([Want(s, f"update to generation {s.target}") for s in ready[: max(0, budget)]])
        left = [leaver for number, leaver in outdated.items() if number not in started]
        if not self.course.beside:
            self._stop_first(kept, [leaver.occupant for leaver in left], rollout.available_least(replicas))

    def _stop_movers(self, kept: Sequence[Slot], movers: Sequence[Occupant]) -> None:
        """Stop tasks of draining nodes for which there is no room elsewhere, as far as enough stay available."""
        rollout, replicas = self.workload.record.spec.rollout, self.workload.record.spec.replicas
        spare = max(0, self._available(kept) - rollout.available_least(replicas))
        idle = [occupant for occupant in movers if occupant.absent_s is None and not occupant.available]
        going = [*idle, *[occupant for occupant in movers if occupant.available][:spare]]
        self._stop_all(going, "its node is being drained; enough others are available")
        if len(going) < len(movers):
            self.waiting.append(
                f"{len(movers) - len(going)} tasks stay on draining nodes until there is room elsewhere"
            )

    def _stop_first(self, kept: Sequence[Slot], outdated: Sequence[Occupant], least: int) -> None:
        """Stop outdated tasks ahead of their replacements, as many as may be missing."""
        available = self._available(kept)
        unready = [o for o in outdated if o.running and not o.available]
        ready = [o for o in outdated if o.available]
        going = [*unready[: max(0, available + len(unready) - least)], *ready[: max(0, available - least)]]
        self._stop_all(going, "outdated; its slot is filled anew when it has ended")
        if len(outdated) > len(going):
            self.waiting.append(f"{len(outdated) - len(going)} outdated tasks wait for their turn")

    def _held(self, kept: Sequence[Slot]) -> int:
        """Count the tasks that hold a place in a rolling update."""
        held = 0
        for slot in kept:
            present = [o for o in self._present(slot) if not o.lost]
            moved = any(o.staying for o in present) and any(_is_drain_move(o) or o.moving for o in present)
            held += len(present) - (1 if moved else 0)
        ending = (*self.census.stopping, *self._stopped.values())
        return held + sum(1 for o in ending if o.outdated and o.absent_s is None)

    def _available(self, kept: Sequence[Slot]) -> int:
        return sum(1 for slot in kept if self._is_available(slot))

    def _is_available(self, slot: Slot) -> bool:
        return slot.ending.done is not None or any(o.available for o in self._present(slot))

    def _resumable(self, slots: Sequence[Slot]) -> tuple[list[Slot], int]:
        """Return the slots that may be filled now, and how many wait for their back-off."""
        ready = [slot for slot in slots if slot.ending.resume_in_s <= 0]
        for slot in slots:
            ending = slot.ending
            if ending.resume_in_s > 0 and ending.last is not None:
                self.deadlines.append(ending.resume_in_s)
                self.waiting.append(
                    f"slot {slot.number}: {ending.last.id} ended ({describe_end(ending.last)}), "
                    f"{ending.ends} in a row; next start in {ending.resume_in_s:.0f} s"
                )
        return ready, len(slots) - len(ready)

    def _want_vacant(self, slot: Slot) -> Want:
        last = slot.ending.last
        if last is None:
            return Want(slot, f"fills slot {slot.number}")
        return Want(slot, f"after {last.id} ended ({describe_end(last)})")

    def _want_instead(self, leaver: Leaver) -> Want:
        old = leaver.occupant
        if old.lost:
            return Want(leaver.slot, f"instead of {old.task.id}: {self._why_lost(old)}", old)
        node = self.view.nodes.get(old.task.desired.node_id)
        why = why_leave(node, self.workload.record.spec.placement) if node is not None else ""
        return Want(leaver.slot, f"instead of {old.task.id}: {why}")

    def _start(self, wants: Sequence[Want]) -> frozenset[int]:
        """Find a node for each wanted task; return the numbers of the slots that get one."""
        if not wants:
            return frozenset()
        started: set[int] = set()
        outcomes = place([self._ask(want) for want in wants], self.view, self.scratch)
        for want, outcome in zip(wants, outcomes, strict=True):
            number = want.slot.number
            if isinstance(outcome, Placed):
                started.add(number)
                template, task_id = self._template(want.slot.target), outcome.ask.seed
                self.changes.append(
                    create_task(self.workload, template, task_id, number, outcome.node_id, self.decider, want.reason)
                )
            else:
                self.unplaced.append((number, outcome.diagnosis))
                self._make_way(number, outcome.ask)
            self._give_up(want, placed=isinstance(outcome, Placed))
        return frozenset(started)

    def _make_way(self, number: int, ask: Ask) -> None:
        """Let tasks of lower priority make room, if the settings allow it and it helps, and reserve that room."""
        if not self.scratch.settings.preemption or self.claims >= CLAIMS_MAX:
            return
        way = find_way(ask, self.scratch, self.view)
        if way is None:
            return
        self.claims += 1
        self.scratch.reserve(ask, way.room)
        for victim in way.victims:
            self.scratch.leave(victim)
            self.changes.append(stop_task(victim, self.decider, priority_words(ask, self.view, victim)))
        count = len(way.victims) + way.leaving
        self.waiting.append(f"slot {number} gets node {way.room.node.id} when {count} tasks there have ended")

    def _give_up(self, want: Want, *, placed: bool) -> None:
        old = want.instead_of
        if old is None:
            return
        if placed and may_return(self._reconcile, old):
            return
        if placed or old.absent_s == GONE_S:
            self._stop(old, self._why_lost(old))
        else:
            node_id = old.task.desired.node_id
            self.waiting.append(f"task {old.task.id} stays wanted on node {node_id}, which may return: no other fits")

    def _ask(self, want: Want) -> Ask:
        last = want.slot.ending.last
        avoid = (last.desired.node_id,) if last is not None and last.state is TaskState.FAILED else ()
        task_id = build_task_id(self.view, self.workload, want.slot.number, self._newest_in(want.slot))
        return build_ask(self.workload.record, self._template(want.slot.target), task_id, avoid)

    def _template(self, generation: int) -> Template:
        """Return the template of a generation, or the workload's own where that one is not known any more."""
        held = self._templates.get(generation)
        if held is None:
            record = self.workload.record
            spec = find_template(self.view, record, generation)
            known = Template(record.task_generation, build_task_spec(record.spec))
            held = self._templates[generation] = known if spec is None else Template(generation, spec)
        return held

    def _newest_in(self, slot: Slot) -> int:
        if self._newest is None:
            self._newest = newest_by_slot(self.view, self.workload)
        return self._newest.get(slot.number, 0)

    def _declare_staying(self, kept: Sequence[Slot]) -> None:
        record = self.workload.record
        where: dict[int, list[str]] = {record.task_generation: []}
        for occupant in (o for slot in kept for o in self._present(slot) if o.staying):
            where.setdefault(occupant.target, []).append(occupant.task.desired.node_id)
        for generation, node_ids in where.items():
            self.scratch.count_staying((record.namespace, record.name, generation), node_ids)

    def _why_lost(self, occupant: Occupant) -> str:
        return describe_absence(occupant.task.desired.node_id, occupant.absent_s or 0.0)


def _is_drain_move(occupant: Occupant) -> bool:
    return occupant.draining and not occupant.outdated and not occupant.lost


def _is_update(occupant: Occupant) -> bool:
    return occupant.outdated and not occupant.lost
