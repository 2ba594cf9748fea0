"""Run the program `cloudless` as a person would: a process of its own, its exit code and what it said."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.tree import ROOT
from tests.integration.cluster import LocalCluster

TIMEOUT_S = 120.0
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH")


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it printed, errors included."""

    code: int
    text: str


def run_cli(cluster: LocalCluster, *words: str | Path, of: str = "", tree: Path = ROOT, **settings: str | Path) -> Said:
    """Run `cloudless WORDS`; `of`: with the settings of that coordinator, as on its host; `tree`: of that release."""
    environment = {k: v for k, v in os.environ.items() if k in _KEPT_VARIABLES or k.startswith("XDG_")}
    given = {"COORDINATORS": ",".join(cluster.api_addresses()), "ETCD_BIN": str(cluster.etcd_binary)}
    given |= cluster.trust.cli_settings()
    given |= cluster.processes[of].settings if of else {}
    environment |= {f"CLOUDLESS_{name}": str(value) for name, value in {**given, **settings}.items()}
    done = subprocess.run(
        [sys.executable, "-m", "cloudless.cli.main", *map(str, words)], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False, cwd=tree,
    )  # fmt: skip
    return Said(done.returncode, done.stdout)


def must(said: Said) -> str:
    """Return what a command printed that ended well."""
    assert said.code == 0, said.text
    return said.text
