"""Every example is applied on a live cluster and does what it is there to show.

What an example sets and this version does not honour yet is refused by name, exactly that: by the table of the manifest
itself, so that an example is run from the day on which nothing of it stands there any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudless.adapters.yaml_documents import load_documents
from cloudless.cli.methods import DELETE_WORKLOAD, GET_WORKLOAD, LIST_NODES, LIST_TASKS
from cloudless.core.abilities import needed_abilities
from cloudless.core.fields import Fields, Problems
from cloudless.core.manifest.spec import read_spec
from cloudless.core.manifest.unsupported import refuse_unsupported
from cloudless.core.model import ExecutorKind, WorkloadMode, WorkloadSpec
from cloudless.errors import InvalidSpec, NotFound
from cloudless.rpc.v1.node_pb2 import ListNodesRequest
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest, GetWorkloadRequest, ListTasksRequest, Workload
from etcd.find import Found
from tests.architecture.tree import ROOT
from tests.docker_engine import IMAGE, DockerDaemon
from tests.integration.cluster import LocalCluster
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
EXAMPLE_IMAGE = ("busybox", "1.36")
AGENTS = {"agent-1": "zone-a", "agent-2": "zone-b", "agent-3": "zone-c"}
EXAMPLES_LEAST = 10
RUNS_S = 60.0


@dataclass(frozen=True)
class Document:
    """One workload of an example, and the fields by which this version refuses it."""

    namespace: str
    name: str
    spec: WorkloadSpec
    refused: tuple[str, ...]


def documents(path: Path) -> list[Document]:
    found = []
    for document in load_documents(path.read_text(encoding="utf-8")):
        problems, refused = Problems(), Problems()
        spec = read_spec(Fields(document["spec"], "spec", problems))  # type: ignore[index, call-overload]
        assert not problems.found()
        refuse_unsupported(spec, refused)
        metadata = document["metadata"]  # type: ignore[index, call-overload]
        fields = tuple(problem.field for problem in refused.found())
        found.append(Document(metadata.get("namespace", "default"), metadata["name"], spec, fields))
    return found


def needs_engine(path: Path) -> bool:
    return any(document.spec.executor is ExecutorKind.DOCKER for document in documents(path))


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("examples"), binary.path)
    made.add_coordinators()
    made.found_together()
    for name, zone in AGENTS.items():
        made.add_agent(name, zone=zone, cpu_cores=4)
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(living: LocalCluster, request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """The cluster; with an engine on agent-1, if the example needs one and there can be one."""
    if not needs_engine(request.getfixturevalue("example")):
        yield living
        return
    daemon: DockerDaemon = request.getfixturevalue("docker_daemon")
    daemon.client().tag(IMAGE, *EXAMPLE_IMAGE)
    settings = {"DOCKER_ENABLED": "true", "DOCKER_HOST": daemon.host}
    if not settings.items() <= living.processes["agent-1"].settings.items():
        living.stop("agent-1")
        living.processes["agent-1"].settings |= settings
        living.start("agent-1")
    living.until(lambda: "docker" in executors(living), "agent-1 has an engine", RUNS_S)
    yield living
    living.until(lambda: not daemon.containers(), "its containers are removed", RUNS_S)


def executors(cluster: LocalCluster) -> list[str]:
    nodes = cluster.call(LIST_NODES, ListNodesRequest()).nodes
    return [executor for node in nodes for executor in node.info.executors]


def why_unable(cluster: LocalCluster, document: Document) -> list[str]:
    """Return why no node of this machine can keep what the example promises its tasks."""
    nodes = cluster.call(LIST_NODES, ListNodesRequest()).nodes
    return [
        nodes[0].info.unable[ability]
        for ability in needed_abilities(document.spec)
        if all(ability in node.info.unable for node in nodes)
    ]


def find(cluster: LocalCluster, document: Document) -> Workload | None:
    try:
        request = GetWorkloadRequest(namespace=document.namespace, name=document.name)
        return cluster.call(GET_WORKLOAD, request).workload
    except NotFound:
        return None


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_or_is_refused_by_just_what_is_not_honoured_yet(example: Path, cluster: LocalCluster) -> None:
    wanted = documents(example)
    text = example.read_text(encoding="utf-8")
    refused = [field for document in wanted for field in document.refused]
    if refused:
        with pytest.raises(InvalidSpec) as error:
            cluster.apply(text)
        said = [problem.field for problem in error.value.problems]
        assert len(said) == len(refused)
        assert all(name.endswith(field) for name, field in zip(sorted(said), sorted(refused), strict=True)), said
        assert all(find(cluster, document) is None for document in wanted), "all documents or none"
        return
    if unable := [why for document in wanted for why in why_unable(cluster, document)]:
        pytest.skip(unable[0])
    try:
        cluster.apply(text)
        for document in wanted:
            cluster.until(lambda: _is_well(find(cluster, document)), f"{document.name} runs", RUNS_S)  # noqa: B023
            assert _count(cluster, document) == _replicas(document)
        assert not cluster.apply(text).results[0].changed_fields, "applied again it changes nothing"
    finally:
        for document in wanted:
            cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(namespace=document.namespace, name=document.name))
        for document in wanted:
            cluster.until(lambda: find(cluster, document) is None, f"{document.name} is gone", RUNS_S)  # noqa: B023


def _is_well(workload: Workload | None) -> bool:
    return workload is not None and workload.summary.state in ("RUNNING", "COMPLETED")


def _count(cluster: LocalCluster, document: Document) -> int:
    """Return how many tasks of it run or are done."""
    request = ListTasksRequest(namespace=document.namespace, workload=document.name, all=True)
    states = [task.state for task in cluster.call(LIST_TASKS, request).tasks]
    return sum(state in ("RUNNING", "COMPLETED") for state in states)


def _replicas(document: Document) -> int:
    return len(AGENTS) if document.spec.mode is WorkloadMode.PER_NODE else document.spec.replicas


def test_there_is_an_example_of_every_feature_and_each_begins_with_what_it_shows() -> None:
    assert len(EXAMPLES) >= EXAMPLES_LEAST
    for path in EXAMPLES:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert all(line.startswith("# ") for line in lines[:1]), path.name
        assert lines[1].startswith("#"), path.name
        assert max(map(len, lines)) <= 120, path.name
    specs = {path.stem: documents(path) for path in EXAMPLES}
    assert any(len(found) > 1 for found in specs.values()), "one of several documents"
    assert any("max_surge" in path.read_text(encoding="utf-8") for path in EXAMPLES), "one in the other spelling"
