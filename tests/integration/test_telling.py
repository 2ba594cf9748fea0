"""What a real cluster tells of itself: traces that connect its processes, lines that machines can read, no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cloudless.observability.fields import FIELDS
from etcd.find import Search, find
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import LocalCluster, manifest_of
from tests.integration.otlp_receiver import Receiver, Seen, receiving
from tests.integration.trusted import Trusted

PASSWORD = "mellon-mellon-mellon"
TOLD_S = 20.0

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[LocalCluster]:
    root = tmp_path_factory.mktemp("telling")
    cluster = LocalCluster(root, Path(find(Search()).path), trust=Trusted(root))
    try:
        cluster.add_coordinators()
        cluster.found_together()
        cluster.add_agent("agent-1")
        for process in cluster.processes.values():
            process.settings |= {"LOG_FORMAT": "json", "OTLP_ENDPOINT": receiver.url}
        cluster.start(*cluster.processes)
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(living: LocalCluster) -> LocalCluster:
    """Return the cluster, so that a failed test shows its logs."""
    return living


def lines_of(cluster: LocalCluster, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cluster.processes[name].log.read_text().splitlines()]


def find_span(trace: list[Seen], name: str, kind: str) -> Seen | None:
    return next((span for span in trace if span.name == name and span.service[0] == kind), None)


def apply_by_command(cluster: LocalCluster, tmp_path: Path, receiver: Receiver, manifest: str) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text(manifest)
    must(run_cli(cluster, "workload", "apply", "-f", file, OTLP_ENDPOINT=receiver.url))


def test_a_change_is_one_trace_from_the_command_to_the_running_task(
    cluster: LocalCluster, receiver: Receiver, tmp_path: Path
) -> None:
    apply_by_command(cluster, tmp_path, receiver, manifest_of("traced", env={"DB_PASSWORD": PASSWORD}))
    (root,) = cluster.until(lambda: receiver.named("cloudless workload apply"), "the command's span", TOLD_S)

    leader = cluster.leader()
    steps = {
        "cloudless workload apply": ("cli", ""),
        "ApplyWorkload": ("coordinator", "cloudless workload apply"),
        "commit": ("coordinator", "ApplyWorkload"),
        "schedule": ("coordinator", "commit"),
        "start task": ("agent", "schedule"),
        "executor start": ("agent", "start task"),
        "report task": ("coordinator", "schedule"),
    }

    def told() -> list[Seen]:
        """Return the trace once every process has sent its part."""
        trace = receiver.trace(root.trace_id)
        return trace if steps.keys() <= {span.name for span in trace} else []

    trace = cluster.until(told, f"the trace of {root}", TOLD_S)
    names = {span.span_id: span.name for span in trace}
    found = {name: find_span(trace, name, kind) for name, (kind, _) in steps.items()}
    for name, (_, parent) in steps.items():
        span = found[name]
        assert span is not None, f"no span {name} among {sorted(names.values())}"
        assert names.get(span.parent_id, "") == parent
        assert span.start_ns <= span.end_ns
    schedule, start = found["schedule"], found["start task"]
    assert schedule is not None
    assert schedule.service == ("coordinator", leader)
    assert start is not None
    assert start.service == ("agent", "agent-1")
    assert start.attributes["cloudless.workload"] == "traced"
    assert not [span for span in receiver.spans() if PASSWORD in str(span)]
    said = [line for line in lines_of(cluster, leader) if line.get("trace_id") == root.trace_id]
    assert [line for line in said if line.get("workload") == "traced" and line["node"] == "agent-1"]


def test_a_secret_in_a_workloads_environment_is_not_told_to_anybody(
    cluster: LocalCluster, receiver: Receiver, tmp_path: Path
) -> None:
    """Not even where a failure quotes it; that no log has it is seen at the end."""
    broken = manifest_of("broken", env={"DB_PASSWORD": PASSWORD}, command=[f"/no/such/{PASSWORD}"])
    apply_by_command(cluster, tmp_path, receiver, broken)

    def told() -> bool:
        return any(
            line.get("workload") == "broken" and "[redacted]" in line["message"]
            for line in lines_of(cluster, "agent-1")
        )

    cluster.until(told, "the agent says that it cannot start it", TOLD_S)
    failed = cluster.until(
        lambda: [t for t in cluster.tasks("broken", all=True) if t.observed.message], "it is reported"
    )
    assert "[redacted]" in failed[0].observed.message
    assert PASSWORD not in str([task.observed for task in failed])
    must(run_cli(cluster, "workload", "delete", "broken"))


def test_a_failover_is_one_trace_of_the_new_leader(cluster: LocalCluster, receiver: Receiver) -> None:
    before = cluster.leader()
    known = set(receiver.named("failover"))
    others = cluster.followers()
    cluster.kill(before, etcd=True)
    (whole,) = cluster.until(lambda: set(receiver.named("failover")) - known, "the failover's trace", TOLD_S)
    assert whole.attributes["cloudless.leader_before"] == before
    assert whole.attributes["cloudless.lost"] is True
    assert whole.service == ("coordinator", whole.attributes["cloudless.leader"])
    assert whole.attributes["cloudless.leader"] in others
    parts = [span for span in receiver.trace(whole.trace_id) if span.parent_id == whole.span_id]
    assert [span.name for span in parts] == ["depose", "elect", "barrier", "start controllers"]
    assert [part.start_ns for part in parts[1:]] == [part.end_ns for part in parts[:-1]]
    assert (parts[0].start_ns, parts[-1].end_ns) == (whole.start_ns, whole.end_ns)

    def etcd_is_heard() -> bool:
        return any(line.get("source") == "etcd" for name in others for line in lines_of(cluster, name))

    cluster.until(etcd_is_heard, "etcd's own word for it", TOLD_S)
    cluster.start(before)
    cluster.wait_ready()


def test_every_line_is_json_with_the_documented_fields_and_no_secret(cluster: LocalCluster) -> None:
    cluster.stop(*cluster.processes)
    secrets = cluster.trust.secrets(list(cluster.processes.values()))
    assert len(secrets) > 10
    terms, sources = set(), set()
    for process in cluster.processes.values():
        lines = lines_of(cluster, process.name)
        assert len(lines) > 5
        for line in lines:
            assert {"time", "level", "message", "process", "node_id"} <= line.keys()
            assert not line.keys() - {"time", "level", "message", "process", "node_id", "exception", *FIELDS}
            assert datetime.fromisoformat(line["time"]).tzinfo is not None
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", line["time"])
            assert (line["process"], line["node_id"]) == (process.role, process.name)
            terms.add(line.get("term"))
            sources.add(line.get("source"))
        text = process.log.read_text()
        assert not [what for what, secret in secrets.items() if secret in text]
        assert PASSWORD not in text
    assert terms - {None}
    assert "etcd" in sources
