"""Which node runs a task: filters say where it may, scorers where it had better, a scratch view keeps count.

A placement reserves its room before the next is considered, so no plan books anything twice. All is
decided from one view, without side effects; the same view and asks give the same nodes.
"""

from cloudless.core.scheduling.ask import Ask
from cloudless.core.scheduling.diagnosis import Diagnosis
from cloudless.core.scheduling.pinned import PASSING, find_standing_obstacle, place_on
from cloudless.core.scheduling.placement import Placed, Unplaced, place
from cloudless.core.scheduling.scratch import Room, Scratch

__all__ = [
    "PASSING",
    "Ask",
    "Diagnosis",
    "Placed",
    "Room",
    "Scratch",
    "Unplaced",
    "find_standing_obstacle",
    "place",
    "place_on",
]
