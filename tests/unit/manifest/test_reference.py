"""The reference names every field there is, and no other; the page is what the table says today."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudless.cli.manifest_manual import write_manual
from cloudless.core.manifest.reference import ENTRIES
from cloudless.core.manifest.text import write_spec
from tests.architecture.tree import ROOT
from tests.unit.manifest.samples import SAMPLES

FREE_MAPPINGS = {"env", "placement.nodeSelector"}
"""Their keys are the user's own."""

SAME_FIELDS = (
    (r"^livenessProbe\.", "readinessProbe."),
    (r"^placement\.(affinity|antiAffinity)\.workloads\.(required|preferred)\[\]\.(workload|labels|topology)$",
     r"placement.affinity.workloads.required[].\3"),
    (r"^placement\.affinity\.nodes\.preferred\[\]\.(key|operator|values)$", r"placement.affinity.nodes.required[].\1"),
    (r"^placement\..*\.preferred\[\]\.weight$", "placement.affinity.nodes.preferred[].weight"),
    (r"^securityContext\.rlimits\.[a-z]+\.", "securityContext.rlimits.*."),
    (r"^securityContext\.rlimits\.[a-z]+$", "securityContext.rlimits"),
)  # fmt: skip
"""What the page says to have the same fields as another."""


def paths(value: Any, at: str) -> Iterator[str]:
    """Yield the path of every field, and of every list of mappings, in written data."""
    if isinstance(value, dict) and at not in FREE_MAPPINGS and not at.endswith("[].labels"):
        if at.endswith(("Probe", ".http", ".tcp", ".exec")):
            yield at
        for name, held in value.items():
            yield from paths(held, f"{at}.{name}" if at else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield at
        for item in value:
            yield from paths(item, f"{at}[]")
    else:
        yield at


def as_documented(path: str) -> str:
    for pattern, instead in SAME_FIELDS:
        path = re.sub(pattern, instead, path)
    return path


def test_every_field_has_its_entry_and_every_entry_its_field() -> None:
    written = {as_documented(path) for spec in SAMPLES for path in paths(write_spec(spec), "")}
    assert sorted(entry.path for entry in ENTRIES) == sorted(written)


def test_the_page_is_fresh() -> None:
    held = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
    assert held == write_manual(), "write it anew: python -m cloudless.cli.manifest_manual > docs/manifest.md"


def test_a_field_of_a_list_item_says_its_default_and_others_have_the_models() -> None:
    assert "| `replicas` | 0 to 10000 | 1 | How many tasks. |" in write_manual()
    assert "| `rollout.autoRollback` | true or false | true | " in write_manual()
