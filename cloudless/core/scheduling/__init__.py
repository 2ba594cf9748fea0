"""Which node runs a task: filters say where it may, scorers where it had better, a scratch view keeps count.

A placement reserves its room before the next is considered, so no plan books anything twice. All is
decided from one view, without side effects; the same view and asks give the same nodes.
"""

from cloudless.core.scheduling.ask import Ask, HostPort, fixed_ports
from cloudless.core.scheduling.diagnosis import Diagnosis
from cloudless.core.scheduling.pinned import PASSING, find_standing_obstacle, place_on
from cloudless.core.scheduling.placement import Placed, Unplaced, place
from cloudless.core.scheduling.preemption import Way, find_way, priority_words
from cloudless.core.scheduling.scratch import Room, Scratch
from cloudless.core.scheduling.settings import check_scheduler, scheduler_of
from cloudless.core.scheduling.taints import describe_taint, why_leave

__all__ = [
    "PASSING",
    "Ask",
    "Diagnosis",
    "HostPort",
    "Placed",
    "Room",
    "Scratch",
    "Unplaced",
    "Way",
    "check_scheduler",
    "describe_taint",
    "find_standing_obstacle",
    "find_way",
    "fixed_ports",
    "place",
    "place_on",
    "priority_words",
    "scheduler_of",
    "why_leave",
]
