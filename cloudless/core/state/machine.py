"""Fold changes into state: total, deterministic, idempotent.

Total: no event can make it fail; what it cannot place is quarantined. Deterministic: the same events
give the same tables and digest on every coordinator. Idempotent: an event at or below an entry's own
mod revision, or a batch at or below the machine's revision, changes nothing. It holds no clock and
does no IO; whoever feeds it gets back what changed and tells others.

Invariants: `revision` never decreases; `digest` is the sum of the fingerprints of all entries; each
index holds exactly what the entries imply.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import (
    ClusterRecord,
    CoordinatorRecord,
    EventRecord,
    LeaderRecord,
    NodeInfo,
    NodeSpec,
    NodeStatus,
    Record,
    Suspicion,
    TaskDesired,
    TaskObserved,
    WorkloadRecord,
)
from cloudless.core.state.digest import MODULUS
from cloudless.core.state.events import Malformed, Removed, StateEvent, Stored
from cloudless.core.state.trust import TrustTables
from cloudless.core.state.view import (
    Authority,
    Candidate,
    Enrolment,
    Node,
    Quarantined,
    Task,
    Token,
    Workload,
)


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry's change. `before` or `after` is None where the entry did not exist, or is unreadable."""

    key: str
    kind: Kind | None
    before: Record | None
    after: Record | None
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What folding a batch changed, in order, and the revision it brought the machine to."""

    revision: int
    transitions: tuple[Transition, ...]


Entry = Stored | Malformed
Place = TypeVar("Place")


class StateMachine:
    """All objects of the cluster at one revision, with indexes. Implements `View`."""

    def __init__(self) -> None:
        self._revision = 0
        self._digest = 0
        self._entries: dict[str, Entry] = {}
        self._cluster: ClusterRecord | None = None
        self._nodes: dict[str, Node] = {}
        self._workloads: dict[tuple[str, str], Workload] = {}
        self._tasks: dict[str, Task] = {}
        self._stray_observed: dict[str, int] = {}
        self._coordinators: dict[str, CoordinatorRecord] = {}
        self._events: dict[str, EventRecord] = {}
        self._trust = TrustTables()
        self._quarantined: dict[str, Quarantined] = {}
        self._candidates: dict[str, Candidate] = {}
        self._suspicions: dict[int, dict[str, Suspicion]] = {}
        self._held: dict[Kind, dict[tuple[str, ...], Stored]] = {}
        self._tasks_of: dict[tuple[str, str], dict[str, None]] = {}
        self._tasks_on: dict[str, dict[str, None]] = {}

    # --- reading ---

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def digest(self) -> int:
        """The 128-bit digest of all entries."""
        return self._digest

    @property
    def entry_count(self) -> int:
        return len(self._entries)

    @property
    def cluster(self) -> ClusterRecord | None:
        return self._cluster

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes

    @property
    def workloads(self) -> Mapping[tuple[str, str], Workload]:
        return self._workloads

    @property
    def tasks(self) -> Mapping[str, Task]:
        return self._tasks

    @property
    def coordinators(self) -> Mapping[str, CoordinatorRecord]:
        return self._coordinators

    @property
    def events(self) -> Mapping[str, EventRecord]:
        return self._events

    @property
    def authorities(self) -> Mapping[str, Authority]:
        return self._trust.authorities

    @property
    def tokens(self) -> Mapping[str, Token]:
        return self._trust.tokens

    @property
    def identities(self) -> Mapping[tuple[str, str], Enrolment]:
        return self._trust.identities

    @property
    def quarantined(self) -> Mapping[str, Quarantined]:
        return self._quarantined

    @property
    def stray_observed(self) -> Mapping[str, int]:
        return self._stray_observed

    def tasks_of(self, namespace: str, workload: str) -> Collection[str]:
        return self._tasks_of.get((namespace, workload), {}).keys()

    def tasks_on(self, node_id: str) -> Collection[str]:
        return self._tasks_on.get(node_id, {}).keys()

    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(sorted(self._candidates.values(), key=lambda candidate: candidate.term))

    def suspicions(self, term: int) -> Mapping[str, Suspicion]:
        return self._suspicions.get(term, {})

    def held(self, kind: Kind) -> Mapping[tuple[str, ...], Stored]:
        return self._held.get(kind, {})

    def keys(self) -> Collection[str]:
        """Return every key held, quarantined ones included."""
        return self._entries.keys()

    def mod_revision(self, key: str) -> int:
        """Return the mod revision of the entry under `key`, 0 if there is none."""
        entry = self._entries.get(key)
        return entry.mod_revision if entry else 0

    # --- folding ---

    def apply(self, revision: int, events: Iterable[StateEvent]) -> Applied:
        """Fold the changes of one or more whole revisions, up to `revision`; return what changed.

        Events at or below the machine's revision are ignored, as etcd may deliver them again.
        """
        done: list[Transition] = []
        for event in events:
            if event.mod_revision <= self._revision:
                continue
            transition = self._fold(event)
            if transition is not None:
                done.append(transition)
        self._revision = max(self._revision, revision)
        return Applied(self._revision, tuple(done))

    def reset(self, revision: int, entries: Iterable[Entry]) -> Applied:
        """Make the machine equal to a fresh read at `revision`; return the differences, deletions included.

        Unlike `apply` this may go back in revision: the caller has decided that the store was restored.
        """
        fresh = {entry.key: entry for entry in entries}
        done: list[Transition] = []
        for key in [key for key in self._entries if key not in fresh]:
            done.append(self._remove(key, revision))
        for entry in fresh.values():
            held = self._entries.get(entry.key)
            if held is None or held.fingerprint != entry.fingerprint:
                done.append(self._store(entry))
        self._revision = revision
        return Applied(revision, tuple(done))

    def _fold(self, event: StateEvent) -> Transition | None:
        held = self._entries.get(event.key)
        if held is not None and event.mod_revision <= held.mod_revision:
            return None
        if isinstance(event, Removed):
            return self._remove(event.key, event.mod_revision) if held is not None else None
        return self._store(event)

    def _store(self, entry: Entry) -> Transition:
        held = self._entries.get(entry.key)
        before = _record_of(held)
        if held is not None:
            self._digest = (self._digest - held.fingerprint) % MODULUS
            if isinstance(held, Malformed) or isinstance(entry, Malformed):
                self._unindex(held)
        self._entries[entry.key] = entry
        self._digest = (self._digest + entry.fingerprint) % MODULUS
        if isinstance(entry, Malformed):
            self._quarantined[entry.key] = Quarantined(entry.key, entry.reason, entry.mod_revision)
            return Transition(entry.key, None, before, None, entry.mod_revision)
        _INDEX[entry.parsed.kind](self, entry)
        return Transition(entry.key, entry.parsed.kind, before, entry.record, entry.mod_revision)

    def _remove(self, key: str, mod_revision: int) -> Transition:
        held = self._entries.pop(key)
        self._digest = (self._digest - held.fingerprint) % MODULUS
        self._unindex(held)
        kind = held.parsed.kind if isinstance(held, Stored) else None
        return Transition(key, kind, _record_of(held), None, mod_revision)

    def _unindex(self, held: Entry) -> None:
        if isinstance(held, Malformed):
            self._quarantined.pop(held.key, None)
        else:
            _UNINDEX[held.parsed.kind](self, held)

    # --- indexes: one pair of functions per kind, listed in the tables below ---

    def _index_cluster(self, entry: Stored) -> None:
        assert isinstance(entry.record, ClusterRecord)
        self._cluster = entry.record

    def _unindex_cluster(self, entry: Stored) -> None:
        self._cluster = None

    def _index_coordinator(self, entry: Stored) -> None:
        assert isinstance(entry.record, CoordinatorRecord)
        self._coordinators[entry.parsed.parts[0]] = entry.record

    def _unindex_coordinator(self, entry: Stored) -> None:
        self._coordinators.pop(entry.parsed.parts[0], None)

    def _index_candidate(self, entry: Stored) -> None:
        assert isinstance(entry.record, LeaderRecord)
        self._candidates[entry.key] = Candidate(entry.key, entry.record, entry.create_revision)

    def _unindex_candidate(self, entry: Stored) -> None:
        self._candidates.pop(entry.key, None)

    def _index_suspicion(self, entry: Stored) -> None:
        assert isinstance(entry.record, Suspicion)
        term, coordinator_id = entry.parsed.parts
        self._suspicions.setdefault(int(term), {})[coordinator_id] = entry.record

    def _unindex_suspicion(self, entry: Stored) -> None:
        term, coordinator_id = int(entry.parsed.parts[0]), entry.parsed.parts[1]
        held = self._suspicions.get(term, {})
        held.pop(coordinator_id, None)
        if not held:
            self._suspicions.pop(term, None)

    def _index_node(self, entry: Stored) -> None:
        node_id = entry.parsed.parts[0]
        node = self._nodes.get(node_id) or Node(node_id)
        match entry.record:
            case NodeSpec() as spec:
                node = replace(node, spec=spec, spec_revision=entry.mod_revision)
            case NodeInfo() as info:
                node = replace(node, info=info, info_revision=entry.mod_revision)
            case NodeStatus() as status:
                node = replace(node, status=status, status_revision=entry.mod_revision)
        self._nodes[node_id] = node

    def _unindex_node(self, entry: Stored) -> None:
        node_id = entry.parsed.parts[0]
        node = self._nodes[node_id]
        match entry.parsed.kind:
            case Kind.NODE_SPEC:
                node = replace(node, spec=NodeSpec(), spec_revision=0)
            case Kind.NODE_INFO:
                node = replace(node, info=None, info_revision=0)
            case _:
                node = replace(node, status=None, status_revision=0)
        if node.spec_revision or node.info_revision or node.status_revision:
            self._nodes[node_id] = node
        else:
            del self._nodes[node_id]

    def _index_workload(self, entry: Stored) -> None:
        assert isinstance(entry.record, WorkloadRecord)
        namespace, name = entry.parsed.parts
        self._workloads[namespace, name] = Workload(entry.record, entry.create_revision, entry.mod_revision)

    def _unindex_workload(self, entry: Stored) -> None:
        namespace, name = entry.parsed.parts
        self._workloads.pop((namespace, name), None)

    def _index_task_desired(self, entry: Stored) -> None:
        desired = entry.record
        assert isinstance(desired, TaskDesired)
        task_id = entry.parsed.parts[0]
        known = self._tasks.get(task_id)
        if known is not None:
            self._forget_task_places(known.desired)
            observed = known.observed, known.observed_revision
            task = Task(desired, entry.mod_revision, entry.create_revision, *observed)
        else:
            task = Task(desired, entry.mod_revision, entry.create_revision, *self._take_stray(task_id))
        self._tasks[task_id] = task
        self._tasks_of.setdefault((desired.namespace, desired.workload), {})[task_id] = None
        self._tasks_on.setdefault(desired.node_id, {})[task_id] = None

    def _take_stray(self, task_id: str) -> tuple[TaskObserved | None, int]:
        self._stray_observed.pop(task_id, None)
        entry = self._entries.get(keys.task_observed(task_id))
        if isinstance(entry, Stored) and isinstance(entry.record, TaskObserved):
            return entry.record, entry.mod_revision
        return None, 0

    def _unindex_task_desired(self, entry: Stored) -> None:
        task_id = entry.parsed.parts[0]
        task = self._tasks.pop(task_id)
        self._forget_task_places(task.desired)
        if task.observed is not None:
            self._stray_observed[task_id] = task.observed_revision

    def _forget_task_places(self, desired: TaskDesired) -> None:
        _forget(self._tasks_of, (desired.namespace, desired.workload), desired.id)
        _forget(self._tasks_on, desired.node_id, desired.id)

    def _index_task_observed(self, entry: Stored) -> None:
        assert isinstance(entry.record, TaskObserved)
        task_id = entry.parsed.parts[0]
        task = self._tasks.get(task_id)
        if task is None:
            self._stray_observed[task_id] = entry.mod_revision
        else:
            desired = task.desired, task.desired_revision, task.desired_create_revision
            self._tasks[task_id] = Task(*desired, entry.record, entry.mod_revision)

    def _unindex_task_observed(self, entry: Stored) -> None:
        task_id = entry.parsed.parts[0]
        self._stray_observed.pop(task_id, None)
        task = self._tasks.get(task_id)
        if task is not None:
            self._tasks[task_id] = replace(task, observed=None, observed_revision=0)

    def _index_event(self, entry: Stored) -> None:
        assert isinstance(entry.record, EventRecord)
        self._events[entry.parsed.parts[0]] = entry.record

    def _unindex_event(self, entry: Stored) -> None:
        self._events.pop(entry.parsed.parts[0], None)

    def _index_trust(self, entry: Stored) -> None:
        self._trust.index(entry)

    def _unindex_trust(self, entry: Stored) -> None:
        self._trust.unindex(entry)

    def _index_held(self, entry: Stored) -> None:
        self._held.setdefault(entry.parsed.kind, {})[entry.parsed.parts] = entry

    def _unindex_held(self, entry: Stored) -> None:
        self._held[entry.parsed.kind].pop(entry.parsed.parts, None)

    def _index_nothing(self, entry: Stored) -> None:
        """Requests are not watched, so none comes here; the tables stay total."""


def _forget(index: dict[Place, dict[str, None]], place: Place, task_id: str) -> None:
    held = index.get(place)
    if held is not None:
        held.pop(task_id, None)
        if not held:
            del index[place]


def _record_of(entry: Entry | None) -> Record | None:
    return entry.record if isinstance(entry, Stored) else None


_Fold = Callable[[StateMachine, Stored], None]

_HELD = (
    *(Kind.AUTOPILOT, Kind.AUTOPILOT_STATUS, Kind.SCHEDULER, Kind.JOIN, Kind.REPLACEMENT, Kind.KEY_ROTATION),
    *(Kind.BACKUP_SETTINGS, Kind.BACKUP_STATUS, Kind.REVISION, Kind.ROLLOUT),
)
"""Kinds whose objects are asked for one by one, or which have few."""

_INDEX: dict[Kind, _Fold] = {
    Kind.CLUSTER: StateMachine._index_cluster,
    Kind.COORDINATOR: StateMachine._index_coordinator,
    Kind.ELECTION: StateMachine._index_candidate,
    Kind.SUSPICION: StateMachine._index_suspicion,
    Kind.NODE_SPEC: StateMachine._index_node,
    Kind.NODE_INFO: StateMachine._index_node,
    Kind.NODE_STATUS: StateMachine._index_node,
    Kind.WORKLOAD: StateMachine._index_workload,
    Kind.TASK_DESIRED: StateMachine._index_task_desired,
    Kind.TASK_OBSERVED: StateMachine._index_task_observed,
    Kind.EVENT: StateMachine._index_event,
    Kind.REQUEST: StateMachine._index_nothing,
    Kind.AUTHORITY: StateMachine._index_trust,
    Kind.TOKEN: StateMachine._index_trust,
    Kind.IDENTITY: StateMachine._index_trust,
    **dict.fromkeys(_HELD, StateMachine._index_held),
}
_UNINDEX: dict[Kind, _Fold] = {
    Kind.CLUSTER: StateMachine._unindex_cluster,
    Kind.COORDINATOR: StateMachine._unindex_coordinator,
    Kind.ELECTION: StateMachine._unindex_candidate,
    Kind.SUSPICION: StateMachine._unindex_suspicion,
    Kind.NODE_SPEC: StateMachine._unindex_node,
    Kind.NODE_INFO: StateMachine._unindex_node,
    Kind.NODE_STATUS: StateMachine._unindex_node,
    Kind.WORKLOAD: StateMachine._unindex_workload,
    Kind.TASK_DESIRED: StateMachine._unindex_task_desired,
    Kind.TASK_OBSERVED: StateMachine._unindex_task_observed,
    Kind.EVENT: StateMachine._unindex_event,
    Kind.REQUEST: StateMachine._index_nothing,
    Kind.AUTHORITY: StateMachine._unindex_trust,
    Kind.TOKEN: StateMachine._unindex_trust,
    Kind.IDENTITY: StateMachine._unindex_trust,
    **dict.fromkeys(_HELD, StateMachine._unindex_held),
}
