"""What happens when an agent's disk takes nothing more: it says so, starts nothing, and what runs goes on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cloudless.cli.methods import GET_NODE
from cloudless.rpc.v1.node_pb2 import GetNodeRequest
from cloudless.rpc.v1.workload_pb2 import Task
from tests.docker_engine import DockerDaemon
from tests.faults.rig.boxes import give_engine, pid_of, run_boxes
from tests.faults.rig.disk import Disk
from tests.faults.rig.leading import pass_time
from tests.faults.rig.scenario import Need, scenario
from tests.faults.rig.tasks import SPREAD, Seen, run_workload, running
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster

LOOP = (Need.ROOT, Need.LOOP)
VICTIM = "agent-2"
DISK_MB = 200
LOOKED_ON_S = 6.0
"""Longer than several back-offs and looks of the agent."""
POLICY = {"lostAfter": "60s", "restartPolicy": {"policy": "ALWAYS", "maxRetries": 0, "backoff": "0.2s"}}


@scenario(29, needs=LOOP, rounds=2)
def test_an_agent_with_a_full_disk_says_so_and_starts_nothing_until_there_is_room(trial: Trial) -> None:
    start_nothing(trial, lambda disk: disk.full(), "[0-9]+Mi are left on the disk of .*, 64Mi are kept free")


@scenario(29, needs=LOOP)
def test_an_agent_with_a_read_only_disk_says_so_and_starts_nothing_until_it_can_write(trial: Trial) -> None:
    start_nothing(trial, lambda disk: disk.read_only(), "the disk of .* is read-only")


@scenario(29, needs=(*LOOP, Need.DOCKER))
def test_an_agent_with_a_full_disk_starts_no_container_either(trial: Trial, docker_daemon: DockerDaemon) -> None:
    """The engine's own disk has room: it is the agent that could not keep account of what it starts."""
    words = "[0-9]+Mi are left on the disk of .*, 64Mi are kept free"
    start_nothing(trial, lambda disk: disk.full(), words, docker_daemon)


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a workload as processes, or as containers if there is an engine."""

    trial: Trial
    daemon: DockerDaemon | None

    def run(self, name: str, **spec: Any) -> dict[str, Seen]:
        """Run two tasks of it; return them."""
        if self.daemon is None:
            return run_workload(self.trial, name, 2, **spec)
        run_boxes(self.trial.cluster, self.daemon, name, 2, **spec)
        return running(self.trial.cluster, name)

    def kill(self, task_id: str, seen: Seen) -> None:
        os.kill(seen.pid if self.daemon is None else pid_of(self.daemon, task_id, seen.attempt), 9)


def start_nothing(
    trial: Trial,
    spoil: Callable[[Disk], AbstractContextManager[None]],
    words: str,
    daemon: DockerDaemon | None = None,
) -> None:
    """Spoil an agent's disk, kill one of its tasks and then itself: nothing new may run there, nothing else may end."""
    disks: list[Disk] = []

    def give(cluster: LocalCluster) -> None:
        disks.append(Disk(cluster.processes[VICTIM].data_dir, DISK_MB))
        trial.close_last(disks[0].close)
        if daemon is not None:
            give_engine(cluster, daemon)

    cluster, runner = trial.start(prepare=give), Runner(trial, daemon)
    for number in trial.rounds():
        mortal, later = f"mortal-{number}", f"later-{number}"
        before = runner.run(mortal, **SPREAD, **POLICY)
        (doomed,) = (task for task, seen in before.items() if seen.node_id == VICTIM)
        trial.load_up()
        with spoil(disks[0]):
            began_s = trial.note(f"the disk of {VICTIM} takes nothing more")
            cluster.until(lambda: fault_of(cluster) != "", "the node says so")
            trial.figure("told_s", time.monotonic() - began_s)
            assert_matches(words, fault_of(cluster))
            runner.kill(doomed, before[doomed])
            cluster.until(lambda: task_of(cluster, mortal, doomed).state == "BACKOFF", "the killed task waits")
            assert {seen.node_id for seen in runner.run(later, **SPREAD).values()} == {"agent-1"}

            trial.note(f"kill {VICTIM} and start it again")
            cluster.kill(VICTIM)
            cluster.start(VICTIM)
            life = cluster.processes[VICTIM].pid
            cluster.wait_ready()
            pass_time(cluster, LOOKED_ON_S)
            assert cluster.processes[VICTIM].lives
            assert cluster.processes[VICTIM].pid == life
            waiting = task_of(cluster, mortal, doomed)
            assert waiting.state != "RUNNING", "nothing is claimed to be started"
            assert waiting.observed.restarts <= 3, "it is not tried again and again: once in each life of the agent"
            cluster.until(lambda: task_of(cluster, mortal, doomed).observed.message != "", "it says why it waits")
            assert_matches(f"{words}|journal cannot be written|ended by signal 9", waiting.observed.message)
            trial.load_up()
        mended_s = trial.note("the disk is well again")
        cluster.until(lambda: doomed in running(cluster, mortal), "the task runs again")
        trial.figure("started_s", time.monotonic() - mended_s)
        cluster.until(lambda: fault_of(cluster) == "", "the node takes tasks again")
        trial.settle()


def fault_of(cluster: LocalCluster) -> str:
    return cluster.call(GET_NODE, GetNodeRequest(node_id=VICTIM)).node.info.unable.get("start-tasks", "")


def task_of(cluster: LocalCluster, workload: str, task_id: str) -> Task:
    return next(task for task in cluster.tasks(workload) if task.desired.id == task_id)


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text
