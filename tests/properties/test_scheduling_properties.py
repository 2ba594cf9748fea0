"""No placement exceeds what a node has or breaks a constraint, and what is refused really does not fit."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core.model import ExecutorKind, Placement, Resources, SpreadTopology
from cloudless.core.scheduling import Ask, Placed, Scratch, place
from cloudless.core.scheduling.filters import find_obstacle, find_room_obstacle, may_take
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
            labels=draw(st.dictionaries(st.just("disk"), st.sampled_from(["ssd", "hdd"]))),
        )
        cluster.set_node_spec(f"n{n}", cordoned=draw(st.sampled_from([False, False, True])))
    return cluster


@st.composite
def asks(draw: st.DrawFn) -> list[Ask]:
    made: list[Ask] = []
    for group in range(draw(st.integers(1, 3))):
        fields = {
            "namespace": "default",
            "workload": f"w{group}",
            "requests": draw(AMOUNTS),
            "executor": draw(st.sampled_from(ExecutorKind)),
            "placement": Placement(
                zones=tuple(draw(st.lists(ZONES, max_size=2))),
                regions=tuple(draw(st.lists(st.sampled_from(["r1", "r2"]), max_size=1))),
                node_selector=draw(st.dictionaries(st.just("disk"), st.just("ssd"))),
                spread_topology=draw(st.sampled_from(SpreadTopology)),
            ),
            "host_ports": tuple(draw(st.lists(st.sampled_from([80, 443]), max_size=2, unique=True))),
            "avoid": tuple(draw(st.lists(st.sampled_from(["n0", "n1"]), max_size=1))),
        }
        made += [Ask(seed=f"{group}-{n}", **fields) for n in range(draw(st.integers(1, 6)))]
    return draw(st.permutations(made))


@settings(max_examples=200, deadline=None)
@given(clusters(), asks())
def test_placements_respect_capacity_and_constraints(cluster: TestCluster, wanted: list[Ask]) -> None:
    scratch = Scratch(cluster.machine)
    empty = Scratch(cluster.machine)
    outcomes = place(wanted, cluster.machine, scratch)
    assert [outcome.ask for outcome in outcomes] == wanted
    used: dict[str, Resources] = {}
    ports: Counter[tuple[str, int]] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, Placed):
            node_id, ask = outcome.node_id, outcome.ask
            assert find_obstacle(ask, empty.rooms[node_id]) is None
            used[node_id] = used.get(node_id, Resources()) + ask.requests
            ports.update((node_id, port) for port in ask.host_ports)
        else:
            assert all(find_obstacle(outcome.ask, room) is not None for room in scratch.rooms.values())
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
    return cluster


LABELS = st.dictionaries(st.just("disk"), st.sampled_from(["ssd", "hdd"]))


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
        for room in scratch.rooms.values():
            assert may_take(ask, room) is (find_room_obstacle(ask, room) is None)


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
