"""What a scenario's run leaves behind, and how runs are merged.

One result a test: ``test, numbers, outcome, reason, date, etcd, rounds, figures, timeline, took_s``. `outcome` is
"passed", "failed" or "skipped"; a skipped run never replaces an older real one, because it says nothing.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rig.collection import Proof
from tests.faults.rig.scenario import Scenario
from tests.faults.rig.trial import Trial

Result = dict[str, Any]
_REASON_LENGTH_MAX = 600


def build_result(test: str, scenario: Scenario, report: pytest.TestReport, trial: Trial | None) -> Result:
    """Return the result of one phase of a test that failed, was skipped, or was its call."""
    return {
        "test": test,
        "numbers": list(scenario.numbers),
        "outcome": report.outcome,
        "reason": _reason_of(report),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "etcd": _version_of(trial.etcd_binary) if trial else "",
        "rounds": trial.rounds_done if trial else 0,
        "figures": trial.figures if trial else {},
        "timeline": trial.timeline if trial else [],
        "took_s": round(report.duration, 1),
    }


def _reason_of(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr)[:_REASON_LENGTH_MAX]


def _version_of(binary: Path) -> str:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout
    return said.splitlines()[0].rpartition(" ")[2] if said else ""


def read_results(path: Path) -> list[Result]:
    """Return the results kept in a file, none if there is no file."""
    return list(json.loads(path.read_text())["results"]) if path.exists() else []


def write_results(path: Path, results: Iterable[Result]) -> None:
    ordered = sorted(results, key=lambda result: (result["numbers"], result["test"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"results": ordered}, indent=1) + "\n")


def merge(old: Iterable[Result], new: Iterable[Result], tests: set[str]) -> list[Result]:
    """Return the newest word on each test that still exists."""
    held = {result["test"]: result for result in old}
    for result in new:
        if result["outcome"] != "skipped" or result["test"] not in held:
            held[result["test"]] = result
    return [result for test, result in held.items() if test in tests]


def failed_result(proof: Proof, reason: str) -> Result:
    """Return the result of a test that told none itself."""
    return {
        "test": proof.test,
        "numbers": list(proof.scenario.numbers),
        "outcome": "failed",
        "reason": reason,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "etcd": "",
        "rounds": 0,
        "figures": {},
        "timeline": [],
        "took_s": 0.0,
    }
