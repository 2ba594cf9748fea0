"""What is not honoured is refused by name, whatever it is; what is, is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from cloudless.core.fields import Problems
from cloudless.core.manifest.text import diff_fields, written_defaults
from cloudless.core.manifest.unsupported import UNSUPPORTED, refuse_unsupported
from cloudless.core.model import ExecutorKind, Probe, ProbeKind, WorkloadMode, WorkloadSpec
from tests.unit.manifest.samples import COUNTED, FULL, PER_NODE, PLAIN


def refused(spec: WorkloadSpec, table: Mapping[str, tuple[ExecutorKind, ...]] = UNSUPPORTED) -> list[str]:
    problems = Problems()
    refuse_unsupported(spec, problems, table)
    return [str(problem) for problem in problems.found()]


@pytest.mark.parametrize("path", UNSUPPORTED)
def test_a_field_of_the_table_is_refused_by_name_when_it_is_set(path: str) -> None:
    spec = replace(PER_NODE if path == "mode" else FULL, executor=UNSUPPORTED[path][0])
    pattern = re.escape(f"spec.{path}").replace(re.escape("[]"), r"\[\d+\]")
    found = [line for line in refused(spec) if re.fullmatch(f"{pattern}: is not supported by .*", line)]
    assert found


def test_each_line_of_the_tables_names_a_field_there_is() -> None:
    known = written_defaults()
    assert all(path.split("[]")[0] in known for path in UNSUPPORTED)


def test_what_is_not_in_the_table_is_not_refused() -> None:
    assert refused(PLAIN) == refused(COUNTED) == []
    named = {re.sub(r"\[\d+\]", "[]", line.split(":")[0].removeprefix("spec.")) for line in refused(FULL)}
    assert named <= set(UNSUPPORTED)
    honoured = set(diff_fields(WorkloadSpec(), FULL)) - {path.split("[]")[0] for path in UNSUPPORTED}
    assert honoured >= {"replicas", "rollout.maxSurge", "rollout.minAvailable", "stopGrace", "env"}


def test_an_executor_may_honour_what_another_does_not() -> None:
    table = {"livenessProbe": (ExecutorKind.PROCESS,)}
    spec = replace(PLAIN, liveness_probe=Probe(kind=ProbeKind.EXEC, command=("a",)))
    assert refused(spec, table) == ["spec.livenessProbe: is not supported by the process executor"]
    assert refused(replace(spec, executor=ExecutorKind.DOCKER, image="i"), table) == []


def test_items_of_a_list_are_told_apart() -> None:
    process = replace(FULL, executor=ExecutorKind.PROCESS)
    assert "spec.ports[0].containerPort: is not supported by the process executor" in refused(process)
    assert "spec.ports[1].protocol: is not supported by the process executor" in refused(process)
    assert not [line for line in refused(process) if line.startswith("spec.ports[0].protocol")]
    assert not [line for line in refused(FULL) if line.startswith("spec.ports")]
    assert refused(replace(PLAIN, mode=WorkloadMode.REPLICATED)) == []
