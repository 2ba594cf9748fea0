"""A real cluster with TLS, watched by a real Prometheus with the configuration, rules and dashboards of `compose/`.

Only addresses and the paths of credentials are put in place. Every expression must return data; the few that may not
are named with the reason. What a killed coordinator changes is seen in the alerts' own expressions.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cloudless.cli.contexts import ContextFile
from cloudless.cli.methods import GET_WORKLOAD
from cloudless.errors import NotFound
from cloudless.observability.declared import Declared, Kind
from cloudless.observability.metrics import AGENT, AGENT_PREFIX, COORDINATOR, COORDINATOR_PREFIX
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest
from etcd.find import Found
from tests.integration.cluster import HOST, LocalCluster, free_ports, manifest_of
from tests.integration.etcd_fixture import binary  # noqa: F401
from tests.integration.trusted import CONTEXT, Trusted
from tests.prometheus_expressions import EMPTY, HOLDS_AT_FIRST, QUIET, dashboard_expressions, rules, selectors_of
from tests.prometheus_tools import COMPOSE, RULES, promtool, require

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

AGENTS = ("agent-1", "agent-2", "agent-3")
SCRAPE_S = "2s"
DATA_S = 60.0
MOUNTED = "/etc/cloudless/contexts/monitor"


@dataclass
class Watched:
    """The cluster and the Prometheus that scrapes it."""

    cluster: LocalCluster
    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=10) as answer:
            told = json.loads(answer.read())
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the samples of an expression now."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[Watched]:  # noqa: F811
    require("prometheus")
    root = tmp_path_factory.mktemp("watched")
    cluster = LocalCluster(root, binary.path, trust=Trusted(root))
    cluster.add_coordinators()
    cluster.found_together()
    for name in AGENTS:
        cluster.add_agent(name)
    with_prometheus: subprocess.Popen[bytes] | None = None
    try:
        cluster.start(*(process.name for process in cluster.coordinators))
        cluster.wait_formed()
        cluster.start(*AGENTS)
        cluster.wait_ready()
        give_work(cluster)
        (port,) = free_ports(1)
        with_prometheus = start_prometheus(cluster, root, port)
        watched = Watched(cluster, f"{HOST}:{port}")
        cluster.until(lambda: watched.ask("targets")["activeTargets"], "Prometheus answers")
        yield watched
    finally:
        if with_prometheus is not None:
            with_prometheus.kill()
            with_prometheus.wait()
        cluster.close()


def give_work(cluster: LocalCluster) -> None:
    """Run something, ask for what no node has, run what ends at once, and ask for what is not there."""
    cluster.apply(manifest_of("steady", replicas=3))
    cluster.apply(manifest_of("huge", resources={"requests": {"cpu": "64"}}))
    cluster.apply(manifest_of("broken", command=["false"]))
    with pytest.raises(NotFound):
        cluster.call(GET_WORKLOAD, GetWorkloadRequest(namespace="default", name="absent"))


def start_prometheus(cluster: LocalCluster, root: Path, port: int) -> subprocess.Popen[bytes]:
    config = root / "prometheus.yml"
    config.write_text(yaml.safe_dump(put_in_place(cluster)), encoding="utf-8")
    argv = [
        require("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={root / 'tsdb'}",
        f"--web.listen-address={HOST}:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (root / "prometheus.log").open("wb") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=root)


def put_in_place(cluster: LocalCluster) -> dict[str, Any]:
    """Return the configuration of `compose/` with this cluster's addresses, by the names it gives them."""
    config: dict[str, Any] = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    admin = ContextFile(Path(cluster.trust.cli_settings()["CONFIG"])).identity_path(CONTEXT)
    config["global"] |= {"scrape_interval": SCRAPE_S, "scrape_timeout": SCRAPE_S, "evaluation_interval": SCRAPE_S}
    config["rule_files"] = [str(RULES)]
    del config["alerting"]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] != "prometheus"]
    for job in config["scrape_configs"]:
        job["scrape_timeout"] = SCRAPE_S
        tls = job["tls_config"]
        for file in ("ca_file", "cert_file", "key_file"):
            tls[file] = tls[file].replace(MOUNTED, str(admin))
        named = [target for group in job["static_configs"] for target in group["targets"]]
        where = {name: cluster.processes[name.partition(":")[0]].address("metrics") for name in named}
        job["static_configs"] = [{"targets": list(where.values())}]
        by_address = [
            {
                "source_labels": ["__address__"],
                "regex": re.escape(address),
                "target_label": "instance",
                "replacement": name.partition(":")[0],
            }
            for name, address in where.items()
        ]
        others = [rule for rule in job["relabel_configs"] if rule.get("target_label") != "instance"]
        job["relabel_configs"] = [*by_address, *others]
    return config


def missing_of(served: str, prefix: str, declared: tuple[Declared, ...]) -> list[str]:
    names = {sample.name for family in text_string_to_metric_families(served) for sample in family.samples}
    suffix = {Kind.HISTOGRAM: "_count"}
    return [one.name for one in declared if f"{prefix}{one.sample_name}{suffix.get(one.kind, '')}" not in names]


def test_every_declared_metric_has_a_value_at_every_process(watched: Watched) -> None:
    cluster = watched.cluster
    for process in cluster.coordinators:
        text = cluster.metrics_text(process.name)
        assert not missing_of(text, COORDINATOR_PREFIX, COORDINATOR), process.name
    for process in cluster.agents:
        text = cluster.metrics_text(process.name)
        assert not missing_of(text, AGENT_PREFIX, AGENT), process.name
    for name in (AGENTS[0], cluster.leader()):
        done = promtool("check", "metrics", stdin=cluster.metrics_text(name))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_target_is_scraped_by_its_name(watched: Watched) -> None:
    def all_up() -> bool:
        up = {(one["metric"]["job"], one["metric"]["instance"]) for one in watched.query("up == 1")}
        coordinators = {process.name for process in watched.cluster.coordinators}
        wanted = {(job, name) for job in ("cloudless-coordinator", "etcd") for name in coordinators}
        return up == wanted | {("cloudless-agent", name) for name in AGENTS}

    watched.cluster.until(all_up, "nine targets that are up", DATA_S)


def test_every_expression_of_the_dashboards_returns_data(watched: Watched) -> None:
    left = dashboard_expressions() - set(QUIET)

    def all_told() -> bool:
        for expression in sorted(left):
            if watched.query(expression):
                left.discard(expression)
        return not left

    try:
        watched.cluster.until(all_told, "data for every expression", DATA_S)
    except AssertionError as error:
        raise AssertionError("without data:\n" + "\n".join(sorted(left))) from error
    assert all(watched.query(expression) == [] for expression in QUIET)


def test_every_alert_reads_what_there_is_and_none_fires(watched: Watched) -> None:
    for alert, expression in rules().items():
        selectors = selectors_of(expression)
        assert selectors, alert
        for selector in sorted(selectors):
            if selector in EMPTY:
                assert not watched.query(selector), f"{selector} has data although {EMPTY[selector]}"
            else:
                watched.cluster.until(partial(watched.query, selector), f"{alert}: data for {selector}", DATA_S)
        holds = bool(watched.query(expression))
        assert not holds or alert in HOLDS_AT_FIRST, f"{alert} holds: {expression}"
    firing = [one["labels"]["alertname"] for one in watched.ask("alerts")["alerts"] if one["state"] == "firing"]
    assert not firing


def test_what_goes_wrong_is_what_the_alerts_see(watched: Watched) -> None:
    """Last: it kills a coordinator."""
    cluster, told = watched.cluster, rules()
    for alert in ("CloudlessTasksUnplaced", "CloudlessCrashLoop"):
        cluster.until(partial(watched.query, told[alert]), alert, DATA_S)
    (unplaced,) = watched.query(told["CloudlessTasksUnplaced"])
    assert (unplaced["metric"]["reason"], float(unplaced["value"][1])) == ("capacity", 1.0)
    victim = cluster.followers()[0]
    cluster.signal(victim, signal.SIGKILL)
    for alert in ("CloudlessTargetDown", "CloudlessMemberDown", "CloudlessQuorumAtRisk"):
        cluster.until(partial(watched.query, told[alert]), alert, DATA_S)
    (down,) = watched.query(told["CloudlessMemberDown"])
    assert down["metric"] == {"member": victim}
    assert not watched.query(told["CloudlessNoLeader"])
