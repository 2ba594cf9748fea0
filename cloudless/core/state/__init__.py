"""The replicated state machine: every coordinator folds the same changes and holds the same objects.

`events` are decoded changes, `machine` folds them, `view` is what planners and readers see of it.
"""

from cloudless.core.state.digest import fingerprint
from cloudless.core.state.events import Malformed, Removed, StateEvent, Stored
from cloudless.core.state.machine import Applied, StateMachine, Transition
from cloudless.core.state.view import Candidate, Node, Quarantined, Task, View, Workload

__all__ = [
    "Applied",
    "Candidate",
    "Malformed",
    "Node",
    "Quarantined",
    "Removed",
    "StateEvent",
    "StateMachine",
    "Stored",
    "Task",
    "Transition",
    "View",
    "Workload",
    "fingerprint",
]
