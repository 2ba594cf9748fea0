"""How many tasks a second the scheduler places, and a whole planning round with it. Pure: no process, no store.

Two shapes of the same 10,000 tasks: one workload of all of them, and 1,000 workloads of ten each. Replicas are
spread over ten zones. *place* is `core.scheduling` alone, one workload after the other in one scratch view, as far as
it gets in `BUDGET_S`. *plan* is one round of `plan_workloads` over new workloads, at most as many as the leader takes
in one round: census, draft, placement, and the records and preconditions to be written.

*mixed* is 1,000 workloads of ten with every kind of constraint (`tests/bench/mixed.py`). *decide* is one round for one
new such workload of ten beside 20,000 running tasks, from the view to the changes: what a user waits for at the most.
"""

from __future__ import annotations

import cProfile
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from cloudless.cli.dev.report import percentile
from cloudless.core import keys
from cloudless.core.model import NodeStatus, Placement, Reachability, Record, SpreadTopology, WorkloadRecord
from cloudless.core.orchestration import plan_workloads
from cloudless.core.scheduling import Ask, Placed, Scratch, place
from cloudless.core.state import StateMachine
from cloudless.testing.builders import SMALL, build_node, build_stored, build_workload
from tests.bench.bench import Bench
from tests.bench.figures import Bar, Figure, at_least, at_most
from tests.bench.mixed import mixed_asks, mixed_view, mixed_workload, name_of

TASKS = 10_000
NODES = (1_000, 5_000, 10_000)
ZONES = 10
SHAPES = {"one": (1, TASKS), "thousand": (TASKS // 10, 10)}
_TEXTS = {"one": "one workload of 10,000", "thousand": "1,000 workloads of 10"}
_BARS = {5_000: at_least(10_000), 10_000: at_least(5_000)}
BUDGET_S = 2.0
ROUND_WORKLOADS = 100
MIXED_NODES = 5_000
_ROUNDS_MAX = 3
_PLACEMENT = Placement(spread_topology=SpreadTopology.ZONE)


async def measure(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    for nodes in NODES:
        for shape in SHAPES:
            place_name, plan_name = f"place-{shape}-{nodes}n", f"plan-{shape}-{nodes}n"
            if bench.wants(place_name) or bench.wants(plan_name):
                view, asks = _case(nodes, shape)
                placed = _repeat(bench, place_name, functools.partial(_place, asks, view))
                planned = _repeat(bench, plan_name, functools.partial(_plan, view))
                figures += _figure("place", shape, nodes, placed, _BARS.get(nodes))
                figures += _figure("plan", shape, nodes, planned, None)
    return figures + _measure_mixed(bench)


def _measure_mixed(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    place_name, decide_name = f"place-mixed-{MIXED_NODES}n", f"decide-mixed-{MIXED_NODES}n"
    if bench.wants(place_name):
        workloads = [mixed_workload(n, 10) for n in range(1_000)]
        view = mixed_view(MIXED_NODES, workloads)
        rates = _repeat(bench, place_name, functools.partial(_place, mixed_asks(workloads), view, whole=False))
        text = f"place: 1,000 workloads of 10 with mixed constraints on {MIXED_NODES:,} nodes"
        figures.append(Figure(f"place_mixed_{MIXED_NODES}", text, "1/s", rates, at_least(2_000)))
    if bench.wants(decide_name):
        view = mixed_view(MIXED_NODES, [mixed_workload(n, 10) for n in range(100)], running=20_000)
        scratch = Scratch(view)  # kept from plan to plan, as the leader does
        times = [_decide(view, number, scratch) for _ in range(min(bench.rounds, _ROUNDS_MAX)) for number in range(40)]
        worst = percentile(times, 0.95)
        bench.say(f"{decide_name}: p50 {percentile(times, 0.5):.1f} ms, p95 {worst:.1f} ms")
        text = f"decide: one workload of 10 with mixed constraints on {MIXED_NODES:,} nodes"
        figures.append(Figure(f"decide_mixed_{MIXED_NODES}_p50", f"{text}, p50", "ms", (percentile(times, 0.5),)))
        figures.append(Figure(f"decide_mixed_{MIXED_NODES}_p95", f"{text}, p95", "ms", (worst,), at_most(50)))
    return figures


def _decide(view: StateMachine, number: int, scratch: Scratch) -> float:
    """Return the milliseconds of one planning round for one new workload."""
    started_s = time.perf_counter()
    scratch.renew((), {})
    result = plan_workloads(view, [("default", name_of(number))], 1_700_000_000_000, 7, {}, scratch)
    elapsed_s = time.perf_counter() - started_s
    assert result.workloads[0].changes or result.workloads[0].unplaced
    return elapsed_s * 1_000


def _case(nodes: int, shape: str) -> tuple[StateMachine, list[list[Ask]]]:
    """Return a cluster with as many of the workloads as one round takes, and all workloads' asks."""
    workloads, replicas = SHAPES[shape]
    records = [
        build_workload(f"w-{n:04d}", replicas=replicas, placement=_PLACEMENT)
        for n in range(min(workloads, ROUND_WORKLOADS))
    ]
    return _view(nodes, records), list(_asks(workloads, replicas))


def _figure(what: str, shape: str, nodes: int, rates: tuple[float, ...], bar: Bar | None) -> list[Figure]:
    shown = f"{ROUND_WORKLOADS} workloads of 10" if (what, shape) == ("plan", "thousand") else _TEXTS[shape]
    text = f"{what}: {shown} on {nodes:,} nodes"
    return [Figure(f"{what}_{shape}_{nodes}", text, "1/s", rates, bar)] if rates else []


def _repeat(bench: Bench, name: str, run: Callable[[], int]) -> tuple[float, ...]:
    """Return tasks a second, one value a round; nothing if this was not asked for."""
    if not bench.wants(name):
        return ()
    found: list[float] = []
    begun_s = time.perf_counter()
    for _ in range(min(bench.rounds, _ROUNDS_MAX)):
        file = bench.profile_file(name)
        profile: Any = cProfile.Profile(time.thread_time) if file else nullcontext()
        with profile:
            started_s = time.perf_counter()
            count = run()
            elapsed_s = time.perf_counter() - started_s
        if file:
            profile.dump_stats(file)
        found.append(count / elapsed_s)
        bench.say(f"{name}: {found[-1]:,.0f} a second")
        if time.perf_counter() - begun_s > 2 * BUDGET_S:
            break
    return tuple(found)


def _place(workloads: list[list[Ask]], view: StateMachine, *, whole: bool = True) -> int:
    """Return how many tasks were placed; `whole`: all of them have to be."""
    scratch = Scratch(view)
    ends_s, placed = time.perf_counter() + BUDGET_S, 0
    for asks in workloads:
        outcomes = place(asks, view, scratch)
        found = sum(1 for outcome in outcomes if isinstance(outcome, Placed))
        assert found == len(outcomes) or not whole
        placed += found
        if time.perf_counter() > ends_s:
            break
    return placed


def _plan(view: StateMachine) -> int:
    result = plan_workloads(view, sorted(view.workloads), 1_700_000_000_000, 7, {})
    assert not any(workload.unplaced for workload in result.workloads)
    return len(result.plan.changes)


def _asks(workloads: int, replicas: int) -> Iterator[list[Ask]]:
    for n in range(workloads):
        yield [
            Ask(namespace="default", workload=f"w-{n:04d}", seed=f"w-{n}-{slot}", requests=SMALL, placement=_PLACEMENT)
            for slot in range(replicas)
        ]


def _view(nodes: int, workloads: Iterable[WorkloadRecord]) -> StateMachine:
    machine = StateMachine()
    records: list[tuple[str, Record]] = []
    for n in range(nodes):
        node = build_node(f"node-{n:05d}", zone=f"zone-{n % ZONES}")
        records.append((keys.node_info(node.id), node))
        records.append((keys.node_status(node.id), NodeStatus(reachability=Reachability.REACHABLE)))
    records += [(keys.workload(w.namespace, w.name), w) for w in workloads]
    machine.apply(1, [build_stored(key, record, 1) for key, record in records])
    return machine
