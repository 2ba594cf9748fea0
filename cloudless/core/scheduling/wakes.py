"""Which happenings can let a task be placed that found no node, by what was in the way.

A change of a node, or of the scheduler's settings, may take any obstacle away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum


class Happening(Enum):
    """What may take an obstacle away.

    ROOM_MADE         a task ended, or its record went
    TASK_DECIDED      a task was given to a node, or told to stop
    WORKLOAD_CHANGED  another workload came, changed or went
    NODE_CHANGED      anything about a node, or the settings
    """

    ROOM_MADE = "ROOM_MADE"
    TASK_DECIDED = "TASK_DECIDED"
    WORKLOAD_CHANGED = "WORKLOAD_CHANGED"
    NODE_CHANGED = "NODE_CHANGED"


_ONLY_NODES = frozenset({Happening.NODE_CHANGED})
_ROOM = frozenset({Happening.NODE_CHANGED, Happening.ROOM_MADE})

# obstacle's code            what may take it away
UNBLOCKED_BY: Mapping[str, frozenset[Happening]] = {
    "offline": _ONLY_NODES,
    "enrolling": _ONLY_NODES,
    "draining": _ONLY_NODES,
    "cordoned": _ONLY_NODES,
    "not-starting": _ONLY_NODES,
    "executor": _ONLY_NODES,
    "ability": _ONLY_NODES,
    "region": _ONLY_NODES,
    "zone": _ONLY_NODES,
    "node-selector": _ONLY_NODES,
    "node-affinity": _ONLY_NODES,
    "taint": _ONLY_NODES,
    "capacity": _ROOM,
    "host-port": _ROOM,
    "workload-affinity": _ONLY_NODES | {Happening.TASK_DECIDED, Happening.WORKLOAD_CHANGED},
    "workload-anti-affinity": _ROOM | {Happening.TASK_DECIDED, Happening.WORKLOAD_CHANGED},
}


def unblocking(codes: Iterable[str]) -> frozenset[Happening]:
    """Return the happenings after which it is worth looking again; a code nobody knows may be taken away by any."""
    every = frozenset(Happening)
    return frozenset({Happening.NODE_CHANGED}).union(*(UNBLOCKED_BY.get(code, every) for code in codes))
