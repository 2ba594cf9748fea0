"""However the changes arrive, the state is the same as one rebuilt from a fresh read."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core import keys
from cloudless.core.model import (
    EventRecord,
    IdentityRecord,
    LeaderRecord,
    NodeSpec,
    NodeStatus,
    Reachability,
    Record,
    RequestRecord,
    Role,
    Suspicion,
    TaskDesired,
    TaskObserved,
    TaskState,
)
from cloudless.core.state import Malformed, Removed, StateEvent, StateMachine, Stored
from cloudless.testing.builders import (
    build_malformed,
    build_node,
    build_stored,
    build_task_template,
    build_workload,
)
from tests.unit.identity.trust import build_authority, build_token

TEMPLATE = build_task_template()


def record_for(key: str, variant: int) -> Record:
    """Return one of a few records that belong under the key."""
    parsed = keys.parse(key)
    assert parsed is not None
    match parsed.kind:
        case keys.Kind.TASK_DESIRED:
            return TaskDesired(
                id=parsed.parts[0],
                namespace="default",
                workload=f"w{variant % 2}",
                workload_uid="u",
                task_generation=1,
                slot=variant,
                node_id=f"n{variant % 2}",
                spec=TEMPLATE,
            )
        case keys.Kind.TASK_OBSERVED:
            state = list(TaskState)[variant]
            return TaskObserved(task_id=parsed.parts[0], node_id="n0", sequence=variant, state=state)
        case keys.Kind.NODE_SPEC:
            return NodeSpec(cordoned=variant % 2 == 0)
        case keys.Kind.NODE_INFO:
            return build_node(parsed.parts[0], version=str(variant))
        case keys.Kind.NODE_STATUS:
            return NodeStatus(reachability=Reachability.REACHABLE, since_ms=variant)
        case keys.Kind.WORKLOAD:
            return build_workload(parsed.parts[1], replicas=variant)
        case keys.Kind.ELECTION:
            return LeaderRecord(coordinator_id=f"c{variant}")
        case keys.Kind.SUSPICION:
            return Suspicion(coordinator_id=parsed.parts[1], term=int(parsed.parts[0]))
        case keys.Kind.AUTHORITY:
            return build_authority(variant, id=parsed.parts[0])
        case keys.Kind.TOKEN:
            return build_token(parsed.parts[0], uses_left=variant)
        case keys.Kind.IDENTITY:
            return IdentityRecord(name=parsed.parts[1], role=Role.AGENT, key_hashes=(str(variant),))
        case keys.Kind.EVENT:
            return EventRecord(id=parsed.parts[0], at_ms=variant, kind="K", subject="s", message="m")
        case _:
            return RequestRecord(id=parsed.parts[0], fingerprint=str(variant))


KEYS = [
    *(keys.task_desired(f"t{n}") for n in range(3)),
    *(keys.task_observed(f"t{n}") for n in range(3)),
    *(build(f"n{n}") for n in range(2) for build in (keys.node_spec, keys.node_info, keys.node_status)),
    keys.workload("default", "w0"),
    keys.workload("default", "w1"),
    keys.election(1),
    keys.election(2),
    keys.suspicion(3, "c1"),
    keys.event("e1"),
    keys.authority("cluster-1"),
    keys.token("t1"),
    keys.identity("agent", "n0"),
]
WRITES = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["store", "store", "remove", "malform"]), st.integers(0, 7)),
    max_size=60,
)


def history_of(writes: list[tuple[str, str, int]]) -> tuple[list[StateEvent], list[Stored | Malformed]]:
    """Return the events of a store to which this was written, one revision each, and what it holds at the end."""
    held: dict[str, Stored | Malformed] = {}
    events: list[StateEvent] = []
    for revision, (key, what, variant) in enumerate(writes, 1):
        create = held[key].create_revision if key in held else revision
        if what == "remove":
            held.pop(key, None)
            events.append(Removed(key, revision))
            continue
        held[key] = (
            build_malformed(key, revision, str(variant), create)
            if what == "malform"
            else build_stored(key, record_for(key, variant), revision, create)
        )
        events.append(held[key])
    return events, sorted(held.values(), key=lambda entry: entry.key)


def facts(machine: StateMachine) -> dict[str, Any]:
    """Return all that can be read from the machine, free of the order in which it was learned."""
    return {
        "revision": machine.revision,
        "digest": machine.digest,
        "keys": sorted(machine.keys()),
        "nodes": dict(machine.nodes),
        "workloads": dict(machine.workloads),
        "tasks": dict(machine.tasks),
        "events": dict(machine.events),
        "authorities": dict(machine.authorities),
        "tokens": dict(machine.tokens),
        "identities": dict(machine.identities),
        "quarantined": dict(machine.quarantined),
        "stray": dict(machine.stray_observed),
        "of": {name: sorted(machine.tasks_of("default", name)) for name in ("w0", "w1")},
        "on": {node_id: sorted(machine.tasks_on(node_id)) for node_id in ("n0", "n1")},
        "queue": machine.candidates(),
        "suspicions": dict(machine.suspicions(3)),
    }


@settings(max_examples=200, deadline=None)
@given(WRITES, st.data())
def test_folding_step_by_step_equals_a_fresh_read(writes: list[tuple[str, str, int]], data: st.DataObject) -> None:
    events, entries = history_of(writes)
    revision = len(writes)
    stepwise, at_once, fresh = StateMachine(), StateMachine(), StateMachine()
    for event in events:
        stepwise.apply(event.mod_revision, [event])
    at_once.apply(revision, events)
    fresh.reset(revision, data.draw(st.permutations(entries)))
    assert facts(stepwise) == facts(at_once) == facts(fresh)
    assert stepwise.digest == sum(entry.fingerprint for entry in entries) % (1 << 128)


@settings(max_examples=100, deadline=None)
@given(WRITES, st.integers(0, 60), st.integers(0, 60))
def test_a_replayed_or_restarted_watch_leads_to_the_same_state(
    writes: list[tuple[str, str, int]], cut: int, back: int
) -> None:
    events, _ = history_of(writes)
    whole, broken = StateMachine(), StateMachine()
    whole.apply(len(writes), events)
    cut = min(cut, len(events))
    broken.apply(cut, events[:cut])
    broken.apply(len(writes), events[max(0, cut - back) :])
    assert facts(broken) == facts(whole)


@settings(max_examples=100, deadline=None)
@given(WRITES, WRITES)
def test_reset_from_any_state_equals_a_fresh_machine(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]
) -> None:
    events, _ = history_of(before)
    _, entries = history_of(after)
    used, fresh = StateMachine(), StateMachine()
    used.apply(len(before), events)
    used.reset(len(after), entries)
    fresh.reset(len(after), entries)
    assert facts(used) == facts(fresh)
    assert used.reset(len(after), entries).transitions == ()
