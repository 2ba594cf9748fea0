"""Prometheus and Alertmanager of `--profile monitoring`, from Debian's packages, over the real stack.

Every target is up, every rule is well, every expression of rules and dashboards has data or a reason to have none; then
`down -v` takes all of it away. (What is shown is tried without containers in tests/integration/test_monitoring.py.)
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.tree import ROOT
from tests.cluster.checks import Trial, find_ill
from tests.cluster.compose import COORDINATORS, FILES, HA, ComposeStack, Placing
from tests.prometheus_expressions import EMPTY, HOLDS_AT_FIRST, QUIET, dashboard_expressions, rules, selectors_of

pytestmark = [pytest.mark.cluster, pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

PROMETHEUS, ALERTMANAGER = "http://127.0.0.1:9093", "http://127.0.0.1:9094"
UP_S = 300.0
DATA_S = 120.0
TARGETS = (
    {("prometheus", "localhost:9090")}
    | {(job, name) for job in ("cloudless-coordinator", "etcd") for name in COORDINATORS}
    | {("cloudless-agent", f"agent-{n}") for n in (1, 2, 3)}
)
# Of the dashboards' expressions: what has data only where something happens that nobody here lets happen.
WITHOUT_CAUSE: dict[str, str] = {}


@dataclass
class Watching:
    """The stack with its monitoring."""

    stack: ComposeStack
    environ: dict[str, str]

    def compose(self, *words: str) -> str:
        command = ["docker", "compose", f"--file={FILES[HA]}", *words]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=UP_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def ask(self, path: str, **parameters: str) -> Any:
        return fetch(f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")["data"]


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def until(what: str, within_s: float, find_fault: Callable[[], str]) -> None:
    deadline_s = time.monotonic() + within_s
    while fault := _said(find_fault):
        assert time.monotonic() < deadline_s, f"{what}: {fault}"
        time.sleep(0.5)


def _said(find_fault: Callable[[], str]) -> str:
    try:
        return find_fault()
    except (OSError, urllib.error.URLError) as error:
        return str(error)


@pytest.fixture
def watching(engine_environ: dict[str, str], tmp_path: Path) -> Iterator[Watching]:
    environ = {
        **engine_environ,
        "PROMETHEUS_IMAGE": "cloudless-prometheus:local",
        "ALERTMANAGER_IMAGE": "cloudless-alertmanager:local",
    }
    image = [str(ROOT / "scripts/image"), "--base-from-archive", "--monitoring"]
    subprocess.run(image, cwd=ROOT, env=environ, check=True)
    stack = ComposeStack(Placing(work=tmp_path, log=tmp_path / "log.txt"), environ)
    stack.clear()
    try:
        watching = Watching(stack, environ)
        watching.compose("up", "--detach")
        watching.compose("up", "--detach", "prometheus", "alertmanager")
        yield watching
    finally:
        stack.remove()


def test_monitoring_sees_everything_of_the_real_stack(watching: Watching) -> None:
    trial = Trial(watching.stack)
    until("all well", UP_S, lambda: find_ill(trial))
    assert {"monitor", "prometheus", "alertmanager"} <= set(watching.stack.containers())
    trial.stack.sign_in()
    trial.stack.run_tasks(COORDINATORS[0], 3)
    until("every target is up", DATA_S, lambda: find_down(watching))
    until("every rule is well", DATA_S, lambda: find_ill_rules(watching))
    until("alertmanagers", DATA_S, lambda: "" if watching.ask("alertmanagers")["activeAlertmanagers"] else "none")
    assert fetch(f"{ALERTMANAGER}/api/v2/status")["config"]["original"]
    left = dashboard_expressions() - set(QUIET) - set(WITHOUT_CAUSE)
    until("data for the dashboards", DATA_S, lambda: find_silent(watching, left))
    read = {selector for expression in rules().values() for selector in selectors_of(expression)} - set(EMPTY)
    until("data for the rules", DATA_S, lambda: find_silent(watching, read))
    firing = {one["labels"]["alertname"] for one in watching.ask("alerts")["alerts"] if one["state"] == "firing"}
    assert firing <= set(HOLDS_AT_FIRST)
    assert watching.stack.remove() == []


def find_down(watching: Watching) -> str:
    up = {(one["metric"]["job"], one["metric"]["instance"]) for one in watching.query("up == 1")}
    errors = [one["lastError"] for one in watching.ask("targets")["activeTargets"] if one["lastError"]]
    return "" if up == TARGETS else f"missing {sorted(TARGETS - up)}, strangers {sorted(up - TARGETS)}: {errors}"


def find_ill_rules(watching: Watching) -> str:
    told = [rule for group in watching.ask("rules")["groups"] for rule in group["rules"]]
    if {rule["name"] for rule in told} != set(rules()):
        return f"{len(told)} rules are loaded"
    return ", ".join(
        f"{rule['name']} {rule['health']} {rule.get('lastError')}" for rule in told if rule["health"] != "ok"
    )


def find_silent(watching: Watching, left: set[str]) -> str:
    for expression in sorted(left):
        if watching.query(expression):
            left.discard(expression)
    return "\n".join(sorted(left))
