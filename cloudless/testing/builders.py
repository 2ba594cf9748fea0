"""Short ways to build a cluster's state in a test, and to carry out plans on it without a store.

`TestCluster` keeps a real state machine and a revision counter. `commit` does what the committer and
the store do together: each change is checked against its preconditions and then folded as events of one
new revision, or refused as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cloudless.core import keys
from cloudless.core.abilities import WORDS
from cloudless.core.model import (
    ExecutorKind,
    NodeInfo,
    NodeSpec,
    NodeStatus,
    Placement,
    Reachability,
    Record,
    Resources,
    TaskObserved,
    TaskSpec,
    TaskState,
    WorkloadRecord,
    WorkloadSpec,
)
from cloudless.core.orchestration import change_spec
from cloudless.core.plan import Change, PutRecord
from cloudless.core.state import Malformed, Removed, StateEvent, StateMachine, Stored, fingerprint

SMALL = Resources(cpu_millicores=100, memory_mb=64)
NODE_CAPACITY = Resources(cpu_millicores=4000, memory_mb=4096, storage_mb=10_240, bandwidth_mbps=1000, gpus=0)


def build_spec(**fields: object) -> WorkloadSpec:
    """Return a valid specification of a process workload, with `fields` replaced."""
    return replace(WorkloadSpec(command=("sleep", "60"), requests=SMALL), **fields)  # type: ignore[arg-type]


def build_workload(name: str = "web", namespace: str = "default", uid: str = "uid-1", **spec: object) -> WorkloadRecord:
    """Return a workload record whose specification is `build_spec(**spec)`."""
    return WorkloadRecord(namespace=namespace, name=name, uid=uid, spec=build_spec(**spec))


def build_node(node_id: str, capacity: Resources = NODE_CAPACITY, zone: str = "zone-a", **info: object) -> NodeInfo:
    """Return what an agent with both executors and all abilities says of its node."""
    executors, able = ("process", "docker"), tuple(sorted(WORDS))
    made = NodeInfo(id=node_id, name=node_id, zone=zone, capacity=capacity, executors=executors, capabilities=able)
    return replace(made, **info)  # type: ignore[arg-type]


def build_stored(
    key: str, record: Record, mod_revision: int, create_revision: int = 0, content: bytes | None = None
) -> Stored:
    """Return the event of a record written under `key`; its fingerprint follows from the record's content."""
    parsed = keys.parse(key)
    assert parsed is not None, key
    create = create_revision or mod_revision
    value = repr(record).encode() if content is None else content
    return Stored(key, parsed, record, create, mod_revision, fingerprint(key, value, create, mod_revision))


def build_malformed(key: str, mod_revision: int, reason: str = "unreadable", create_revision: int = 0) -> Malformed:
    """Return the event of something unreadable written under `key`."""
    create = create_revision or mod_revision
    digest = fingerprint(key, hashlib.blake2b(reason.encode()).digest(), create, mod_revision)
    return Malformed(key, reason, create, mod_revision, digest)


@dataclass(slots=True)
class TestCluster:
    """A state machine and the only writer to it. `created` remembers the create revision of each key."""

    __test__ = False

    machine: StateMachine = field(default_factory=StateMachine)
    created: dict[str, int] = field(default_factory=dict)
    history: list[StateEvent] = field(default_factory=list)

    # --- writing ---

    def put(self, key: str, record: Record) -> int:
        """Store a record at a new revision; return the revision."""
        revision = self.machine.revision + 1
        self._fold(revision, [self._stored(key, record, revision)])
        return revision

    def delete(self, key: str) -> int:
        """Remove a key at a new revision; return the revision."""
        revision = self.machine.revision + 1
        self.created.pop(key, None)
        self._fold(revision, [Removed(key, revision)])
        return revision

    def commit(self, changes: Iterable[Change]) -> list[Change]:
        """Carry out the changes, each all-or-nothing, in order; return those refused by a precondition."""
        return [change for change in changes if not self._commit_one(change)]

    def add_node(self, node_id: str, *, reachable: bool = True, **info: object) -> NodeInfo:
        """Add a node; other arguments as `build_node`."""
        record = build_node(node_id, **info)  # type: ignore[arg-type]
        self.put(keys.node_info(node_id), record)
        self.set_reachable(node_id, reachable)
        return record

    def set_reachable(self, node_id: str, reachable: bool, now_ms: int = 0) -> None:
        found = Reachability.REACHABLE if reachable else Reachability.UNREACHABLE
        self.put(keys.node_status(node_id), NodeStatus(reachability=found, since_ms=now_ms))

    def set_node_spec(self, node_id: str, **spec: object) -> None:
        self.put(keys.node_spec(node_id), NodeSpec(**spec))  # type: ignore[arg-type]

    def remove_node(self, node_id: str) -> None:
        """Remove all records of a node, as an operator who gives it up does."""
        for key in (keys.node_spec(node_id), keys.node_info(node_id), keys.node_status(node_id)):
            if self.machine.mod_revision(key):
                self.delete(key)

    def add_workload(self, record: WorkloadRecord) -> WorkloadRecord:
        self.put(keys.workload(record.namespace, record.name), record)
        return record

    def update_workload(self, name: str = "web", namespace: str = "default", **spec: object) -> WorkloadRecord:
        """Change fields of the specification as the API does: generations grow as they should."""
        held = self.machine.workloads[namespace, name].record
        after = replace(held.spec, **spec)  # type: ignore[arg-type]
        changed = change_spec(self.machine, held, after, now_ms=held.updated_at_ms)
        puts = (PutRecord(keys.workload(namespace, name), changed.record), *changed.puts)
        self.commit([Change(puts=puts, deletes=changed.deletes)])
        return changed.record

    def mark_deleted(self, name: str = "web", namespace: str = "default", now_ms: int = 1) -> None:
        held = self.machine.workloads[namespace, name].record
        self.add_workload(replace(held, deleted_at_ms=now_ms))

    def report(self, task_id: str, state: TaskState, **fields: object) -> None:
        """Store the agent's report that a task is in `state`; sequence and node follow from what is known."""
        task = self.machine.tasks[task_id]
        before = task.observed or TaskObserved(
            task_id=task_id, node_id=task.desired.node_id, sequence=0, state=TaskState.ACCEPTED
        )
        after = replace(before, sequence=before.sequence + 1, state=state, **fields)  # type: ignore[arg-type]
        self.put(keys.task_observed(task_id), after)

    # --- inside ---

    def _commit_one(self, change: Change) -> bool:
        if any(self.machine.mod_revision(p.key) != p.mod_revision for p in change.preconditions):
            return False
        revision = self.machine.revision + 1
        events: list[StateEvent] = [self._stored(put.key, put.record, revision) for put in change.puts]
        for key in change.deletes:
            self.created.pop(key, None)
            events.append(Removed(key, revision))
        self._fold(revision, events)
        return True

    def _stored(self, key: str, record: Record, revision: int) -> Stored:
        return build_stored(key, record, revision, self.created.setdefault(key, revision))

    def _fold(self, revision: int, events: list[StateEvent]) -> None:
        self.history.extend(events)
        self.machine.apply(revision, events)


def build_task_template(**fields: object) -> TaskSpec:
    """Return a task's specification, with `fields` replaced."""
    return replace(TaskSpec(command=("sleep", "60"), requests=SMALL), **fields)  # type: ignore[arg-type]


def build_placement(node_selector: Mapping[str, str] | None = None, **fields: object) -> Placement:
    return replace(Placement(node_selector=node_selector or {}), **fields)  # type: ignore[arg-type]


DOCKER = ExecutorKind.DOCKER
