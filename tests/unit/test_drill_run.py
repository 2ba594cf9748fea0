"""A whole drill against a make-believe cluster that can be told to lie: the drill must catch it.

Three gRPC servers share one state in memory. Leadership can be transferred; nothing is killed here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from cloudless.cli import methods
from cloudless.cli.dev.drill import DrillSettings, run_drill
from cloudless.cli.dev.health import IS_LEADER
from cloudless.cli.dev.layout import CoordinatorPlan, Layout, build_layout
from cloudless.cli.dev.report import Kind, Report
from cloudless.cli.dev.table import Table
from cloudless.errors import HistoryGone, NotFound, StoreTimeout
from cloudless.rpc.v1 import cluster_pb2, event_pb2, node_pb2, objects_pb2, workload_pb2
from cloudless.rpc.v1.common_pb2 import ResponseHeader
from tests.unit.cli_coordinator import FakeCoordinator

NAMES = ("coordinator-1", "coordinator-2", "coordinator-3")


class Metrics(BaseHTTPRequestHandler):
    """Serves one metric, and stands in for a replica as well."""

    value = 0

    def do_GET(self) -> None:
        body = f"# TYPE {IS_LEADER} gauge\n{IS_LEADER} {type(self).value}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Cluster:
    """The shared state. `drop_every` > 0: that many writes apart, one is acknowledged but never kept."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.revision, self.term, self.leader = 100, 7, 0
        self.drop_every = 0
        self.second_leader = False
        self.new_pid_after_transfer = False
        self.pid = os.getpid()
        self.workloads: dict[str, workload_pb2.Workload] = {}
        self.changes: list[event_pb2.Change] = []
        self.handlers = [type(f"Metrics{n}", (Metrics,), {"value": int(n == 0)}) for n in range(3)]
        self.web = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in self.handlers]
        for server in self.web:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.coordinators = [FakeCoordinator() for _ in NAMES]
        for name, coordinator in zip(NAMES, self.coordinators, strict=True):
            self._serve(name, coordinator)

    def close(self) -> None:
        for coordinator in self.coordinators:
            coordinator.stop()
        for server in self.web:
            server.shutdown()
            server.server_close()

    def layout(self, state_dir: Path) -> Layout:
        plans = tuple(
            CoordinatorPlan(
                name=name,
                api_port=fake.port,
                http_port=1,
                metrics_port=web.server_address[1],
                raft_port=1,
                etcd_port=1,
                enrol_port=1,
                dns_port=1,
            )
            for name, fake, web in zip(NAMES, self.coordinators, self.web, strict=True)
        )
        return Layout(state_dir, 0, plans, build_layout(state_dir).agents)

    def _serve(self, name: str, fake: FakeCoordinator) -> None:
        fake.answer(methods.GET_STATUS, lambda _: cluster_pb2.GetStatusResponse(header=self._header(name)))
        fake.answer(methods.GET_DIGEST, self._digest)
        fake.answer(methods.LIST_MEMBERS, self._members)
        fake.answer(methods.LIST_NODES, lambda _: self._nodes(name))
        fake.answer(methods.LIST_TASKS, self._tasks)
        fake.answer(methods.GET_WORKLOAD, self._get)
        fake.answer(methods.APPLY_WORKLOAD, self._apply)
        fake.answer(methods.DELETE_WORKLOAD, workload_pb2.DeleteWorkloadResponse())
        fake.answer(methods.TRANSFER_LEADER, self._transfer)
        fake.answer(methods.WATCH, self._watch)

    def _header(self, name: str) -> ResponseHeader:
        leader = NAMES[(self.leader + 1) % 3] if self.second_leader and name == NAMES[2] else NAMES[self.leader]
        return ResponseHeader(coordinator_id=name, revision=self.revision, leader_id=leader, term=self.term)

    def _digest(self, request: cluster_pb2.GetDigestRequest) -> cluster_pb2.GetDigestResponse:
        revision = request.revision or self.revision
        return cluster_pb2.GetDigestResponse(revision=revision, digest=f"{revision:x}")

    def _members(self, _: object) -> cluster_pb2.ListMembersResponse:
        return cluster_pb2.ListMembersResponse(members=[cluster_pb2.Member(name=n, started=True) for n in NAMES])

    def _nodes(self, name: str) -> node_pb2.ListNodesResponse:
        nodes = [node_pb2.Node(id=f"agent-{n}", phase="READY", last_heard_s=0.01) for n in (1, 2, 3)]
        return node_pb2.ListNodesResponse(header=self._header(name), nodes=nodes)

    def _tasks(self, _: object) -> workload_pb2.ListTasksResponse:
        observed = objects_pb2.TaskObserved(
            task_id="t1", attempt=1, pid=self.pid, host="127.0.0.1", ports={"http": self.web[0].server_address[1]}
        )
        desired = objects_pb2.TaskDesired(id="t1", node_id="agent-1")
        return workload_pb2.ListTasksResponse(
            tasks=[workload_pb2.Task(desired=desired, observed=observed, state="RUNNING")]
        )

    def _get(self, request: workload_pb2.GetWorkloadRequest) -> Any:
        if request.name == "hello":
            return workload_pb2.GetWorkloadResponse()
        found = self.workloads.get(request.name)
        return workload_pb2.GetWorkloadResponse(workload=found) if found else NotFound(f"no workload {request.name}")

    def _apply(self, request: workload_pb2.ApplyWorkloadRequest) -> workload_pb2.ApplyWorkloadResponse:
        metadata = yaml.safe_load(request.manifest)["metadata"]
        with self.lock:
            self.revision += 1
            record = objects_pb2.WorkloadRecord(
                name=metadata["name"], namespace=metadata["namespace"], annotations=metadata["annotations"]
            )
            if not self.drop_every or self.revision % self.drop_every:
                self.workloads[record.name] = workload_pb2.Workload(record=record, revision=self.revision)
                stored = objects_pb2.StoredRecord(workload=record)
                self.changes.append(event_pb2.Change(kind="workload", revision=self.revision, record=stored))
            self.lock.notify_all()
            result = workload_pb2.ApplyResult(name=record.name, namespace=record.namespace, revision=self.revision)
        return workload_pb2.ApplyWorkloadResponse(results=[result])

    def _transfer(self, _: object) -> cluster_pb2.TransferLeaderResponse:
        with self.lock:
            self.term, self.leader = self.term + 2, (self.leader + 1) % 3
            for number, handler in enumerate(self.handlers):
                handler.value = int(number == self.leader)  # type: ignore[attr-defined]
            if self.new_pid_after_transfer:
                self.pid = os.getppid()
        return cluster_pb2.TransferLeaderResponse(leader_id=NAMES[self.leader], term=self.term)

    def _watch(self, request: event_pb2.WatchRequest) -> Iterator[Any]:
        revision = request.from_revision - 1 if request.from_revision else self.revision
        ends_s = time.monotonic() + 30
        while time.monotonic() < ends_s:
            with self.lock:
                self.lock.wait_for(lambda seen=revision: self.revision > seen, timeout=0.2)  # type: ignore[misc]
                changes = [change for change in self.changes if change.revision > revision]
                revision = self.revision
            yield event_pb2.WatchResponse(revision=revision, changes=changes)


class NoProcesses:
    """A table of a cluster whose processes are nobody's business."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def living(self) -> dict[str, Any]:
        return {}

    def etcd_of(self, _: str) -> None:
        return None


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def drill(cluster: Cluster, tmp_path: Path, rounds: int = 1) -> Report:
    table = cast("Table", NoProcesses(cluster.layout(tmp_path)))
    return run_drill(table, DrillSettings(rounds=rounds, kinds=(Kind.TRANSFER,), settle_s=10.0))


def test_an_honest_cluster_passes_and_is_measured(cluster: Cluster, tmp_path: Path) -> None:
    report = drill(cluster, tmp_path, rounds=2)
    assert report.findings == ()
    first, second = report.rounds
    assert first.leader_gap_s is not None
    assert first.leader_gap_s < 1
    assert (first.terms, second.terms) == ((7, 9), (9, 11))
    assert first.writes_acked >= first.writes_before_fault >= 20
    assert first.http_requests > 0
    assert first.http_failures == 0
    assert first.agent_reconnect_s is not None


def test_a_write_acknowledged_but_not_kept_is_found(cluster: Cluster, tmp_path: Path) -> None:
    cluster.drop_every = 10
    assert any("acknowledged write lost" in finding for finding in drill(cluster, tmp_path).findings)


def test_two_leaders_in_one_term_are_found(cluster: Cluster, tmp_path: Path) -> None:
    cluster.second_leader = True
    assert any("two effective leaders" in finding for finding in drill(cluster, tmp_path).findings)


def test_a_restarted_task_is_found(cluster: Cluster, tmp_path: Path) -> None:
    cluster.new_pid_after_transfer = True
    assert any("task restarted: t1" in finding for finding in drill(cluster, tmp_path).findings)


def test_history_that_is_gone_is_noted_and_newest_values_still_count(cluster: Cluster, tmp_path: Path) -> None:
    refused = iter([True])

    def watch(request: event_pb2.WatchRequest) -> Iterator[Any]:
        if next(refused, False):
            time.sleep(0.3)
            yield HistoryGone("compacted")
        yield from cluster._watch(request)

    for coordinator in cluster.coordinators:
        coordinator.answer(methods.WATCH, watch)
    report = drill(cluster, tmp_path)
    assert report.findings == ()
    assert any("were not recorded" in note for note in report.notes)


def test_a_cluster_that_is_not_whole_is_not_drilled(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudless.cli.dev.drill.FIT_S", 0.5)
    for coordinator in cluster.coordinators:
        coordinator.answer(methods.LIST_MEMBERS, cluster_pb2.ListMembersResponse())
    with pytest.raises(StoreTimeout, match="no voter"):
        drill(cluster, tmp_path)
