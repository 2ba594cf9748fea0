"""No placement exceeds what a node has or breaks a constraint, and what is refused really does not fit."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core import keys
from cloudless.core.model import (
    COST_LABEL,
    NETWORK_PENALTY_LABEL,
    ExecutorKind,
    NodeOperator,
    NodeTerm,
    Placement,
    PortProtocol,
    Resources,
    SchedulerRecord,
    SpreadTopology,
    Taint,
    TaintEffect,
    Toleration,
    TolerationOperator,
    Topology,
    WorkloadTerm,
)
from cloudless.core.scheduling import Ask, HostPort, Placed, Scratch, place
from cloudless.core.scheduling.filters import find_obstacle, find_room_obstacle, find_site_obstacle, may_take
from cloudless.testing.builders import TestCluster
from tests.properties.plain_scheduler import place_plainly, summarise

ZONES = st.sampled_from(["a", "b", "c"])
AMOUNTS = st.builds(Resources, st.integers(0, 400), st.integers(0, 400), st.just(0), st.just(0), st.integers(0, 1))


@st.composite
def clusters(draw: st.DrawFn) -> TestCluster:
    cluster = TestCluster()
    for n in range(draw(st.integers(0, 6))):
        cluster.add_node(
            f"n{n}",
            reachable=draw(st.sampled_from([True, True, True, False])),
            zone=draw(ZONES),
            region=draw(st.sampled_from(["r1", "r2"])),
            capacity=draw(st.builds(Resources, *[st.integers(0, 1000)] * 2, st.just(0), st.just(0), st.integers(0, 2))),
            executors=draw(st.sampled_from([("process",), ("process", "docker")])),
            labels=draw(LABELS),
        )
        cluster.set_node_spec(f"n{n}", cordoned=draw(st.sampled_from([False, False, True])), taints=draw(TAINTS))
    cluster.put(keys.SCHEDULER, draw(WEIGHTS))
    return cluster


LABELS = st.fixed_dictionaries(
    {},
    optional={
        "disk": st.sampled_from(["ssd", "hdd"]),
        COST_LABEL: st.sampled_from(["1", "2.5", "free"]),
        NETWORK_PENALTY_LABEL: st.sampled_from(["0.5", "7"]),
    },
)
TAINTS = st.lists(
    st.builds(Taint, key=st.sampled_from(["gpu", "old"]), effect=st.sampled_from(TaintEffect), value=st.just("")),
    max_size=2,
).map(tuple)
TOLERATIONS = st.lists(
    st.builds(
        Toleration,
        key=st.sampled_from(["gpu", "old"]),
        operator=st.sampled_from(TolerationOperator),
        effect=st.sampled_from([None, TaintEffect.NO_SCHEDULE]),
    ),
    max_size=2,
).map(tuple)
WEIGHT = st.sampled_from([0, 0, 50, 100])
WEIGHTS = st.builds(
    SchedulerRecord,
    **dict.fromkeys(["affinity", "locality", "reliability", "cost", "network"], WEIGHT),
    pack=st.just(0),
    balance=WEIGHT,
) | st.builds(SchedulerRecord, locality=WEIGHT)
TERM_WEIGHT = st.sampled_from([0, 0, 1, 30])
NODE_TERMS = st.lists(
    st.one_of(
        st.builds(
            NodeTerm,
            key=st.just("disk"),
            operator=st.sampled_from([NodeOperator.IN, NodeOperator.NOT_IN]),
            values=st.just(("ssd",)),
            weight=TERM_WEIGHT,
        ),
        st.builds(
            NodeTerm,
            key=st.just("disk"),
            operator=st.sampled_from([NodeOperator.EXISTS, NodeOperator.DOES_NOT_EXIST]),
            weight=TERM_WEIGHT,
        ),
    ),
    max_size=2,
).map(tuple)
WORKLOAD_TERMS = st.lists(
    st.one_of(
        st.builds(
            WorkloadTerm,
            workload=st.sampled_from(["w0", "w1", "w2"]),
            topology=st.sampled_from(Topology),
            weight=TERM_WEIGHT,
        ),
        st.builds(
            WorkloadTerm,
            labels=st.sampled_from([{"app": "a"}, {"app": "b"}]),
            topology=st.sampled_from(Topology),
            weight=TERM_WEIGHT,
        ),
    ),
    max_size=2,
).map(tuple)
NONE = st.just(())
PLACEMENTS = st.builds(
    Placement,
    zones=st.lists(ZONES, max_size=2).map(tuple),
    regions=st.lists(st.sampled_from(["r1", "r2"]), max_size=1).map(tuple),
    node_selector=st.dictionaries(st.just("disk"), st.just("ssd")),
    spread_topology=st.sampled_from(SpreadTopology),
    tolerations=NONE | TOLERATIONS,
    node_affinity=NONE | NODE_TERMS,
    workload_affinity=NONE | WORKLOAD_TERMS,
    workload_anti_affinity=NONE | WORKLOAD_TERMS,
)
PORTS = st.lists(
    st.sampled_from([(80, PortProtocol.TCP), (53, PortProtocol.TCP), (53, PortProtocol.UDP)]), max_size=2, unique=True
).map(tuple)


@st.composite
def asks(draw: st.DrawFn) -> list[Ask]:
    made: list[Ask] = []
    for group in range(draw(st.integers(1, 3))):
        fields = {
            "namespace": "default",
            "workload": f"w{group}",
            "requests": draw(AMOUNTS),
            "executor": draw(st.sampled_from(ExecutorKind)),
            "placement": draw(PLACEMENTS),
            "host_ports": draw(NONE | PORTS),
            "avoid": tuple(draw(st.lists(st.sampled_from(["n0", "n1"]), max_size=1))),
            "labels": draw(st.sampled_from([{}, {"app": "a"}, {"app": "b", "tier": "x"}])),
            "priority": draw(st.sampled_from([0, 0, 0, 7])),
        }
        made += [Ask(seed=f"{group}-{n}", **fields) for n in range(draw(st.integers(1, 6)))]
    return draw(st.permutations(made))


@settings(max_examples=200, deadline=None)
@given(clusters(), asks())
def test_placements_respect_capacity_and_constraints(cluster: TestCluster, wanted: list[Ask]) -> None:
    scratch = Scratch(cluster.machine)
    outcomes = place(wanted, cluster.machine, scratch)
    assert [outcome.ask for outcome in outcomes] == wanted
    used: dict[str, Resources] = {}
    ports: Counter[tuple[str, HostPort]] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, Placed):
            node_id, ask = outcome.node_id, outcome.ask
            assert find_site_obstacle(ask, scratch.rooms[node_id].shelf.site) is None
            used[node_id] = used.get(node_id, Resources()) + ask.requests
            ports.update((node_id, port) for port in ask.host_ports)
        else:
            neighbours = scratch.neighbours_of(outcome.ask)
            assert all(find_obstacle(outcome.ask, room, neighbours) is not None for room in scratch.rooms.values())
            assert outcome.diagnosis.nodes_total == len(scratch.rooms)
            assert sum(count for _, count in outcome.diagnosis.reasons) == len(scratch.rooms)
            assert outcome.diagnosis.text
    for node_id, amount in used.items():
        info = cluster.machine.nodes[node_id].info
        assert info is not None
        assert amount.fits_in(info.capacity)
        assert scratch.rooms[node_id].free == info.capacity - amount
    assert all(count == 1 for count in ports.values())
    assert outcomes == place(wanted, cluster.machine)


@st.composite
def crowds(draw: st.DrawFn) -> TestCluster:
    """Many nodes of few kinds, so that shelves hold several and ties are common; some hold tasks already."""
    cluster = TestCluster()
    sizes = st.sampled_from([Resources(300, 300), Resources(310, 300), Resources(600, 300, gpus=1), Resources(0, 900)])
    for n in range(draw(st.integers(1, 14))):
        cluster.add_node(f"n{n}", zone=draw(ZONES), capacity=draw(sizes), labels=draw(LABELS))
        cluster.set_node_spec(f"n{n}", labels=draw(LABELS), draining=draw(st.integers(0, 7)) == 7)
    cluster.put(keys.SCHEDULER, draw(WEIGHTS))
    return cluster


@settings(max_examples=300, deadline=None)
@given(st.one_of(clusters(), crowds()), asks(), asks())
def test_the_same_nodes_and_obstacles_are_found_as_by_looking_at_every_node(
    cluster: TestCluster, earlier: list[Ask], later: list[Ask]
) -> None:
    scratch = Scratch(cluster.machine)
    found = [*place(earlier, cluster.machine, scratch), *place(later, cluster.machine, scratch)]
    plain = Scratch(cluster.machine)
    expected = [*place_plainly(earlier, plain), *place_plainly(later, plain)]
    assert [summarise(outcome) for outcome in found] == expected


@settings(max_examples=200, deadline=None)
@given(st.one_of(clusters(), crowds()), asks())
def test_the_short_way_to_ask_a_room_agrees_with_the_filters(cluster: TestCluster, wanted: list[Ask]) -> None:
    scratch = Scratch(cluster.machine)
    place(wanted, cluster.machine, scratch)
    for ask in wanted:
        neighbours = scratch.neighbours_of(ask)
        for room in scratch.rooms.values():
            assert may_take(ask, room, neighbours) is (find_room_obstacle(ask, room, neighbours) is None)


@settings(max_examples=100, deadline=None)
@given(st.lists(ZONES, min_size=1, max_size=8), st.integers(1, 20), st.sampled_from(SpreadTopology))
def test_with_room_everywhere_spreading_is_even(zones: list[str], count: int, topology: SpreadTopology) -> None:
    cluster = TestCluster()
    for n, zone in enumerate(zones):
        cluster.add_node(f"n{n}", zone=zone, capacity=Resources(100_000, 100_000))
    placement = Placement(spread_topology=topology)
    wanted = [
        Ask(namespace="d", workload="w", seed=str(n), requests=Resources(1, 1), placement=placement)
        for n in range(count)
    ]
    nodes = Counter(o.node_id for o in place(wanted, cluster.machine) if isinstance(o, Placed))
    assert sum(nodes.values()) == count
    per_zone = Counter(dict.fromkeys(zones, 0))
    for node_id, held in nodes.items():
        per_zone[zones[int(node_id[1:])]] += held
    match topology:
        case SpreadTopology.ZONE:
            assert max(per_zone.values()) - min(per_zone.values()) <= 1
        case SpreadTopology.NODE:
            held_by = [nodes.get(f"n{n}", 0) for n in range(len(zones))]
            assert max(held_by) - min(held_by) <= 1
        case SpreadTopology.NONE:
            assert len(nodes) == 1
