"""The HA stack itself, built, deployed and broken by its own script: minutes, so only when asked for (`-m slow`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.cluster.private_engine import find_lack

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RUN_S = 1500


def find_engine(directory: Path) -> list[str]:
    """Return the arguments that give the script an engine; skip where there can be none."""
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0:
        return []
    if lack := find_lack():
        pytest.skip(f"no Docker engine answers, and {lack}")
    if shutil.which("debootstrap") is None:
        pytest.skip("no Docker engine answers, and for an own one debootstrap is missing: apt-get install debootstrap")
    return ["--private-engine", str(directory), "--base-from-archive"]


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    directory = Path(tempfile.mkdtemp(prefix="clha-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(RUN_S + 60)
def test_the_ha_stack_passes_its_own_test(short_directory: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.txt"
    command = [
        str(ROOT / "scripts/test-ha-cluster.sh"),
        "--results",
        str(results),
        "--logs",
        str(tmp_path / "logs.txt"),
    ]
    done = subprocess.run(
        [*command, *find_engine(short_directory / "engine")], cwd=ROOT, env=dict(os.environ), capture_output=True,
        text=True, timeout=RUN_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(results.with_suffix(".json").read_text())["passed"] is True
