"""Rollouts on a running cluster: a bad change goes back by itself, and whoever uses the old version never notices."""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudless.cli.methods import DELETE_WORKLOAD, GET_ROLLOUT, LIST_EVENTS, UPDATE_NODE
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.node_pb2 import UpdateNodeRequest
from cloudless.rpc.v1.objects_pb2 import DESIRED_RUNNING, RolloutPhase
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest, GetRolloutRequest, Task
from etcd.find import Found
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

AGENTS = ("agent-1", "agent-2")
SERVER = ["python3", "-m", "http.server", "$(CLOUDLESS_PORT_HTTP)", "--bind", "127.0.0.1"]
SERVING = {"command": SERVER, "ports": [{"name": "http"}]}
SAFE = {"maxSurge": 1, "maxUnavailable": 0, "minReady": "1s", "progressDeadline": "5s"}
BAD = {
    "no such program": ["/no/such/program"],
    "ends at once": ["sh", "-c", "exit 1"],
}
REQUESTS_MIN = 50


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("rollouts"), binary.path)
    made.add_coordinators()
    made.found_together()
    for name in AGENTS:
        made.add_agent(name)
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(living: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster, whole and without the workload of the test before."""
    yield living
    living.start(*(name for name, process in living.processes.items() if not process.lives))
    living.wait_formed()
    for agent in AGENTS:
        living.call(UPDATE_NODE, UpdateNodeRequest(node_id=agent, cordoned=False, draining=False))
    living.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name="web"))
    living.until(lambda: not living.tasks("web", all=True), "the workload is gone")


@dataclass
class Visitor:
    """Somebody who asks the old version's ports all the time and remembers each refusal."""

    urls: list[str]
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    _leaving: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        while not self._leaving.is_set():
            for url in self.urls:
                try:
                    with urllib.request.urlopen(url, timeout=5) as answer:
                        answer.read()
                    self.answered += 1
                except OSError as error:
                    self.failures.append(f"{url}: {error}")
            time.sleep(0.01)  # not a wait: what a user would do between two clicks

    @contextmanager
    def visiting(self) -> Iterator[None]:
        thread = threading.Thread(target=self.ask)
        thread.start()
        try:
            yield
        finally:
            self._leaving.set()
            thread.join()


def write(directory: Path, name: str, **spec: object) -> Path:
    path = directory / f"{name}.json"
    path.write_text(manifest_of("web", **spec))  # type: ignore[arg-type]
    return path


def serving(cluster: LocalCluster) -> list[Task]:
    return sorted((t for t in cluster.tasks("web") if t.state == "RUNNING"), key=lambda task: task.desired.id)


def url_of(task: Task) -> str:
    return f"http://127.0.0.1:{task.observed.ports['http']}/"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def phase(cluster: LocalCluster) -> str:
    notes = cluster.call(GET_ROLLOUT, GetRolloutRequest(name="web")).rollout
    return RolloutPhase.Name(notes.phase).removeprefix("ROLLOUT_PHASE_")


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("leader_dies", [False, True], ids=["", "the leader dies meanwhile"])
def test_a_bad_change_goes_back_and_no_request_to_the_old_version_fails(
    cluster: LocalCluster, tmp_path: Path, what: str, leader_dies: bool
) -> None:
    good = write(tmp_path, "good", replicas=2, rollout=SAFE, **SERVING)
    must(run_cli(cluster, "workload", "apply", "-f", good, "--wait", "--wait-timeout", "60"))
    before = serving(cluster)
    visitor = Visitor([url_of(task) for task in before])
    cluster.until(lambda: all(map(answers, visitor.urls)), "the first version answers")
    with visitor.visiting():
        bad = write(tmp_path, "bad", replicas=2, rollout=SAFE, ports=[{"name": "http"}], command=BAD[what])
        must(run_cli(cluster, "workload", "apply", "-f", bad))
        cluster.until(lambda: len(cluster.tasks("web", all=True)) > 2, "a task of the new version was made")
        if leader_dies:
            cluster.kill(cluster.leader())
        cluster.until(lambda: phase(cluster) == "COMPLETED", "it went back by itself", 90)
        asked = visitor.answered
        cluster.until(lambda: visitor.answered > asked + REQUESTS_MIN, "the old version goes on")
    assert visitor.failures == []
    after = serving(cluster)
    assert [(t.desired.id, t.observed.pid) for t in after] == [(t.desired.id, t.observed.pid) for t in before]
    record = cluster.call(GET_ROLLOUT, GetRolloutRequest(name="web")).workload.record
    assert (list(record.spec.command), record.rollback_of, record.task_generation) == (SERVER, 2, 1)


def test_waiting_for_a_bad_change_ends_with_the_reason_and_its_exit_code(cluster: LocalCluster, tmp_path: Path) -> None:
    must(run_cli(cluster, "workload", "apply", "-f", write(tmp_path, "good", rollout=SAFE), "--wait"))
    bad = write(tmp_path, "bad", rollout=SAFE, command=["/no/such/program"])
    said = run_cli(cluster, "workload", "apply", "-f", bad, "--wait")
    assert said.code == 10, said.text
    assert "no progress for 5 s" in said.text
    cluster.until(lambda: phase(cluster) == "COMPLETED", "it went back")
    listed = must(run_cli(cluster, "workload", "history", "web"))
    assert "rolled back: no progress for 5 s" in listed
    assert "/no/such/program" in must(run_cli(cluster, "workload", "diff", "web", "--to", "2", "--from", "1"))
    told = cluster.call(LIST_EVENTS, ListEventsRequest(subject="workload/default/web")).events
    kinds = [event.kind for event in told]
    assert {"RolloutStarted", "RolledBack", "RolloutCompleted"} <= set(kinds), kinds


def test_a_canary_is_tried_promoted_and_undone_by_a_person(cluster: LocalCluster, tmp_path: Path) -> None:
    rollout = {"strategy": "CANARY", "canary": 1, "progressDeadline": "60s"}
    first = write(tmp_path, "first", replicas=3, rollout=rollout, env={"V": "1"})
    must(run_cli(cluster, "workload", "apply", "-f", first, "--wait"))
    second = write(tmp_path, "second", replicas=3, rollout=rollout, env={"V": "2"})
    must(run_cli(cluster, "workload", "apply", "-f", second))
    cluster.until(lambda: phase(cluster) == "AWAITING_PROMOTION", "one new task is well")
    cluster.until(lambda: versions(cluster) == ["1", "1", "2"], "it has taken the place of an old one")
    victim = cluster.leader()
    cluster.signal(victim, signal.SIGKILL)
    must(run_cli(cluster, "workload", "rollout", "promote", "web"))
    must(run_cli(cluster, "workload", "rollout", "status", "web", "--wait", "--wait-timeout", "60"))
    cluster.until(lambda: versions(cluster) == ["2", "2", "2"], "all are new")
    must(run_cli(cluster, "workload", "rollout", "undo", "web", "--wait", "--wait-timeout", "60"))
    cluster.until(lambda: versions(cluster) == ["1", "1", "1"], "all are as they were")
    status = json.loads(must(run_cli(cluster, "workload", "rollout", "status", "web", "-o", "json")))
    assert status["rollout"]["phase"].endswith("COMPLETED")


def test_work_that_ends_is_complete_and_waiting_for_it_ends_well(cluster: LocalCluster, tmp_path: Path) -> None:
    once = {"restartPolicy": {"policy": "ON_FAILURE", "maxRetries": 1, "backoff": "100ms"}}
    job = write(tmp_path, "job", replicas=3, command=["sh", "-c", "echo done"], **once)
    said = run_cli(cluster, "workload", "apply", "-f", job, "--wait", "--wait-timeout", "60")
    assert "is rolled out" in must(said)
    cluster.until(lambda: "COMPLETED" in must(run_cli(cluster, "workload", "get", "web")), "all three have ended")
    assert [task for task in cluster.tasks("web") if task.desired.desired == DESIRED_RUNNING and running(task)] == []
    while_seen = {"minReady": "5s"}  # a task that runs for a moment before it fails would count at once
    bad = write(tmp_path, "bad", replicas=1, command=["sh", "-c", "exit 3"], rollout=while_seen, **once)
    said = run_cli(cluster, "workload", "apply", "-f", bad, "--wait", "--wait-timeout", "60")
    assert said.code == 10, said.text


def test_each_node_has_its_task_and_a_drained_one_none(cluster: LocalCluster, tmp_path: Path) -> None:
    rollout = {"maxSurge": 0, "maxUnavailable": 1}
    document = json.loads(manifest_of("web", rollout=rollout, mode="PER_NODE"))
    del document["spec"]["replicas"]
    path = tmp_path / "each.json"
    path.write_text(json.dumps(document))
    must(run_cli(cluster, "workload", "apply", "-f", path, "--wait", "--wait-timeout", "60"))
    assert sorted(task.desired.node_id for task in serving(cluster)) == list(AGENTS)
    must(run_cli(cluster, "node", "drain", AGENTS[0], "--deadline", "30s", "--wait"))
    assert [task.desired.node_id for task in serving(cluster)] == [AGENTS[1]]
    must(run_cli(cluster, "node", "uncordon", AGENTS[0]))
    document["spec"]["env"] = {"V": "2"}
    path.write_text(json.dumps(document))
    must(run_cli(cluster, "workload", "apply", "-f", path, "--wait", "--wait-timeout", "60"))
    assert sorted(task.desired.node_id for task in serving(cluster)) == list(AGENTS)
    assert versions(cluster) == ["2", "2"]


def test_a_full_cluster_is_drained_when_the_deadline_is_over(cluster: LocalCluster, tmp_path: Path) -> None:
    """Each task takes more than half of a node, so that there is no room for a replacement."""
    large = {"resources": {"requests": {"cpu": "1200m", "memory": "8Mi"}}}
    must(run_cli(cluster, "workload", "apply", "-f", write(tmp_path, "full", replicas=2, **large), "--wait"))
    kept = {task.desired.id for task in serving(cluster)}
    must(run_cli(cluster, "node", "drain", AGENTS[0]))
    cluster.until(
        lambda: "until there is room elsewhere" in must(run_cli(cluster, "workload", "explain", "web")),
        "it says why it stays",
    )
    assert {task.desired.id for task in serving(cluster)} == kept
    must(run_cli(cluster, "node", "drain", AGENTS[0], "--deadline", "1s", "--wait", "--wait-timeout", "60"))
    assert [task.desired.node_id for task in serving(cluster)] == [AGENTS[1]]


def running(task: Task) -> bool:
    return task.state == "RUNNING"


def versions(cluster: LocalCluster) -> list[str]:
    return sorted(task.desired.spec.env["V"] for task in serving(cluster))
