"""A scratch view renewed plan by plan is the one that would be built anew, and so are the plans made with it."""

from __future__ import annotations

from typing import Any

from cloudless.core import keys
from cloudless.core.model import TaskState
from cloudless.core.orchestration import plan_workloads
from cloudless.core.scheduling import Scratch
from cloudless.core.scheduling.touched import find_touched
from cloudless.core.state import Applied
from cloudless.testing.builders import TestCluster, build_malformed
from tests.properties.test_placement_oracle import NAMES, Draw, obey, telling

SEEDS = range(150)
REFS = [("default", name) for name in NAMES]


class Keeper:
    """Keeps one scratch view through all plans, as the leader does."""

    def __init__(self, cluster: TestCluster) -> None:
        self.cluster = cluster
        self.touched: set[str] = set()
        apply = cluster.machine.apply

        def listen(*args: Any) -> Applied:
            applied = apply(*args)
            for transition in applied.transitions:
                self.touched.update(find_touched(transition, cluster.machine))
            return applied

        cluster.machine.apply = listen  # type: ignore[method-assign, assignment]
        self.scratch = Scratch(cluster.machine)

    def plan(self) -> None:
        """Plan with the kept scratch view and with a new one, compare both, and commit."""
        machine = self.cluster.machine
        away = {node.id: 5.0 for node in machine.nodes.values() if not node.reachable}
        self.scratch.renew(self.touched, away)
        self.touched.clear()
        fresh = Scratch(machine, away)
        fresh.distinguish([])
        fresh._label_keys = self.scratch._label_keys
        assert look_at(self.scratch) == look_at(fresh)
        kept = plan_workloads(machine, REFS, 0, 1, away, self.scratch)
        assert kept.plan.changes == plan_workloads(machine, REFS, 0, 1, away).plan.changes
        assert not self.cluster.commit(kept.plan.changes)


def look_at(scratch: Scratch) -> Any:
    """Return all that a scratch view knows of nodes, and the order on every shelf."""
    rooms = {
        node_id: (room.node, room.free, room.free_share, frozenset(room.ports), room.places, room.labels)
        for node_id, room in sorted(scratch.rooms.items())
    }
    shelves = {
        (shelf.site, shelf.size): [room.node.id for room in shelf.rooms()]
        for shelves in scratch.sites.values()
        for shelf in shelves
    }
    return rooms, shelves


def disturb(draw: Draw, cluster: TestCluster) -> None:
    """Let something happen that may change what is free, or where."""
    node_id = f"n{draw.randint(0, 4)}"
    known = node_id in cluster.machine.nodes
    tasks = sorted(cluster.machine.tasks)
    match draw.randrange(8):
        case 0:
            obey(cluster)
        case 1 if known:
            cluster.set_reachable(node_id, draw.random() < 0.5)
        case 2:
            cluster.set_node_spec(node_id, taints=draw.taints(), labels=draw.labels(), draining=draw.random() < 0.2)
        case 3:
            cluster.add_node(node_id, zone=draw.choice("ab"), labels=draw.labels())
        case 4:
            cluster.remove_node(node_id)
        case 5 if tasks:
            task_id = draw.choice(tasks)
            if not cluster.machine.tasks[task_id].ended:
                cluster.report(task_id, draw.choice([TaskState.RUNNING, TaskState.FAILED]), ports={"x": 9000})
        case 6 if tasks:
            key = draw.choice([keys.task_desired, keys.task_observed])(draw.choice(tasks))
            revision = cluster.machine.revision + 1
            cluster.machine.apply(revision, [build_malformed(key, revision)])
        case _:
            cluster.update_workload(draw.choice(NAMES), replicas=draw.randint(0, 5), placement=draw.placement())


def test_what_is_kept_is_what_would_be_built_anew() -> None:
    for seed in SEEDS:
        with telling(seed) as draw:
            keeper = Keeper(draw.cluster())
            for _ in range(8):
                keeper.plan()
                for _ in range(draw.randint(1, 3)):
                    disturb(draw, keeper.cluster)
