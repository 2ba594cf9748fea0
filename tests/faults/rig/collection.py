"""Which tests prove which promises: every test function marked with `@scenario`, found without running pytest."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass

from tests.architecture.tree import ROOT
from tests.faults.rig.scenario import Scenario

FOLDERS = ("tests/faults", "tests/integration")


@dataclass(frozen=True, slots=True)
class Proof:
    """One test. `path` is relative to the repository."""

    test: str
    path: str
    scenario: Scenario
    summary: str

    @property
    def node_id(self) -> str:
        return f"{self.path}::{self.test}"


def find_proofs() -> list[Proof]:
    """Return every scenario's test, by number and name."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("test_*.py")):
            relative = path.relative_to(ROOT)
            module = importlib.import_module(".".join(relative.with_suffix("").parts))
            for name, test in inspect.getmembers(module, inspect.isfunction):
                marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "scenario"]
                if marks and test.__module__ == module.__name__:
                    found.append(Proof(name, str(relative), marks[0].args[0], inspect.getdoc(test) or ""))
    return sorted(found, key=lambda proof: (proof.scenario.numbers, proof.test))


def select(proofs: list[Proof], only: str) -> list[Proof]:
    """Return the tests that prove a number, or whose name holds a text; all for ""."""
    if only.isdigit():
        return [proof for proof in proofs if int(only) in proof.scenario.numbers]
    return [proof for proof in proofs if only in proof.test]
