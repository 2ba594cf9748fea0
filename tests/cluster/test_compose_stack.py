"""The HA stack itself, built, deployed and broken by its own script, on the engine of the container tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.conftest import run_script

pytestmark = [pytest.mark.cluster, pytest.mark.docker]

RUN_S = 900


@pytest.mark.timeout(RUN_S + 60)
def test_the_ha_stack_passes_its_own_test(engine_environ: dict[str, str], tmp_path: Path) -> None:
    code, said = run_script(engine_environ, tmp_path, "--base-from-archive", within_s=RUN_S)
    print(said)
    assert code == 0, said
    assert json.loads((tmp_path / "results.json").read_text())["passed"] is True
