"""What the dashboards and rules of `compose/` ask of Prometheus, and what of it may have no data, with the reason."""

from __future__ import annotations

import json
import re

import yaml

from tests.prometheus_tools import DASHBOARDS, RULES

# selector or expression                                          why it has no data in a healthy cluster
EMPTY = {
    'cloudless_coordinator_member_healthy{role="learner"}': "nobody joins",
}
HOLDS_AT_FIRST = {
    "CloudlessBackupOld": "the first backup is due ten minutes after a cluster began",
    "CloudlessTasksUnplaced": "the test asks for more than there is",
    "CloudlessCrashLoop": "the test runs what ends at once",
}
# The annotation asks when leadership changed, and it did not: nothing is what it should say.
QUIET = ("sum(changes(cloudless_coordinator_is_leader[30s])) > 0",)


def filled_in(expression: str) -> str:
    """Return a dashboard's expression as Grafana would ask for it with all instances chosen."""
    return expression.replace("$__rate_interval", "30s").replace("$instance", ".*")


def dashboard_expressions() -> set[str]:
    found: set[str] = set()
    for file in DASHBOARDS.glob("*.json"):
        dashboard = json.loads(file.read_text(encoding="utf-8"))
        targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
        targets += [one for one in dashboard["annotations"]["list"] if "expr" in one]
        found |= {filled_in(target["expr"]) for target in targets if target["datasource"]["type"] == "prometheus"}
    return found


def rules() -> dict[str, str]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return {rule["alert"]: rule["expr"] for group in document["groups"] for rule in group["rules"]}


def selectors_of(expression: str) -> set[str]:
    """Return what an expression reads: the names of series with their matchers, without ranges and functions."""
    named = re.findall(
        r"(?:\b(?:cloudless|etcd_disk|etcd_server)_\w+|\bup)(?:\{[^}]*\})?|\{__name__[^}]*\}", expression
    )
    return set(named)
