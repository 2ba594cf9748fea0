"""What happens when wall clocks jump: nothing that anybody waits for may depend on them."""

from __future__ import annotations

import time

from cloudless.cli.methods import DELETE_WORKLOAD, LIST_EVENTS, TRANSFER_LEADER
from cloudless.rpc.v1.cluster_pb2 import TransferLeaderRequest
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest
from tests.faults.rig.clock import Clocks
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster, Loopback, manifest_of
from tests.integration.trusted import Plain

HOUR_S, DAY_S = 3600.0, 86_400.0
# Longer than a lease and a node's time-out.
WATCHED_S = 6.0
STARTED_S = 10.0


@scenario(28, budget_s=300)
def test_wall_clocks_that_jump_by_an_hour_or_a_day_move_no_election_and_no_timeout(trial: Trial) -> None:
    """The clocks of cloudless' own processes, not etcd's: a static binary cannot be told another time (see the rig).

    Without TLS: the library that judges certificates cannot be told another time either. One half of a process would
    sign for a tomorrow that the other half refuses, as no real clock would make them.
    """
    clocks = Clocks(Loopback(), trial.root / "clocks")
    cluster = trial.start(place=clocks, trust=Plain())
    for _ in trial.rounds():
        trial.load_up()
        header = cluster.status().header
        steps = [
            ("the leader's an hour on", [header.leader_id], HOUR_S),
            ("a follower's a day back", cluster.followers()[:1], -DAY_S),
            ("the agents' a day on", [process.name for process in cluster.agents], DAY_S),
            ("everybody's a day back", list(cluster.processes), -DAY_S),
        ]
        for number, (what, names, offset_s) in enumerate(steps):
            began_s = trial.note(what)
            for name in names:
                clocks.set(name, offset_s)
            assert jumped(cluster, names[0], offset_s), "the clock did not jump: this proves nothing"
            start_and_end(trial, cluster, f"clocked-{number}")
            time.sleep(max(0.0, WATCHED_S - (time.monotonic() - began_s)))
            assert cluster.status().header.term == header.term, "a clock cost an election"
            assert set(cluster.phases().values()) == {"READY"}
            trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        trial.note("leadership moves between clocks that differ")
        clocks.set(cluster.followers()[0], DAY_S)
        cluster.call(TRANSFER_LEADER, TransferLeaderRequest(to_coordinator_id=cluster.followers()[0]))
        start_and_end(trial, cluster, "clocked-after")
        for name in cluster.processes:
            clocks.set(name, 0.0)
        trial.settle()


def jumped(cluster: LocalCluster, name: str, offset_s: float) -> bool:
    """Return whether the newest record a process stamped is off by about the offset; agents are taken at their word."""
    if cluster.processes[name].role == "agent":
        return True
    cluster.apply(manifest_of("stamped", replicas=0, env={"AT": str(time.monotonic())}), name)
    events = cluster.call(LIST_EVENTS, ListEventsRequest(subject="workload/default/stamped"), name).events
    return any(abs(event.at_ms / 1000 - time.time() - offset_s) < HOUR_S / 2 for event in events)


def start_and_end(trial: Trial, cluster: LocalCluster, name: str) -> None:
    """Run a workload and delete it; both must take the usual time."""
    began_s = time.monotonic()
    cluster.apply(manifest_of(name, replicas=2))
    cluster.until(lambda: [task.state for task in cluster.tasks(name)].count("RUNNING") == 2, f"{name} runs", STARTED_S)
    trial.figure("started_s", time.monotonic() - began_s)
    began_s = time.monotonic()
    cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=name))
    cluster.until(lambda: not cluster.tasks(name), f"{name} has ended", STARTED_S)
    trial.figure("ended_s", time.monotonic() - began_s)
