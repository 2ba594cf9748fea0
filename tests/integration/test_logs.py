"""Reading output on a live cluster: through any coordinator, from a moment on, with times, and over an update."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from cloudless.cli.methods import DELETE_WORKLOAD
from cloudless.errors import NotFound
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest
from etcd.find import Found
from tests.architecture.tree import ROOT
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NAME = "talker"
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("logs"), binary.path)
    made.add_coordinators()
    made.found_together()
    made.add_agent("agent-1")
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(living: LocalCluster) -> Iterator[LocalCluster]:
    yield living
    with suppress(NotFound):
        living.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=NAME))
    living.until(lambda: not living.tasks(NAME, all=True), "no task left")


def apply(cluster: LocalCluster, words: str, *, replicas: int = 1, end: str = "exec sleep 600") -> None:
    script = f"echo {words} $CLOUDLESS_SLOT; echo {words} on the other >&2; {end}"
    cluster.apply(manifest_of(NAME, replicas=replicas, command=["sh", "-c", script]))


def wait_running(cluster: LocalCluster, replicas: int = 1) -> None:
    def runs() -> bool:
        return sum(task.state == "RUNNING" for task in cluster.tasks(NAME)) == replicas

    cluster.until(runs, f"{replicas} tasks run")


class Follower:
    """Someone who follows output: a process, and the lines it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def until(self, words: str) -> list[str]:
        """Return the lines up to one that holds `words`."""
        seen: list[str] = []
        while not seen or words not in seen[-1]:
            try:
                seen.append(self.lines.get(timeout=DEADLINE_S))
            except queue.Empty:
                raise AssertionError(f"{words!r} was not printed, but {seen}") from None
        return seen


@contextmanager
def following(cluster: LocalCluster, *words: str, via: str = "") -> Iterator[Follower]:
    addresses = [cluster.processes[via].address()] if via else cluster.api_addresses()
    environment = {"PATH": os.environ["PATH"], "CLOUDLESS_COORDINATORS": ",".join(addresses)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudless.cli.main", *words], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield Follower(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("via", COORDINATORS)
def test_following_a_workload_goes_on_with_the_tasks_of_an_update(cluster: LocalCluster, via: str) -> None:
    apply(cluster, "first", replicas=2)
    wait_running(cluster, 2)
    with following(cluster, "workload", "logs", "-f", NAME, via=via) as follower:
        seen = follower.until("first") + follower.until("first") + follower.until("first")
        apply(cluster, "second", replicas=2)
        seen += follower.until("second 0") if "second 0" not in "".join(seen) else []
        cluster.until(lambda: len({t.desired.task_generation for t in cluster.tasks(NAME)}) == 1, "updated")
        apply(cluster, "third", replicas=1)
        seen += follower.until("third 0")
        cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=NAME))
        assert follower.process.wait(DEADLINE_S) == 0, "it ends with the workload"
        while not follower.lines.empty():
            seen.append(follower.lines.get())
    said = [line.partition("] ")[2] for line in seen if line.startswith("[")]
    for words in ("first 0", "first 1", "second 0", "second 1", "third 0"):
        assert said.count(words) == 1, f"{words} in {said}"
    assert len({line.partition("]")[0] for line in seen if "third 0" in line or "first 0" in line}) == 2


def test_following_goes_on_over_restarts_of_a_task_and_ends_with_a_job(cluster: LocalCluster) -> None:
    script = 'echo "began $(ls | wc -l)"; touch "ran-$(ls | wc -l)"; [ "$(ls | wc -l)" -ge 3 ]'
    policy = {"policy": "ON_FAILURE", "backoff": "500ms"}
    cluster.apply(manifest_of(NAME, command=["sh", "-c", script], restartPolicy=policy))
    with following(cluster, "workload", "logs", "-f", "--tail", "-1", NAME) as follower:
        seen = follower.until("began 2")
        assert follower.process.wait(DEADLINE_S) == 0
    said = [line.partition("] ")[2] for line in seen]
    assert said[-2:] == ["began 1", "began 2"]
    assert len(said) == len(set(said)), "nothing twice"


def test_output_with_times_and_of_the_last_while_only(cluster: LocalCluster) -> None:
    apply(cluster, "early", end="sleep 3; echo late; exec sleep 600")
    wait_running(cluster)
    cluster.until(lambda: "late" in run_cli(cluster, "workload", "logs", NAME).text, "all of it")
    (task,) = cluster.tasks(NAME)
    for words in (("workload", "logs", NAME), ("task", "logs", task.desired.id)):
        lines = must(run_cli(cluster, *words, "--timestamps")).splitlines()
        assert len(lines) == 3
        times = sorted(line.split(" ")[0] for line in lines)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\dZ", time) for time in times)
        assert times[-1] > times[0]
    assert must(run_cli(cluster, "task", "logs", task.desired.id, "--tail", "1")).count("\n") == 2, "of each stream"
    everything = must(run_cli(cluster, "task", "logs", task.desired.id, "--since", "1h"))
    assert everything.count("\n") == 3
    said = run_cli(cluster, "task", "logs", task.desired.id, "--since", "soon")
    assert (said.code, "no span of time" in said.text) == (2, True)
