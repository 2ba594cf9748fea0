"""Prometheus and the tools that come with it, for tests that ask them: from PATH. Without them the tests are skipped.

Debian's packages `prometheus` and `prometheus-alertmanager` have them; installing those would start services, so
`.ci/run` only unpacks them.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

COMPOSE = ROOT / "compose"
RULES = COMPOSE / "prometheus" / "rules" / "cloudless.yml"
DASHBOARDS = COMPOSE / "grafana" / "dashboards"
RUN_MAX_S = 60


def require(program: str) -> str:
    """Return the path of `prometheus`, `promtool` or `amtool`, or skip the test."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return found


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool and return what it said."""
    return subprocess.run(
        [require("promtool"), *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=RUN_MAX_S
    )
