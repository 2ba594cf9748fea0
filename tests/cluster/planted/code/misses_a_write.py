"""Planted: this coordinator's state misses what was written through coordinator-1."""

from cloudless.core.state.events import StateEvent
from cloudless.core.state.machine import StateMachine, Transition

fold = StateMachine._fold


def miss(self: StateMachine, event: StateEvent) -> Transition | None:
    return None if "/through-coordinator-1" in event.key else fold(self, event)


StateMachine._fold = miss  # type: ignore[method-assign]
