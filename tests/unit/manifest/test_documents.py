"""Manifests are read strictly: every fault is found, named and located; nothing is silently ignored."""

from __future__ import annotations

from typing import Any

import pytest

from cloudless.core.manifest import DOCUMENTS_MAX, parse_manifest, parse_manifests
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
    WorkloadSpec,
)
from cloudless.core.quantity import parse_cpu_millicores, parse_duration_s, parse_memory_mb
from cloudless.errors import InvalidSpec


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cloudless.io/v1",
        "kind": "Workload",
        "metadata": {"name": "web"},
        "spec": {"command": ["sleep", "60"], **spec},
    }


def problems_of(document: object) -> list[str]:
    with pytest.raises(InvalidSpec) as caught:
        parse_manifest(document)
    return [str(problem) for problem in caught.value.problems]


def test_a_minimal_manifest_gets_the_defaults_of_the_model() -> None:
    parsed = parse_manifest(manifest())
    assert (parsed.namespace, parsed.name) == ("default", "web")
    assert parsed.spec == WorkloadSpec(command=("sleep", "60"))


def test_every_field_is_read() -> None:
    parsed = parse_manifest(
        {
            "apiVersion": "cloudless/v1",
            "kind": "Workload",
            "metadata": {"name": "a.b-1", "namespace": "ns", "labels": {"app": "x"}, "annotations": {"n/o": "te xt"}},
            "spec": {
                "executor": "Docker",
                "image": "nginx:1",
                "command": ["run"],
                "args": ["-p", "1"],
                "env": {"A": 1, "B": True, "C": 0.5, "D": "x"},
                "ports": [{"name": "http", "hostPort": 80}, {"name": "admin"}],
                "resources": {"requests": {"cpu": "250m", "memory": "1Gi", "storage": "2Gi", "bandwidth": 5, "gpu": 1}},
                "replicas": 3,
                "placement": {
                    "regions": ["eu"],
                    "zones": ["a", "b"],
                    "nodeSelector": {"disk": "ssd"},
                    "spreadTopology": "ZONE",
                },
                "restartPolicy": {"policy": "on_failure", "maxRetries": 2, "backoff": "500ms"},
                "rollout": {"strategy": "recreate", "maxSurge": 0, "maxUnavailable": 0},
                "stopGrace": "1m30s",
                "lostAfter": 5,
            },
        }
    )
    assert parsed.labels == {"app": "x"}
    assert parsed.annotations == {"n/o": "te xt"}
    assert parsed.spec == WorkloadSpec(
        executor=ExecutorKind.DOCKER,
        image="nginx:1",
        command=("run",),
        args=("-p", "1"),
        env={"A": "1", "B": "true", "C": "0.5", "D": "x"},
        ports=(Port(name="http", host_port=80), Port(name="admin")),
        requests=Resources(250, 1024, 2048, 5, 1),
        replicas=3,
        placement=Placement(
            regions=("eu",), zones=("a", "b"), node_selector={"disk": "ssd"}, spread_topology=SpreadTopology.ZONE
        ),
        restart_policy=RestartPolicy(condition=RestartCondition.ON_FAILURE, max_retries=2, backoff_s=0.5),
        rollout=Rollout(strategy=RolloutStrategy.RECREATE, max_surge=0, max_unavailable=0),
        stop_grace_s=90.0,
        lost_after_s=5.0,
    )


def test_snake_case_says_the_same_as_camel_case() -> None:
    camel = manifest(
        restartPolicy={"maxRetries": 1},
        lostAfter="2s",
        stopGrace=1,
        ports=[{"name": "a", "hostPort": 1}],
        rollout={"maxSurge": 2, "maxUnavailable": 1},
        placement={"nodeSelector": {"a": "b"}, "spreadTopology": "node"},
    )
    snake = manifest(
        restart_policy={"max_retries": 1},
        lost_after="2s",
        stop_grace=1,
        ports=[{"name": "a", "host_port": 1}],
        rollout={"max_surge": 2, "max_unavailable": 1},
        placement={"node_selector": {"a": "b"}, "spread_topology": "node"},
    )
    snake["api_version"] = snake.pop("apiVersion")
    assert parse_manifest(camel) == parse_manifest(snake)


def test_an_image_alone_means_docker_and_a_bare_string_is_a_restart_policy() -> None:
    spec = parse_manifest(manifest(image="nginx", restartPolicy="never")).spec
    assert spec.executor is ExecutorKind.DOCKER
    assert spec.restart_policy == RestartPolicy(condition=RestartCondition.NEVER)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"replicas": "3"}, 'spec.replicas: must be a whole number, not "3"; write 3 without quotes'),
        ({"replicas": True}, "spec.replicas: must be a whole number, not true"),
        ({"replicas": 2.0}, "spec.replicas: must be a whole number, not 2.0"),
        ({"replicas": -1}, "spec.replicas: must be 0 to 10000, not -1"),
        ({"replicas": 10**5000}, "spec.replicas: must be 0 to 10000, not a number of more than 18 digits"),
        ({"repplicas": 3}, 'spec: unknown field "repplicas"; did you mean replicas?'),
        ({"restart_polcy": "x"}, 'spec: unknown field "restart_polcy"; did you mean restartPolicy?'),
        ({"stopGrace": 1, "stop_grace": 1}, "spec.stopGrace: given twice, as stopGrace and as stop_grace"),
        ({"startupProbe": {}}, "spec.startupProbe: is not supported by this version"),
        (
            {"rollout": {"maxSurge": 0, "maxUnavailable": 0}},
            "spec.rollout: maxSurge and maxUnavailable must not both be 0: nothing could be replaced",
        ),
        ({"env": {"A": float("nan")}}, "spec.env.A: must be a finite number, or text in quotes"),
        ({"env": {"A": None}}, "spec.env.A: must be text, not null"),
        ({"env": {"A": "x\0y"}}, "spec.env.A: must not contain a NUL character"),
        ({"env": {"A": "\ud800"}}, "spec.env.A: must be valid Unicode, without half a surrogate pair"),
        ({"ports": [{"name": "a"}, {"name": "a"}]}, 'spec.ports[1].name: "a" is the name of another port'),
        (
            {"ports": [{"name": "a", "hostPort": 1}, {"name": "b", "hostPort": 1}]},
            "spec.ports[1].hostPort: 1 is taken by another port",
        ),
        ({"ports": [{"name": "a", "hostPort": 65536}]}, "spec.ports[0].hostPort: must be 0 to 65535, not 65536"),
        ({"placement": {"zones": ["a", 1]}}, "spec.placement.zones[1]: must be text, not 1; write it in quotes"),
        ({"command": "sleep 60"}, 'spec.command: must be a list, not "sleep 60"'),
        ({"command": []}, "spec.command: is required by the process executor: the program and its arguments"),
        ({"executor": "docker"}, "spec.image: is required by the docker executor"),
        ({"executor": "process", "image": "x"}, "spec.image: is for the docker executor only"),
        ({"executor": "vm"}, 'spec.executor: must be one of process, docker, not "vm"'),
        ({"lostAfter": float("inf")}, "spec.lostAfter: must be a finite number, not inf"),
        (
            {"lostAfter": 10**400},
            "spec.lostAfter: must be at most 1000000000000 seconds, not a number of more than 18 digits",
        ),
        ({"lostAfter": -1}, "spec.lostAfter: must not be negative, not -1"),
        ({"resources": {"requests": {"cpu": True}}}, None),
        ({"resources": {"requests": {"memory": 1.5}}}, None),
        ({"resources": {"requests": {"gpu": 65}}}, "spec.resources.requests.gpu: must be 0 to 64, not 65"),
    ],
)
def test_a_fault_is_named_with_its_place_and_cure(spec: dict[str, Any], problem: str | None) -> None:
    found = problems_of(manifest(**spec))
    if problem is None:
        assert len(found) == 1
    else:
        assert problem in found


def test_all_problems_are_reported_at_once() -> None:
    found = problems_of(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A_b"}, "spec": {"replicas": "x"}, "z": 1}
    )
    paths = [line.split(":")[0] for line in found]
    assert paths[:5] == ["apiVersion", "kind", "metadata.name", "spec.replicas", "spec.command"]
    assert found[5] == 'unknown field "z"'


def test_the_number_of_problems_is_bounded() -> None:
    found = problems_of({"apiVersion": "cloudless/v1", **{f"field{n}": n for n in range(500)}})
    assert len(found) <= 52
    assert "more problems" in found[-1]


def test_a_template_too_large_to_store_per_task_is_refused() -> None:
    found = problems_of(manifest(args=["x" * 16_000] * 5))
    assert any("at most 65536 fit" in line for line in found)


def test_every_document_counts_and_empty_ones_are_skipped() -> None:
    other = manifest()
    other["metadata"] = {"name": "db"}
    assert [m.name for m in parse_manifests([manifest(), None, other])] == ["web", "db"]


def test_problems_name_their_document() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_manifests([manifest(), manifest(replicas="x")])
    assert [str(problem) for problem in caught.value.problems] == [
        'document 2: spec.replicas: must be a whole number, not "x"',
        "document 2: metadata.name: default/web is already in document 1",
    ]


@pytest.mark.parametrize("documents", [[], [None], [None, None], [manifest()] * (DOCUMENTS_MAX + 1)])
def test_no_document_and_too_many_are_refused(documents: list[object]) -> None:
    with pytest.raises(InvalidSpec):
        parse_manifests(documents)


@pytest.mark.parametrize(
    ("value", "millicores"), [("500m", 500), (1, 1000), (0.5, 500), ("0.5", 500), (0.1, 100), ("1.5m", 2), (0, 0)]
)
def test_cpu_is_millicores_rounded_up(value: object, millicores: int) -> None:
    assert parse_cpu_millicores(value) == millicores


@pytest.mark.parametrize(
    ("value", "mb"),
    [("128Mi", 128), ("1Gi", 1024), ("512M", 489), (64, 64), ("1.5Gi", 1536), ("1Ki", 1), ("512 MB", 489)],
)
def test_memory_is_mebibytes_rounded_up(value: object, mb: int) -> None:
    assert parse_memory_mb(value) == mb


@pytest.mark.parametrize(
    ("value", "seconds"), [("1s", 1.0), ("500ms", 0.5), ("1m30s", 90.0), (2, 2.0), (0.5, 0.5), ("1d", 86400.0)]
)
def test_durations_are_seconds(value: object, seconds: float) -> None:
    assert parse_duration_s(value) == seconds


@pytest.mark.parametrize("value", ["", "1", "s", "1 s", "-1s", "1s1", None, [], True, "9" * 100 + "s"])
def test_other_durations_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_duration_s(value)
