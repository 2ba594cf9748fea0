"""A specification written as a manifest says everything, and reads back the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from cloudless.core.fields import to_snake
from cloudless.core.manifest import diff_fields, parse_manifest, same_task_template, to_manifest
from cloudless.core.manifest.text import write_spec
from cloudless.core.model import Probe, ProbeKind, TaskSpec, WorkloadMode, WorkloadRecord, WorkloadSpec
from tests.unit.manifest.samples import FULL, PLAIN, SAMPLES, read

OTHER = replace(
    FULL,
    mode=WorkloadMode.PER_NODE,
    rollout=replace(FULL.rollout, max_surge=9, max_unavailable=9, max_unavailable_percent=9, min_available=9),
)
"""As no manifest says it, but every single field differs from the default."""


def names_of(value_class: type[Any]) -> set[str]:
    """Return the names of a value's fields, without what is kept of later versions."""
    return {field.name for field in fields(value_class)} - {"unknown_fields"}


TEMPLATE = names_of(TaskSpec)


def changes(before: Any, after: Any) -> Iterator[tuple[str, Any]]:
    """Yield `before` with each one field taken from `after`, at any depth, with the field's path."""
    for name in sorted(names_of(type(before))):
        mine, other = getattr(before, name), getattr(after, name)
        if is_dataclass(mine) and is_dataclass(other):
            for path, inner in changes(mine, other):
                yield f"{name}.{path}", replace(before, **{name: inner})
        else:
            yield name, replace(before, **{name: other})


CHANGES = dict(changes(PLAIN, OTHER))


@pytest.mark.parametrize("path", CHANGES)
def test_each_field_of_the_model_is_written_and_compared(path: str) -> None:
    assert CHANGES[path] != PLAIN, f"the sample does not change {path}"
    assert diff_fields(PLAIN, CHANGES[path])


def test_each_field_of_a_probe_is_written() -> None:
    probe = Probe(kind=ProbeKind.HTTP, port="p", path="/")
    other = Probe(
        kind=ProbeKind.TCP,
        port="q",
        path="/x",
        initial_delay_s=7,
        period_s=7,
        timeout_s=7,
        success_threshold=7,
        failure_threshold=7,
    )
    before = replace(PLAIN, readiness_probe=probe)
    for path, changed in changes(probe, other):
        if path != "command":
            assert diff_fields(before, replace(before, readiness_probe=changed)) == ("readinessProbe",), path


@pytest.mark.parametrize("spec", SAMPLES)
def test_what_is_written_reads_back_the_same(spec: WorkloadSpec) -> None:
    assert read(write_spec(spec)) == (spec, [])


@pytest.mark.parametrize("spec", SAMPLES)
def test_snake_case_says_the_same_as_camel_case(spec: WorkloadSpec) -> None:
    def in_snake_case(value: Any) -> Any:
        if isinstance(value, list):
            return [in_snake_case(item) for item in value]
        if isinstance(value, dict):
            return {to_snake(key): in_snake_case(item) for key, item in value.items()}
        return value

    written = {**write_spec(spec), "env": {}}
    assert in_snake_case(written) != written
    assert read(in_snake_case(written)) == (replace(spec, env={}), [])


def test_what_is_not_set_is_not_shown_beyond_the_usual_fields() -> None:
    assert sorted(write_spec(PLAIN)) == sorted(
        "executor command args env ports resources replicas placement restartPolicy rollout stopGrace lostAfter".split()
    )
    assert sorted(write_spec(PLAIN)["placement"]) == ["nodeSelector", "regions", "spreadTopology", "zones"]
    assert sorted(write_spec(PLAIN)["rollout"]) == ["maxSurge", "maxUnavailable", "strategy"]


def test_a_record_keeps_its_names_and_labels() -> None:
    record = WorkloadRecord(namespace="ns", name="n", uid="u", spec=PLAIN, labels={"a": "b"}, annotations={"c": "d"})
    parsed = parse_manifest(to_manifest(record))
    assert parsed.spec == PLAIN
    assert (parsed.namespace, parsed.name, parsed.labels, parsed.annotations) == ("ns", "n", {"a": "b"}, {"c": "d"})


# --- the template -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(names_of(WorkloadSpec) - TEMPLATE))
def test_changing_how_many_and_where_keeps_the_tasks(name: str) -> None:
    assert same_task_template(PLAIN, replace(PLAIN, **{name: getattr(OTHER, name)}))


@pytest.mark.parametrize("name", sorted(TEMPLATE))
def test_changing_what_runs_replaces_the_tasks(name: str) -> None:
    assert not same_task_template(PLAIN, replace(PLAIN, **{name: getattr(OTHER, name)}))


def test_what_a_task_cannot_know_is_left_out_of_its_template() -> None:
    left = names_of(WorkloadSpec) - TEMPLATE
    assert left == {"mode", "replicas", "priority", "placement", "rollout", "lost_after_s", "reconcile"}
    assert names_of(WorkloadSpec) > TEMPLATE
