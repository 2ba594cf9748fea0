"""What is known of a run: the operations as clients saw them, and the changes as the store itself tells them.

An object is anything with a name that holds one value at a time. Every write carries a value of its own, never
used twice, so that a value tells which write it came from. The store numbers its changes with one counter for all
objects: the revision. Both together make checking cheap: nothing has to be searched for, everything is looked up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    WRITE = "write"
    READ = "read"


class Outcome(Enum):
    """What the client knows. OK: acknowledged. FAILED: surely not done. AMBIGUOUS: it may happen, even later."""

    OK = "ok"
    FAILED = "failed"
    AMBIGUOUS = "ambiguous"


class Consistency(Enum):
    """What a read was promised."""

    LINEARIZABLE = "linearizable"
    BOUNDED = "bounded"
    STALE = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request from the first try to the last answer.

    `value`: written or read; None: deleted, or not there. `revision`: of the write, or of the state a read was
    answered from; 0 if the answer did not name it. Times are monotonic seconds of one clock; `return_s` None: there
    was no answer. `if_revision`: the write was to happen only while the object was at that revision (0: always).
    `min_revision`: the read was to be answered from no older state. `staleness_s`: how old a BOUNDED or STALE read
    declares that it may be. `coordinator`: who answered, "" if that does not matter.
    """

    client: str
    action: Action
    name: str
    value: str | None
    call_s: float
    return_s: float | None = None
    outcome: Outcome = Outcome.OK
    request_id: str = ""
    revision: int = 0
    if_revision: int = 0
    min_revision: int = 0
    consistency: Consistency = Consistency.LINEARIZABLE
    staleness_s: float = math.inf
    coordinator: str = ""

    def __str__(self) -> str:
        who = f"{self.client} at {self.coordinator}" if self.coordinator else self.client
        until = "no answer" if self.return_s is None else f"{self.return_s:.3f}"
        found = f" revision {self.revision}" if self.revision else ""
        how = self.consistency.value if self.action is Action.READ else f"request {self.request_id or '-'}"
        verb = self.action.value if self.value is not None or self.action is Action.READ else "delete"
        what = f"{self.name} = {self.value}" if self.value is not None else self.name
        return f"[{who}: {verb} {what}, {how}, {self.call_s:.3f} to {until}, {self.outcome.value}{found}]"


@dataclass(frozen=True, slots=True)
class LogEvent:
    """The object holds `value` (None: it is gone) from `revision` on; `request_id` as the store remembers it, or ""."""

    revision: int
    name: str
    value: str | None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class LeaderWrite:
    """`leader` ("": not known who) wrote `key` as the leader of `term`."""

    revision: int
    term: int
    key: str = ""
    leader: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is known. `log`: every change of the operations' objects since before the first operation, oldest
    first, complete up to `last_revision`; `leader_writes` oldest first."""

    operations: tuple[Operation, ...]
    log: tuple[LogEvent, ...]
    last_revision: int
    leader_writes: tuple[LeaderWrite, ...] = ()


class Fault(Enum):
    """What went wrong."""

    LOST_WRITE = "acknowledged write lost"
    WRONG_REVISION = "answer names a revision that is not the write's"
    LOST_UPDATE = "conditional write went over another write"
    DOUBLE_EFFECT = "one request had two effects"
    RESURRECTED = "write took effect that must not, or came back"
    UNASKED_WRITE = "value appeared that nobody wrote"
    OLD_TERM = "write of an older term after one of a newer"
    TWO_LEADERS = "two leaders in one term"
    REAL_TIME_ORDER = "effect before its cause"
    STALE_READ = "linearizable read misses an earlier write"
    STALER_THAN_DECLARED = "read is older than it declares"
    WENT_BACK = "revision went back"
    PHANTOM_READ = "read returns a value that never was"
    WRONG_READ = "read differs from the state at its revision"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise, with everything that proves it."""

    fault: Fault
    explanation: str
    operations: tuple[Operation, ...] = ()
    revisions: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.fault.value}: {self.explanation}"
