"""The moves a task may make, as a table, and what its states mean.

::

    ACCEPTED ─► STARTING ─► RUNNING ─► COMPLETED | FAILED
                   ▲  │        │
                   │  ▼        ▼
                  BACKOFF ◄────┘        any of them ─► STOPPING ─► STOPPED

`BACKOFF ─► STARTING` begins the next attempt; within one attempt the state only moves right.
Final states are left never: a replacement is a new task.
"""

from __future__ import annotations

from cloudless.core.model import TaskState

_S = TaskState

FINAL = frozenset({_S.COMPLETED, _S.FAILED, _S.STOPPED})
"""States a task never leaves."""

LIVE = frozenset({_S.ACCEPTED, _S.STARTING, _S.RUNNING, _S.BACKOFF, _S.STOPPING})
"""States in which a task holds its reservation on the node."""

MOVES: dict[TaskState, frozenset[TaskState]] = {
    _S.ACCEPTED: frozenset({_S.STARTING, _S.STOPPING, _S.STOPPED, _S.FAILED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.BACKOFF, _S.COMPLETED, _S.FAILED, _S.STOPPING, _S.STOPPED}),
    _S.RUNNING: frozenset({_S.BACKOFF, _S.COMPLETED, _S.FAILED, _S.STOPPING, _S.STOPPED}),
    _S.BACKOFF: frozenset({_S.STARTING, _S.FAILED, _S.STOPPING, _S.STOPPED}),
    _S.STOPPING: frozenset({_S.STOPPED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.STOPPED: frozenset(),
}


def may_move(before: TaskState, after: TaskState) -> bool:
    """Return whether a task in `before` may be reported in `after` next."""
    return after in MOVES[before]


def is_final(state: TaskState | None) -> bool:
    """Return whether the task has ended for good; a task never reported (None) has not."""
    return state in FINAL
