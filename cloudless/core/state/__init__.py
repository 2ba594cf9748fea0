"""The replicated state machine: every coordinator folds the same changes and holds the same objects.

`events` are decoded changes, `machine` folds them, `view` is what planners and readers see of it.
"""

from cloudless.core.state.digest import fingerprint
from cloudless.core.state.events import Malformed, Removed, StateEvent, Stored
from cloudless.core.state.machine import Applied, StateMachine, Transition
from cloudless.core.state.view import Authority, Candidate, Enrolment, Node, Quarantined, Task, Token, View, Workload

__all__ = [
    "Applied",
    "Authority",
    "Candidate",
    "Enrolment",
    "Malformed",
    "Node",
    "Quarantined",
    "Removed",
    "StateEvent",
    "StateMachine",
    "Stored",
    "Task",
    "Token",
    "Transition",
    "View",
    "Workload",
    "fingerprint",
]
