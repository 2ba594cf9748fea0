"""The layer law: the import-linter contracts in setup.cfg hold, and there are as many as we think."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

from tests.architecture.tree import ROOT

CONTRACTS = {"layers", "adapters", "pure", "seams", "etcd"}


def test_all_import_contracts_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint_imports, "--config", "setup.cfg", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    broken = done.stdout.partition("Broken contracts")[2]
    assert done.returncode == 0, broken or done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_no_contract_has_gone_missing() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    prefix = "importlinter:contract:"
    assert {name.removeprefix(prefix) for name in config.sections() if name.startswith(prefix)} == CONTRACTS
