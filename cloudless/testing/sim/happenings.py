"""What checkers are told: facts of a run, seen from outside the parts they speak of.

Each is told at the moment it happens, in the order of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudless.core.state import Candidate
from cloudless.ports import Event, Txn

if TYPE_CHECKING:
    from cloudless.testing.sim.loop import Process


@dataclass(frozen=True, slots=True)
class Stored:
    """The store has a new revision. `by`: the process that asked, None if nobody did.

    `lease_id`: of the lease whose time was over. `transitions` (`core.state.Transition`) are what changed as
    records, before and after.
    """

    revision: int
    by: Process | None
    events: tuple[Event, ...]
    txn: Txn | None
    lease_id: int
    transitions: tuple[Any, ...]
    leader: Candidate | None
    """Who was first in the election's queue just before."""


@dataclass(frozen=True, slots=True)
class AskedStore:
    """A call reached the store and is about to be carried out."""

    by: Process
    call: str
    txn: Txn | None
    revision: int


@dataclass(frozen=True, slots=True)
class SawRevision:
    """A coordinator's state stands at `revision`."""

    life: Any
    revision: int
    digest: int


@dataclass(frozen=True, slots=True)
class TookOffice:
    """A leader scope begins, its state at `revision`."""

    life: Any
    term: int
    revision: int


@dataclass(frozen=True, slots=True)
class LeftOffice:
    """A leader scope has ended: nothing of it runs any more."""

    life: Any
    term: int


@dataclass(frozen=True, slots=True)
class Followed:
    """An agent took a coordinator's assignments."""

    node_id: str
    term: int
    revision: int


@dataclass(frozen=True, slots=True)
class RefusedAssignments:
    """An agent refused what a coordinator sent."""

    node_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class ReportAcknowledged:
    """An agent was told that its report is done with."""

    node_id: str
    task_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Began:
    """An attempt at a task began on a node. `journaled` is the attempt its agent's journal holds (-1: no entry)."""

    node_id: str
    task_id: str
    attempt: int
    journaled: int


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt at a task ended on a node."""

    node_id: str
    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A user begins an operation, or asks again under the same request id."""

    request_id: str
    operation: Any


@dataclass(frozen=True, slots=True)
class Answered:
    """A user's operation was answered: at `revision`, or refused with `error`."""

    request_id: str
    operation: Any
    revision: int
    error: str


@dataclass(frozen=True, slots=True)
class Read:
    """A user's linearizable read, asked when `known_revision` had been acknowledged to somebody."""

    known_revision: int
    revision: int


@dataclass(frozen=True, slots=True)
class Handled:
    """A request ended at a coordinator after `lasted_s` of the `allowed_s` it had.

    `stalled`: the process was frozen in between.
    """

    method: str
    lasted_s: float
    allowed_s: float
    outcome: str
    stalled: bool


@dataclass(frozen=True, slots=True)
class Disturbed:
    """A fault begins. `kind` as in `faults`; `who` it concerns."""

    kind: str
    who: str


@dataclass(frozen=True, slots=True)
class Soothed:
    """A fault is over."""

    kind: str
    who: str


@dataclass(frozen=True, slots=True)
class Acted:
    """An operator, or fate, did something about members or certificates."""

    act: str
    who: str


@dataclass(frozen=True, slots=True)
class LetIn:
    """A coordinator's door let a call or a message in. `peer` is what the certificate says, None if none was shown."""

    life: Any
    method: str
    peer: Any


@dataclass(frozen=True, slots=True)
class Renewed:
    """`who` has a new certificate in place of `before`; `now_ms` is its own wall clock."""

    who: str
    before: Any
    made: Any
    now_ms: int


@dataclass(frozen=True, slots=True)
class Looked:
    """Some time has passed: what lasts too long can be noticed."""


Tell = Callable[[Any], None]
