"""The HA stack itself, built, deployed and broken by its own script, on the engine of the container tests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster.compose import FILES
from tests.cluster.conftest import run_script

pytestmark = [pytest.mark.cluster, pytest.mark.docker]

RUN_S = 900


@pytest.mark.timeout(RUN_S + 60)
def test_the_ha_stack_passes_its_own_test(engine_environ: dict[str, str], tmp_path: Path) -> None:
    code, said = run_script(engine_environ, tmp_path, "--base-from-archive", within_s=RUN_S)
    print(said)
    assert code == 0, said
    assert json.loads((tmp_path / "results.json").read_text())["passed"] is True


@pytest.mark.parametrize("project", FILES)
def test_compose_itself_reads_the_files_without_a_word(engine_environ: dict[str, str], project: str) -> None:
    command = ["docker", "compose", f"--file={FILES[project]}", "--profile", "*", "config", "--quiet"]
    done = subprocess.run(command, env=engine_environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
