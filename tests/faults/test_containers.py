"""What happens when the Docker engine under an agent's containers ends or hangs: only its own tasks notice.

The engine is one of the tests' own; agent-1 has it, agent-2 has none.
"""

from __future__ import annotations

import time

from tests.docker_engine import DockerDaemon
from tests.faults.rig.boxes import boxes_run, give_engine, run_boxes
from tests.faults.rig.scenario import Need, scenario
from tests.faults.rig.tasks import running
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster, manifest_of


@scenario(53, needs=(Need.DOCKER,))
def test_a_restarted_docker_engine_is_listed_anew_and_no_container_runs_twice(
    trial: Trial, docker_daemon: DockerDaemon
) -> None:
    """Once ended in order, once by a crash; each time its containers end with it and are started anew, once."""
    cluster = start_with_boxes(trial, docker_daemon)
    for how in (docker_daemon.stop, docker_daemon.kill):
        before = running(cluster, "boxes")
        trial.load_up()
        began_s = trial.note(f"{how.__name__} the engine")
        how()
        docker_daemon.start()
        cluster.until(lambda: boxes_run(cluster, docker_daemon), "the boxes run again", 60)
        trial.figure("running_again_s", time.monotonic() - began_s)
        after = running(cluster, "boxes")
        assert after.keys() == before.keys(), "the same tasks, as further attempts"
        assert all(after[task].attempt > before[task].attempt for task in after)
        trial.settle()


@scenario(54, needs=(Need.DOCKER,))
def test_a_docker_engine_that_hangs_makes_its_own_tasks_unknown_and_no_others(
    trial: Trial, docker_daemon: DockerDaemon
) -> None:
    cluster = start_with_boxes(trial, docker_daemon)
    before = running(cluster, "boxes")
    trial.load_up()
    began_s = trial.note("freeze the engine")
    docker_daemon.freeze()
    try:
        cluster.until(lambda: all("state unknown" in words for words in messages(cluster, "boxes")), "they are unknown")
        trial.figure("unknown_s", time.monotonic() - began_s)
        assert not any(messages(cluster, "steady"))
        began_s = time.monotonic()
        cluster.apply(manifest_of("beside", replicas=2))
        cluster.until(lambda: len(running(cluster, "beside")) == 2, "processes start on both nodes all the same")
        trial.figure("process_started_s", time.monotonic() - began_s)
        trial.load_up()
    finally:
        docker_daemon.thaw()
    cluster.until(lambda: not any(messages(cluster, "boxes")), "they are known again")
    assert running(cluster, "boxes") == before, "none was restarted"
    assert boxes_run(cluster, docker_daemon)
    trial.settle()


def start_with_boxes(trial: Trial, daemon: DockerDaemon) -> LocalCluster:
    """Start a cluster whose agent-1 runs a workload in containers."""
    cluster = trial.start(prepare=lambda cluster: give_engine(cluster, daemon, "agent-1"))
    run_boxes(cluster, daemon)
    return cluster


def messages(cluster: LocalCluster, workload: str) -> list[str]:
    return [task.observed.message for task in cluster.tasks(workload)]
