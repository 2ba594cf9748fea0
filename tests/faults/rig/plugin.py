"""Fault scenarios in pytest: a trial for each, and a result for whoever asked for it (`scripts/faults`)."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from etcd.find import Found
from tests.faults.rig.results import build_result
from tests.faults.rig.scenario import scenario_of
from tests.faults.rig.trial import Trial
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

_TAIL_LINES = 25

_TRIAL = pytest.StashKey[Trial]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault-rounds", type=int, default=0, help="rounds of each scenario, instead of its own number")
    group.addoption("--fault-results", type=Path, default=None, help="directory to write each scenario's result to")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rounds = config.getoption("--fault-rounds")
    for item in items:
        if found := scenario_of(item):
            item.add_marker(pytest.mark.timeout(found.budget_for(rounds)))


@pytest.fixture
def trial(request: pytest.FixtureRequest, tmp_path: Path, binary: Found) -> Iterator[Trial]:
    found = scenario_of(request.node)
    assert found, "mark the test with @scenario"
    if lack := found.find_lack():
        pytest.skip(lack)
    made = Trial(found, tmp_path, binary.path, request.config.getoption("--fault-rounds"))
    request.node.stash[_TRIAL] = made
    yield made
    failures = made.close()
    assert not failures, failures


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    scenario, trial = scenario_of(item), item.stash.get(_TRIAL, None)
    if scenario is None:
        return report
    if report.failed and trial is not None:
        lines = [f"{at_s:8.2f} s  {what}" for at_s, what in trial.timeline]
        report.sections.append(("timeline", "\n".join(lines)))
        if hasattr(trial, "cluster"):
            report.sections += [
                (f"end of {name}'s log", trial.cluster.tail(name, _TAIL_LINES)) for name in trial.cluster.processes
            ]
    results = item.config.getoption("--fault-results")
    if results is not None and (report.when == "call" or not report.passed):
        result = build_result(item.originalname, scenario, report, trial)  # type: ignore[attr-defined]
        (results / f"{result['test']}.json").write_text(json.dumps(result, indent=1))
    return report
