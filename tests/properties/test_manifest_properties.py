"""Whatever is put into the manifest parser, the only error is InvalidSpec; what it accepts survives a round trip."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core.keys import NAME_PATTERN
from cloudless.core.manifest import parse_manifest, parse_manifests, to_manifest
from cloudless.core.model import (
    ExecutorKind,
    Placement,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    Rollout,
    RolloutStrategy,
    SpreadTopology,
    WorkloadRecord,
    WorkloadSpec,
)
from cloudless.errors import InvalidSpec

NAMES = [
    "apiVersion", "kind", "metadata", "spec", "name", "namespace", "labels", "annotations", "executor", "image",
    "command", "args", "env", "ports", "hostPort", "host_port", "resources", "requests", "limits", "cpu", "memory",
    "storage", "bandwidth", "gpu", "replicas", "placement", "regions", "zones", "nodeSelector", "spreadTopology",
    "restartPolicy", "restart_policy", "policy", "maxRetries", "backoff", "rollout", "strategy", "maxSurge",
    "max_surge", "maxUnavailable", "stopGrace", "lostAfter", "volumes", "affinity",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(10**400), 0, 1])
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["500m", "1Gi", "1s", "docker", "zone", "never", "x" * 100_000, "\ud800", "a\0b", "cloudless/v1"])
)
KEYS = st.sampled_from(NAMES) | st.text(max_size=10) | st.integers() | st.none() | st.booleans()
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=40
)


@st.composite
def near_manifests(draw: st.DrawFn) -> dict[Any, Any]:
    """Documents of the right outline with anything in the fields."""
    fields = st.dictionaries(st.sampled_from(NAMES), DATA, max_size=12)
    return {
        "apiVersion": draw(st.sampled_from(["cloudless/v1", "cloudless.io/v1", 1])),
        "kind": "Workload",
        "metadata": draw(st.just({"name": "web"}) | fields),
        "spec": {"command": ["a"], **draw(fields)},
    }


def only_invalid_spec(documents: list[Any]) -> None:
    refusal: InvalidSpec | None = None
    try:
        parse_manifests(documents)
    except InvalidSpec as error:
        refusal = error
    if refusal is not None:
        assert refusal.problems
        assert len(str(refusal)) < 100_000
        assert str(refusal).isprintable()


@settings(max_examples=200, deadline=1000)
@given(st.lists(DATA, max_size=4))
def test_any_data_gives_manifests_or_invalid_spec(documents: list[Any]) -> None:
    only_invalid_spec(documents)


@settings(max_examples=200, deadline=1000)
@given(near_manifests())
def test_any_fields_give_a_manifest_or_invalid_spec(document: dict[Any, Any]) -> None:
    only_invalid_spec([document])


def test_cyclic_and_huge_documents_are_refused_quickly() -> None:
    cyclic: dict[Any, Any] = {"apiVersion": "cloudless/v1", "kind": "Workload"}
    cyclic["metadata"] = cyclic["spec"] = cyclic
    only_invalid_spec([cyclic])
    bomb: Any = "lol"
    for _ in range(40):
        bomb = [bomb] * 10
    only_invalid_spec([{"spec": {"command": bomb, "env": bomb}}, bomb])
    only_invalid_spec([{"x" * 10_000_000: 1, **{"y" * 1000 + str(n): n for n in range(20_000)}}])


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9._/-]{0,8}[a-z0-9])?", fullmatch=True)
NAME = st.from_regex(NAME_PATTERN, fullmatch=True)
SECONDS = st.floats(0.01, 3600, allow_subnormal=False) | st.integers(1, 3600).map(float)


@st.composite
def specs(draw: st.DrawFn) -> WorkloadSpec:
    executor = draw(st.sampled_from(ExecutorKind))
    names = draw(st.lists(st.from_regex(r"[a-z]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True), max_size=4, unique=True))
    numbers = draw(st.lists(st.integers(1, 65535), min_size=len(names), max_size=len(names), unique=True))
    strategy = draw(st.sampled_from(RolloutStrategy))
    return WorkloadSpec(
        executor=executor,
        image="example/image:1" if executor is ExecutorKind.DOCKER else "",
        command=("program", *draw(st.lists(TEXT, max_size=3))),
        args=tuple(draw(st.lists(TEXT, max_size=3))),
        env=draw(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), TEXT, max_size=3)),
        ports=tuple(
            Port(name=n, host_port=p if draw(st.booleans()) else 0) for n, p in zip(names, numbers, strict=True)
        ),
        requests=Resources(*(draw(st.integers(0, most)) for most in (1_024_000, 2**26, 2**30, 10**6, 64))),
        replicas=draw(st.integers(0, 10_000)),
        placement=Placement(
            regions=tuple(draw(st.lists(TEXT, max_size=2))),
            zones=tuple(draw(st.lists(TEXT, max_size=2))),
            node_selector=draw(st.dictionaries(LABEL, TEXT, max_size=2)),
            spread_topology=draw(st.sampled_from(SpreadTopology)),
        ),
        restart_policy=RestartPolicy(
            condition=draw(st.sampled_from(RestartCondition)),
            max_retries=draw(st.integers(0, 1000)),
            backoff_s=draw(SECONDS),
        ),
        rollout=Rollout(strategy=strategy, max_surge=draw(st.integers(1, 5)), max_unavailable=draw(st.integers(0, 5))),
        stop_grace_s=draw(SECONDS),
        lost_after_s=draw(SECONDS),
    )


@settings(max_examples=150, deadline=None)
@given(specs(), NAME, NAME, st.dictionaries(LABEL, TEXT, max_size=3))
def test_a_record_written_as_manifest_reads_back_the_same(
    spec: WorkloadSpec, namespace: str, name: str, labels: dict[str, str]
) -> None:
    record = WorkloadRecord(namespace=namespace, name=name, uid="u", spec=spec, labels=labels)
    document = to_manifest(record)
    for decoded in (document, json.loads(json.dumps(document)), yaml.safe_load(yaml.safe_dump(document))):
        parsed = parse_manifest(decoded)
        assert (parsed.namespace, parsed.name, parsed.labels, parsed.spec) == (namespace, name, labels, spec)
