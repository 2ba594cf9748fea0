"""What `compose/` gives Prometheus, Alertmanager and Grafana: whole, of one mind, and asking for what there is."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudless.core.identity.names import ANY_COORDINATOR, IdentityKind, server_name
from cloudless.observability.declared import Kind
from cloudless.observability.metrics import AGENT, AGENT_PREFIX, COORDINATOR, COORDINATOR_PREFIX
from tests.prometheus_tools import COMPOSE, DASHBOARDS, RULES, promtool, require

TITLES = {"RAFT Consensus Health", "Coordinator Metrics", "Agent Metrics"}
GRAFANA = COMPOSE / "grafana" / "provisioning"
FILES = sorted(DASHBOARDS.glob("*.json"))
SUFFIXES = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
SERVED = {
    f"{prefix}{one.sample_name}{suffix}"
    for prefix, declared in ((COORDINATOR_PREFIX, COORDINATOR), (AGENT_PREFIX, AGENT))
    for one in declared
    for suffix in SUFFIXES.get(one.kind, ("",))
}
WIDTH = 24


def load(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def load_yaml(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def targets_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in dashboard["panels"] for target in panel.get("targets", ())]


def sources() -> dict[str, dict[str, Any]]:
    return {one["uid"]: one for one in load_yaml(GRAFANA / "datasources" / "datasources.yml")["datasources"]}


def test_there_are_the_three_dashboards() -> None:
    found = [load(file) for file in FILES]
    assert {one["title"] for one in found} == TITLES
    assert len({one["uid"] for one in found}) == len(found)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_asks_for_what_is_declared(file: Path) -> None:
    named = set(re.findall(r"\bcloudless_(?:coordinator|agent)_\w+", file.read_text(encoding="utf-8")))
    assert named <= SERVED
    assert named, "asks for nothing of ours"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboards_panels_have_a_place_a_unit_a_legend_and_a_source(file: Path) -> None:
    dashboard = load(file)
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["instance"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= WIDTH
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        if panel["type"] in ("row", "logs"):
            continue
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
    assert all(target["datasource"]["uid"] in sources() for target in targets_of(dashboard))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_rules_read_what_is_declared() -> None:
    document = load_yaml(RULES)
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        assert set(re.findall(r"\bcloudless_(?:coordinator|agent)_\w+", rule["expr"])) <= SERVED, rule["alert"]


def test_everything_of_ours_is_shown_or_watched() -> None:
    """A metric that nobody looks at is dead weight."""
    text = RULES.read_text(encoding="utf-8") + "".join(file.read_text(encoding="utf-8") for file in FILES)
    unseen = [
        one.name
        for prefix, declared in ((COORDINATOR_PREFIX, COORDINATOR), (AGENT_PREFIX, AGENT))
        for one in declared
        if f"{prefix}{one.sample_name}" not in text and one.name not in NOT_SHOWN
    ]
    assert not unseen


NOT_SHOWN = {
    "backup_bytes",
    "backup_failures_in_a_row",
    "writes_refused",
    "etcd_restarts",
    "terms_won",
    "candidates",
    "info",
    "trace_spans_dropped",
}
"""Watched by alerts, or for looking into one case only."""


def test_grafanas_sources_are_those_of_the_compose_file() -> None:
    urls = {uid: one["url"] for uid, one in sources().items()}
    assert urls == {
        "prometheus": "http://prometheus:9090",
        "loki": "http://loki:3100",
        "jaeger": "http://jaeger:16686",
    }
    provider = load_yaml(GRAFANA / "dashboards" / "dashboards.yml")["providers"][0]
    assert provider["type"] == "file"


def test_prometheus_takes_its_configuration() -> None:
    done = promtool("check", "config", "--syntax-only", COMPOSE / "prometheus" / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_knows_everybody_by_the_name_of_its_certificate() -> None:
    config = load_yaml(COMPOSE / "prometheus" / "prometheus.yml")
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for name in ("cloudless-coordinator", "etcd"):
        assert jobs[name]["tls_config"]["server_name"] == ANY_COORDINATOR
        assert jobs[name]["static_configs"][0]["targets"] == [f"coordinator-{n}:9090" for n in (1, 2, 3)]
    for number in (1, 2, 3):
        job = jobs[f"cloudless-agent-{number}"]
        assert job["tls_config"]["server_name"] == server_name(IdentityKind.AGENT, f"agent-{number}")
        assert job["static_configs"][0]["targets"] == [f"agent-{number}:9092"]
        assert {"target_label": "job", "replacement": "cloudless-agent"} in job["relabel_configs"]


def test_alertmanager_takes_its_configuration() -> None:
    file = COMPOSE / "alertmanager" / "alertmanager.yml"
    done = subprocess.run([require("amtool"), "check-config", str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_tells_somebody_who_is_declared_and_knows_the_alerts() -> None:
    config = load_yaml(COMPOSE / "alertmanager" / "alertmanager.yml")
    declared = {one["name"] for one in config["receivers"]}
    routes = [config["route"], *config["route"]["routes"]]
    assert {route["receiver"] for route in routes} <= declared
    alerts = {rule["alert"] for group in load_yaml(RULES)["groups"] for rule in group["rules"]}
    assert set(re.findall(r"Cloudless\w+", str(config["inhibit_rules"]))) <= alerts
