"""Prometheus and its tool, for tests that ask them: from PATH. Where they are missing the tests are skipped.

Debian's package `prometheus` has both; installing it would start a service, so `.ci/run` only unpacks it.
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
    """Return the path of `prometheus` or `promtool`, or skip the test."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian: the package prometheus)")
    return found


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool and return what it said."""
    return subprocess.run(
        [require("promtool"), *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=RUN_MAX_S
    )
