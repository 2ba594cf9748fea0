"""What planners and readers see: objects assembled from their records, and the indexes over them.

A `View` is the machine's own read side, not a copy. Planners run without awaiting, so everything one
planner reads belongs to one revision; whoever wants to keep an object may, because objects are frozen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cloudless.core.keys import Kind
from cloudless.core.lifecycle import is_final
from cloudless.core.model import (
    AuthorityRecord,
    ClusterRecord,
    CoordinatorRecord,
    Desired,
    EventRecord,
    IdentityRecord,
    LeaderRecord,
    NodeInfo,
    NodePhase,
    NodeSpec,
    NodeStatus,
    Reachability,
    Suspicion,
    TaskDesired,
    TaskObserved,
    TaskState,
    TokenRecord,
    WorkloadRecord,
)
from cloudless.core.state.events import Stored


@dataclass(frozen=True, slots=True)
class Node:
    """A node's three records with the mod revision of each (0: the record does not exist)."""

    id: str
    spec: NodeSpec = field(default_factory=NodeSpec)
    info: NodeInfo | None = None
    status: NodeStatus | None = None
    spec_revision: int = 0
    info_revision: int = 0
    status_revision: int = 0

    @property
    def reachable(self) -> bool:
        return self.status is not None and self.status.reachability is Reachability.REACHABLE

    @property
    def schedulable(self) -> bool:
        """Whether new tasks may be placed here."""
        return self.reachable and self.info is not None and not (self.spec.cordoned or self.spec.draining)

    @property
    def labels(self) -> Mapping[str, str]:
        """The agent's own labels, overlaid by those a person set."""
        return {**(self.info.labels if self.info else {}), **self.spec.labels}

    def phase(self, live_tasks: int) -> NodePhase:
        """Return what a person should see of a node that holds `live_tasks` tasks not yet ended."""
        if self.info is None or self.status is None:
            return NodePhase.ENROLLING
        if not self.reachable:
            return NodePhase.OFFLINE
        if self.spec.draining:
            return NodePhase.DRAINING if live_tasks else NodePhase.DRAINED
        return NodePhase.CORDONED if self.spec.cordoned else NodePhase.READY


@dataclass(frozen=True, slots=True)
class Task:
    """A task's desired record and the agent's last report of it, if there is one."""

    desired: TaskDesired
    desired_revision: int
    desired_create_revision: int
    observed: TaskObserved | None = None
    observed_revision: int = 0

    @property
    def id(self) -> str:
        return self.desired.id

    @property
    def state(self) -> TaskState | None:
        """The agent's last word; None while it has said nothing."""
        return self.observed.state if self.observed else None

    @property
    def ended(self) -> bool:
        return is_final(self.state)

    @property
    def wanted(self) -> bool:
        return self.desired.desired is Desired.RUNNING

    @property
    def active(self) -> bool:
        """Whether it counts as a replica: wanted and not ended."""
        return self.wanted and not self.ended


@dataclass(frozen=True, slots=True)
class Workload:
    record: WorkloadRecord
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key in the election's queue. The lowest create revision leads; it is the term."""

    key: str
    record: LeaderRecord
    term: int


@dataclass(frozen=True, slots=True)
class Authority:
    record: AuthorityRecord
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Token:
    record: TokenRecord
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Somebody's identity record."""

    record: IdentityRecord
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A stored value that this coordinator cannot read and therefore ignores."""

    key: str
    reason: str
    mod_revision: int


class View(Protocol):
    """The state at `revision`, read-only. `find_*` return None for what does not exist."""

    @property
    def revision(self) -> int: ...
    @property
    def cluster(self) -> ClusterRecord | None: ...
    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def workloads(self) -> Mapping[tuple[str, str], Workload]:
        """Workloads by (namespace, name)."""
        ...

    @property
    def tasks(self) -> Mapping[str, Task]: ...
    @property
    def coordinators(self) -> Mapping[str, CoordinatorRecord]: ...
    @property
    def events(self) -> Mapping[str, EventRecord]: ...
    @property
    def authorities(self) -> Mapping[str, Authority]: ...
    @property
    def tokens(self) -> Mapping[str, Token]: ...
    @property
    def identities(self) -> Mapping[tuple[str, str], Enrolment]:
        """Everyone who was let in, by (kind, name)."""
        ...

    @property
    def quarantined(self) -> Mapping[str, Quarantined]: ...
    @property
    def stray_observed(self) -> Mapping[str, int]:
        """Ids of tasks that have a report but no desired record, with the report's mod revision."""
        ...

    def held(self, kind: Kind) -> Mapping[tuple[str, ...], Stored]:
        """Return the objects of a kind that has no index of its own, by the variable parts of their keys."""
        ...

    def tasks_of(self, namespace: str, workload: str) -> Collection[str]:
        """Return the ids of a workload's tasks, of every incarnation of that name."""
        ...

    def tasks_on(self, node_id: str) -> Collection[str]:
        """Return the ids of the tasks assigned to a node."""
        ...

    def candidates(self) -> tuple[Candidate, ...]:
        """Return the election's queue, leader first."""
        ...

    def suspicions(self, term: int) -> Mapping[str, Suspicion]:
        """Return the coordinators that have lost the leader of `term`, by id."""
        ...
