"""The faults of agents and of tasks once more, met by tasks that are containers.

What processes go through in `test_process`, `test_network` and `test_sharing`: an agent killed, frozen or cut off, a
task killed, a task that ignores its end. The engine is one of the tests' own, and lives through it all.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from cloudless.cli.methods import DELETE_WORKLOAD
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest
from tests.docker_engine import DockerDaemon
from tests.faults.rig.boxes import boxes_run, containers_of, family_of, give_engine, pid_of, run_boxes
from tests.faults.rig.longcut import LONG_CUT_S, compress_time
from tests.faults.rig.scenario import Need, scenario
from tests.faults.rig.tasks import SPREAD, end_with_family, ends_told, outlive_frozen, running
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster

DOCKER = (Need.DOCKER,)
BOTH = ("agent-1", "agent-2")
STUBBORN = "trap '' TERM; (trap '' TERM; sleep 1000 & setsid sleep 1000 & wait) & while :; do sleep 1; done"


@scenario(6, needs=DOCKER, rounds=2)
def test_containers_outlive_their_killed_agents_and_are_adopted(trial: Trial, docker_daemon: DockerDaemon) -> None:
    cluster = trial.start(prepare=lambda cluster: give_engine(cluster, docker_daemon))
    run_boxes(cluster, docker_daemon, lostAfter="60m", **SPREAD)
    for _ in trial.rounds():
        before = containers_of(docker_daemon, "boxes")
        trial.load_up()
        trial.note("kill all agents")
        cluster.kill(*BOTH)
        cluster.until(lambda: set(cluster.phases().values()) == {"OFFLINE"}, "the agents are missed")
        assert containers_of(docker_daemon, "boxes") == before
        began_s = trial.note("start them again")
        cluster.start(*BOTH)
        cluster.until(lambda: set(cluster.phases().values()) == {"READY"}, "both are back")
        cluster.until(lambda: boxes_run(cluster, docker_daemon), "what they tell is what runs")
        trial.figure("adopted_s", time.monotonic() - began_s)
        trial.settle()
        assert containers_of(docker_daemon, "boxes") == before, "none was restarted"


@scenario(7, needs=DOCKER)
def test_containers_of_a_frozen_agent_are_replaced_and_make_way_when_it_thaws(
    trial: Trial, docker_daemon: DockerDaemon
) -> None:
    cluster = trial.start(prepare=lambda cluster: give_engine(cluster, docker_daemon))
    for number in trial.rounds():
        name, victim = f"short-{number}", "agent-2"
        run_boxes(cluster, docker_daemon, name, 4, lostAfter="1s", **SPREAD)
        outlive_frozen(trial, name, running(cluster, name), victim)
        cluster.until(lambda: boxes_run(cluster, docker_daemon, name, 4), "the frozen node's own have ended")


@scenario(8, needs=DOCKER, rounds=2)
def test_a_killed_container_is_started_again_with_back_off_and_its_end_is_told_once(
    trial: Trial, docker_daemon: DockerDaemon
) -> None:
    cluster = trial.start(prepare=lambda cluster: give_engine(cluster, docker_daemon, "agent-1"))
    policy: dict[str, Any] = {"restartPolicy": {"policy": "ON_FAILURE", "maxRetries": 0, "backoff": "0.5s"}}
    for number in trial.rounds():
        name = f"mortal-{number}"
        run_boxes(cluster, docker_daemon, name, 1, **policy)
        ((task, seen),) = running(cluster, name).items()
        trial.load_up()
        for attempt in (1, 2):
            killed_s = trial.note(f"kill task {task} of attempt {seen.attempt}")
            os.kill(pid_of(docker_daemon, task, seen.attempt), signal.SIGKILL)
            seen = cluster.until(
                lambda old=seen: now if (now := running(cluster, name).get(task)) not in (None, old) else None,  # type: ignore[misc]
                "it runs again",
            )
            took_s = time.monotonic() - killed_s
            trial.figure(f"restart_{attempt}_s", took_s)
            assert took_s > 0.5 * 2 ** (attempt - 1), "each wait is longer"
        trial.settle()
        assert boxes_run(cluster, docker_daemon, name, 1)
        ends = ends_told(cluster, task)
        assert len(ends) == 2, ends
        assert all("signal 9" in end or "exit code 137" in end for end in ends), ends


@scenario(15, needs=(Need.DOCKER, Need.NETNS), budget_s=120 + int(LONG_CUT_S))
def test_containers_of_agents_that_reach_no_coordinator_run_on_and_are_brought_up_to_date(
    trial: Trial, docker_daemon: DockerDaemon
) -> None:

    def prepare(cluster: LocalCluster) -> None:
        give_engine(cluster, docker_daemon)
        compress_time(cluster)

    cluster = trial.start(prepare=prepare)
    coordinators = [process.name for process in cluster.coordinators]
    run_boxes(cluster, docker_daemon, lostAfter="60m", **SPREAD)
    for number in trial.rounds():
        doomed, mortal = f"doomed-{number}", f"mortal-{number}"
        run_boxes(cluster, docker_daemon, doomed, 1, lostAfter="60m")
        restarting: dict[str, Any] = {"restartPolicy": {"policy": "ALWAYS", "backoff": "1s"}, "lostAfter": "60m"}
        run_boxes(cluster, docker_daemon, mortal, 1, ["sleep", "8"], **restarting)
        before = containers_of(docker_daemon, "boxes")
        trial.load_up()
        began_s = trial.note("cut all agents off all coordinators")
        trial.net.part(BOTH, coordinators)
        cluster.until(lambda: set(cluster.phases().values()) == {"OFFLINE"}, "every node is offline")
        cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=doomed))
        time.sleep(max(0.0, LONG_CUT_S - (time.monotonic() - began_s)))
        assert containers_of(docker_daemon, doomed), "nobody told its agent"
        assert containers_of(docker_daemon, "boxes") == before
        healed_s = trial.note("heal")
        trial.net.heal()
        cluster.until(lambda: not containers_of(docker_daemon, doomed), "the deleted workload's container is stopped")
        trial.figure("resynced_s", time.monotonic() - healed_s)
        cluster.until(
            lambda: max((task.observed.restarts for task in cluster.tasks(mortal)), default=0) >= 2,
            "its agent restarts a task without any coordinator",
        )
        trial.settle()
        assert containers_of(docker_daemon, "boxes") == before, "none was restarted"


@scenario(56, needs=DOCKER, rounds=2)
def test_a_container_that_ignores_its_end_is_ended_with_everything_it_started(
    trial: Trial, docker_daemon: DockerDaemon
) -> None:
    cluster = trial.start(prepare=lambda cluster: give_engine(cluster, docker_daemon, "agent-1"))
    for number in trial.rounds():
        name = f"stubborn-{number}"
        run_boxes(cluster, docker_daemon, name, 1, ["sh", "-c", STUBBORN], stopGrace="1s")
        ((task, seen),) = running(cluster, name).items()
        started = cluster.until(
            lambda task=task, seen=seen: (
                found  # type: ignore[misc]
                if len(found := family_of(docker_daemon, task, seen.attempt)) >= 4
                else None
            ),
            "it has started its family",
        )
        end_with_family(trial, name, started)
