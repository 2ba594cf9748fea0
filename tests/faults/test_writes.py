"""What is left of an operation of several writes when the leader dies between two of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cloudless.cli.methods import DELETE_WORKLOAD, LIST_WORKLOADS, SCALE_WORKLOAD, UPDATE_NODE
from cloudless.rpc.v1.node_pb2 import UpdateNodeRequest
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest, ListWorkloadsRequest, ScaleWorkloadRequest
from tests.faults.rig.leading import leader_and_term, others_than
from tests.faults.rig.processes import RUN_VARIABLE, tasks_running
from tests.faults.rig.scenario import scenario
from tests.faults.rig.tasks import SPREAD, running, wait_running
from tests.faults.rig.trap import Trap
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster, manifest_of

NAME = "crossed"
ROLLING = {"rollout": {"strategy": "ROLLING_UPDATE", "maxSurge": 1, "maxUnavailable": 0}}
DONE_S = 40.0
HIT_S = 4.0
WRITES_MAX = 4
Step = Callable[[], object]


@scenario(9, rounds=WRITES_MAX, budget_s=400)
def test_an_operation_that_lost_its_leader_at_any_write_is_finished_by_the_next_one(trial: Trial) -> None:
    """Round n kills the leader at the n-th write of each operation."""
    cluster = trial.start(agents=3)
    crashes = 0
    for number in trial.rounds():
        nth = 1 + (number - 1) % WRITES_MAX
        trial.load_up()
        hit = []
        for what, do, is_done in operations(trial, cluster):
            hit.append(crossed(trial, f"{what}, write {nth}", nth, do))
            is_done()
            whole(cluster)
        crashes += sum(hit)
        trial.figure("crashes", crashes)
        trial.settle()
        # How many writes an operation takes depends on how many tasks were ready at once. It takes one, save a drain of
        # a node that happens to have no task.
        assert any(hit), f"no operation had {nth} writes"
        assert sum(hit) >= len(hit) - 1 or nth > 1, f"operations without a single write: {hit}"


def operations(trial: Trial, cluster: LocalCluster) -> list[tuple[str, Step, Step]]:
    """Return (name, how to ask for it, how to wait for it) of every operation the leader does in several writes."""

    def apply(version: str) -> None:
        env = {RUN_VARIABLE: trial.run_id, "VERSION": version}
        cluster.apply(manifest_of(NAME, replicas=4, env=env, **SPREAD, **ROLLING))

    def scale(replicas: int) -> None:
        cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name=NAME, replicas=replicas))

    def drain(on: bool) -> None:
        cordoned = None if on else False
        cluster.call(UPDATE_NODE, UpdateNodeRequest(node_id="agent-3", draining=on, cordoned=cordoned))

    def drained() -> None:
        cluster.until(lambda: all(seen.node_id != "agent-3" for seen in running(cluster, NAME).values()), "moved away")
        wait_running(cluster, NAME, 2, DONE_S)
        drain(False)

    old: dict[str, object] = {}

    def started() -> None:
        old.update(wait_running(cluster, NAME, 4, DONE_S))

    def updated() -> None:
        cluster.until(lambda: not wait_running(cluster, NAME, 4, DONE_S).keys() & old.keys(), "all are new", DONE_S)

    def deleted() -> None:
        cluster.until(lambda: NAME not in names(cluster), "the workload is gone", DONE_S)
        assert cluster.tasks(NAME, all=True) == []
        alive = tasks_running(trial.run_id)
        assert not {task for task in alive if task.startswith(NAME)}

    return [
        ("create", lambda: apply("1"), started),
        ("update", lambda: apply("2"), updated),
        ("scale", lambda: scale(2), lambda: wait_running(cluster, NAME, 2, DONE_S)),
        ("drain", lambda: drain(True), drained),
        ("delete", lambda: cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=NAME)), deleted),
    ]


def crossed(trial: Trial, what: str, nth: int, do: Step) -> bool:
    """Ask for an operation and kill the leader at its nth write; return whether it had so many."""
    cluster = trial.cluster
    leader, _ = leader_and_term(trial)
    watched = partial(cluster.store, others_than(cluster, leader)[0])
    with Trap(trial.load, watched, nth=nth, counts=is_orders, pid=cluster.processes[leader].pid) as trap:
        trial.note(f"{what}: under {leader}")
        do()
        return trap.sprung.wait(HIT_S)


def is_orders(key: str) -> bool:
    """Return whether only the leader writes this key: what a task of ours shall do."""
    return f"/{NAME}-" in key and key.endswith("/desired")


def whole(cluster: LocalCluster) -> None:
    cluster.start(*(one.name for one in cluster.coordinators if not one.lives))
    cluster.wait_formed()


def names(cluster: LocalCluster) -> list[str]:
    return [one.record.name for one in cluster.call(LIST_WORKLOADS, ListWorkloadsRequest()).workloads]
