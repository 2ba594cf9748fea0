"""Which slots a workload keeps when it has too many, which it fills when it has too few.

Too many: those go first that failed for good, then lost ones, not running ones, not ready ones (of these first the
outdated or moving ones), available ones that are outdated or moving, available ones; completed ones go last: what does
its work stays before what is new. Among equals the newest goes first, then the highest number. So numbers may have gaps
after scaling down. Too few: the lowest free numbers are filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloudless.core.model import TaskState
from cloudless.core.orchestration.census import Census, Occupant, Slot


def choose_slots(census: Census, replicas: int) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
    """Return the filled slots to keep, by number, and the surplus ones, least valuable first."""
    filled = [slot for slot in census.slots.values() if slot.filled]
    if len(filled) <= replicas:
        return tuple(sorted(filled, key=lambda slot: slot.number)), ()
    ranked = sorted(filled, key=_keep_first)
    kept = sorted(ranked[:replicas], key=lambda slot: slot.number)
    return tuple(kept), tuple(reversed(ranked[replicas:]))


def vacant_slots(census: Census, kept: Iterable[Slot], replicas: int) -> tuple[Slot, ...]:
    """Return the lowest free slots that are needed to have `replicas`."""
    taken = {slot.number for slot in kept}
    missing = replicas - len(taken)
    free = (number for number in range(replicas) if number not in taken)
    return tuple(census.slot(number) for number, _ in zip(free, range(missing), strict=False))


def are_calm(slots: Iterable[Slot]) -> bool:
    """Return whether there is nothing to do about any of the slots."""
    return all(
        (len(slot.occupants) == 1 and slot.occupants[0].staying and slot.occupants[0].absent_s is None)
        if slot.ending.done is None
        else not slot.occupants
        for slot in slots
    )


def by_merit(occupant: Occupant) -> tuple[bool, bool, bool, bool, bool, int, str]:
    """Order the occupants of one slot: the one to keep comes first."""
    task = occupant.task
    wellness = not occupant.available, occupant.available_in_s is None, not occupant.running, occupant.lost
    return *wellness, occupant.outdated, task.desired_create_revision, task.id


def _keep_first(slot: Slot) -> tuple[int, int, int]:
    newest = max((occupant.task.desired_create_revision for occupant in slot.occupants), default=0)
    return -_worth(slot), newest, slot.number


def _worth(slot: Slot) -> int:
    if slot.ending.done is not None:
        return 8 if slot.ending.done.state is TaskState.COMPLETED else 0
    best = min(slot.occupants, key=by_merit)
    if best.lost:
        return 1
    if not best.running:
        return 2
    if best.available:
        return 7 if best.staying else 6
    if not best.staying:
        return 3
    return 4 if best.available_in_s is None else 5


def list_numbers(slots: Sequence[Slot], shown_max: int = 8) -> str:
    """Return the numbers of slots for people, of many the first only."""
    shown = ", ".join(str(slot.number) for slot in slots[:shown_max])
    return shown if len(slots) <= shown_max else f"{shown} and {len(slots) - shown_max} more"
