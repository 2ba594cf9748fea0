"""What happens when two want the same: a port, a data directory, an id; and when a task does not want to end."""

from __future__ import annotations

import shutil
import socket

from cloudless.errors import FormationRefused, outcome_of
from tests.faults.rig.leading import leader_and_term, others_than
from tests.faults.rig.members import member_ids
from tests.faults.rig.processes import family
from tests.faults.rig.scenario import scenario
from tests.faults.rig.tasks import end_with_family, run_workload
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster

REFUSED = outcome_of(FormationRefused).exit_code
STUBBORN = "trap '' TERM; (trap '' TERM; sleep 1000 & setsid sleep 1000 & wait) & while :; do sleep 1; done"


@scenario(55)
def test_a_coordinator_whose_port_is_taken_names_it_and_ends(trial: Trial) -> None:
    """The ports of its API, of enrolment, of HTTP, of etcd's peers and of etcd's clients, one after the other."""
    cluster = trial.start()
    for _ in trial.rounds():
        leader, _term = leader_and_term(trial)
        victim = others_than(cluster, leader)[0]
        process = cluster.processes[victim]
        trial.load_up()
        trial.note(f"{victim} ends, and its ports are taken one by one")
        cluster.kill(victim, etcd=True)
        for use in ("api", "enrol", "http", "raft", "etcd"):
            with socket.create_server((process.host, process.ports[use])):
                cluster.start(victim)
                code, said = cluster.exit_of(victim)
            assert code == REFUSED, said
            assert str(process.ports[use]) in said.rpartition("error:")[2], said
            assert cluster.etcd_of(victim) is None, "nothing is left running"
        cluster.start(victim)
        trial.settle()


@scenario(56, rounds=2)
def test_a_task_that_ignores_its_end_is_ended_with_everything_it_started(trial: Trial) -> None:
    trial.start()
    for number in trial.rounds():
        name = f"stubborn-{number}"
        command = ["sh", "-c", STUBBORN]
        (task,) = run_workload(trial, name, 1, command=command, stopGrace="1s")
        started = whole_family(trial, task)
        end_with_family(trial, name, started)


@scenario(57)
def test_a_second_coordinator_of_one_directory_or_one_id_is_refused(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        before = member_ids(cluster)
        for shared, words in (("DATA_DIR", "belongs to pid"), ("NODE_ID", "a living coordinator has the id")):
            trial.load_up()
            trial.note(f"start a second one with the same {shared}")
            code, said = twin_of(cluster, "coordinator-2", shared)
            assert code == REFUSED, said
            assert words in said
            assert f"CLOUDLESS_{shared}" in said, "the cure is named"
        trial.settle()
        assert member_ids(cluster) == before


# --- what the scenarios do ---


def whole_family(trial: Trial, task: str) -> list[int]:
    """Return the task's process and the three that it starts, once they are there."""

    def look() -> list[int] | None:
        found = family(trial.run_id, task)
        return found if len(found) >= 4 else None

    return trial.cluster.until(look, "it has started its family")


def twin_of(cluster: LocalCluster, original: str, shared: str) -> tuple[int, str]:
    """Start a coordinator that shares one setting with another; return how it ended."""
    own = {} if shared == "NODE_ID" else {"NODE_ID": "twin"}
    twin = cluster.add_twin("twin", original, **own)
    del twin.settings["BOOTSTRAP_EXPECT"]
    twin.settings[shared] = cluster.processes[original].settings[shared]
    if shared == "NODE_ID":  # a copied disk: it has the other's certificate as well
        shutil.copytree(cluster.processes[original].data_dir / "identity", twin.data_dir / "identity")
    try:
        cluster.start("twin")
        return cluster.exit_of("twin")
    finally:
        del cluster.processes["twin"]
