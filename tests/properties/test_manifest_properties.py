"""Whatever is put into the manifest parser, the only error is InvalidSpec; what it accepts survives a round trip."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core.fields import Fields, Problems
from cloudless.core.keys import NAME_PATTERN
from cloudless.core.manifest import parse_manifest, parse_manifests, to_manifest
from cloudless.core.manifest.spec import read_spec
from cloudless.core.manifest.text import write_spec
from cloudless.core.manifest.unsupported import refuse_unsupported
from cloudless.core.model import (
    CAPABILITIES,
    RLIMIT_NAMES,
    RLIMIT_UNLIMITED,
    ExecutorKind,
    ImagePullPolicy,
    Limits,
    NodeOperator,
    NodeTerm,
    Placement,
    Port,
    PortProtocol,
    Probe,
    ProbeKind,
    Reconcile,
    Resources,
    RestartCondition,
    RestartPolicy,
    Rlimit,
    Rollout,
    RolloutStrategy,
    SecurityContext,
    SpreadTopology,
    TaintEffect,
    Toleration,
    TolerationOperator,
    Topology,
    Volume,
    WorkloadMode,
    WorkloadRecord,
    WorkloadSpec,
    WorkloadTerm,
)
from cloudless.errors import InvalidSpec

T = TypeVar("T")
NAMES = [
    "apiVersion", "kind", "metadata", "spec", "name", "namespace", "labels", "annotations", "executor", "image",
    "command", "args", "env", "ports", "hostPort", "host_port", "resources", "requests", "limits", "cpu", "memory",
    "storage", "bandwidth", "gpu", "replicas", "placement", "regions", "zones", "nodeSelector", "spreadTopology",
    "restartPolicy", "restart_policy", "policy", "maxRetries", "backoff", "rollout", "strategy", "maxSurge",
    "max_surge", "maxUnavailable", "stopGrace", "lostAfter", "volumes", "affinity", "antiAffinity", "nodes",
    "workloads", "required", "preferred", "key", "operator", "values", "weight", "workload", "topology", "tolerations",
    "effect",
    "livenessProbe", "readiness_probe", "http", "httpGet", "tcp", "exec", "port", "path", "period", "mountPath",
    "size", "securityContext", "runAsUser", "capabilities", "add", "rlimits", "nofile", "soft", "hard", "minAvailable",
    "canary", "mode", "priority", "containerPort", "protocol", "imagePullPolicy",
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


PART_NAME = st.from_regex(r"[a-z]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
PATH = st.from_regex(r"(/[a-z][a-z.]{0,4}){1,3}", fullmatch=True)
WAIT = st.just(0.0) | SECONDS
COUNT = st.integers(0, 10_000)
ID = st.none() | st.integers(0, 2**31 - 1)


def some(strategy: st.SearchStrategy[T], least: int = 0) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


def unique(strategy: st.SearchStrategy[str], most: int = 3) -> st.SearchStrategy[list[str]]:
    return st.lists(strategy, max_size=most, unique=True)


@st.composite
def port_lists(draw: st.DrawFn, executor: ExecutorKind) -> tuple[Port, ...]:
    names = draw(unique(PART_NAME, most=4))
    numbers = draw(st.lists(st.integers(1, 65535), min_size=len(names), max_size=len(names), unique=True))
    return tuple(
        Port(
            name=name,
            host_port=number if draw(st.booleans()) else 0,
            container_port=number if executor is ExecutorKind.DOCKER and draw(st.booleans()) else 0,
            protocol=draw(st.sampled_from(PortProtocol)),
        )
        for name, number in zip(names, numbers, strict=True)
    )


@st.composite
def probes(draw: st.DrawFn, ports: tuple[Port, ...], success_max: int) -> Probe | None:
    tcp = [port.name for port in ports if port.protocol is PortProtocol.TCP]
    kind = draw(st.sampled_from(ProbeKind) if tcp else st.just(ProbeKind.EXEC))
    asked = kind is not ProbeKind.EXEC
    if draw(st.booleans()):
        return None
    return Probe(
        kind=kind,
        command=() if asked else ("check", *draw(some(TEXT))),
        port=draw(st.sampled_from(tcp)) if asked else "",
        path=draw(PATH | st.just("/")) if kind is ProbeKind.HTTP else "",
        initial_delay_s=draw(WAIT),
        period_s=draw(st.floats(0.1, 3600)),
        timeout_s=draw(st.floats(0.05, 3600)),
        success_threshold=draw(st.integers(1, success_max)),
        failure_threshold=draw(st.integers(1, 100)),
    )


@st.composite
def volume_lists(draw: st.DrawFn) -> tuple[Volume, ...]:
    names, mounts = draw(unique(PART_NAME)), draw(unique(PATH))
    volumes = []
    for name, mount_path in zip(names, mounts, strict=False):
        host_path = draw(st.just("") | PATH)
        volumes.append(
            Volume(
                name=name,
                mount_path=mount_path,
                host_path=host_path,
                read_only=bool(host_path) and draw(st.booleans()),
                size_mb=0 if host_path else draw(st.integers(0, 2**30)),
            )
        )
    return tuple(volumes)


@st.composite
def security_contexts(draw: st.DrawFn) -> SecurityContext:
    capabilities = draw(unique(st.sampled_from(CAPABILITIES), most=6))
    cut = draw(st.integers(0, len(capabilities)))
    rlimits = []
    for name in sorted(draw(unique(st.sampled_from(RLIMIT_NAMES)))):
        soft, hard = sorted(draw(st.tuples(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))))
        hard = draw(st.sampled_from([hard, RLIMIT_UNLIMITED]))
        soft = draw(st.sampled_from([soft, RLIMIT_UNLIMITED])) if hard == RLIMIT_UNLIMITED else soft
        rlimits.append(Rlimit(name=name, soft=soft, hard=hard))
    return SecurityContext(
        run_as_user=draw(ID),
        run_as_group=draw(ID),
        read_only_root=draw(st.booleans()),
        add_capabilities=tuple(capabilities[:cut]),
        drop_capabilities=tuple(capabilities[cut:]),
        private_tmp=draw(st.booleans()),
        rlimits=tuple(rlimits),
    )


@st.composite
def tolerations(draw: st.DrawFn) -> Toleration:
    operator = draw(st.sampled_from(TolerationOperator))
    equal = operator is TolerationOperator.EQUAL
    key = draw(LABEL) if equal else draw(st.just("") | LABEL)
    effect = draw(st.none() | st.sampled_from(TaintEffect))
    return Toleration(key=key, operator=operator, value=draw(TEXT) if equal else "", effect=effect)


@st.composite
def node_terms(draw: st.DrawFn, weights: st.SearchStrategy[int]) -> NodeTerm:
    operator = draw(st.sampled_from(NodeOperator))
    compares = operator in (NodeOperator.IN, NodeOperator.NOT_IN)
    values = draw(some(TEXT, least=1)) if compares else ()
    return NodeTerm(key=draw(LABEL), operator=operator, values=values, weight=draw(weights))


@st.composite
def workload_terms(draw: st.DrawFn, weights: st.SearchStrategy[int]) -> WorkloadTerm:
    workload = draw(st.just("") | NAME)
    labels = {} if workload else draw(st.dictionaries(LABEL, TEXT, min_size=1, max_size=2))
    return WorkloadTerm(
        workload=workload, labels=labels, topology=draw(st.sampled_from(Topology)), weight=draw(weights)
    )


def terms(made: Callable[[st.SearchStrategy[int]], st.SearchStrategy[T]]) -> st.SearchStrategy[tuple[T, ...]]:
    """Required terms, then preferred ones."""
    required, preferred = some(made(st.just(0))), some(made(st.integers(1, 100)))
    return st.tuples(required, preferred).map(lambda both: (*both[0], *both[1]))


@st.composite
def placements(draw: st.DrawFn, mode: WorkloadMode) -> Placement:
    spread = st.just(SpreadTopology.NONE) if mode is WorkloadMode.PER_NODE else st.sampled_from(SpreadTopology)
    return Placement(
        regions=draw(some(TEXT)),
        zones=draw(some(TEXT)),
        node_selector=draw(st.dictionaries(LABEL, TEXT, max_size=2)),
        spread_topology=draw(spread),
        tolerations=draw(some(tolerations())),
        node_affinity=draw(terms(node_terms)),
        workload_affinity=draw(terms(workload_terms)),
        workload_anti_affinity=draw(terms(workload_terms)),
    )


@st.composite
def rollouts(draw: st.DrawFn, mode: WorkloadMode) -> Rollout:
    beside = mode is WorkloadMode.PER_NODE  # where a second task would have to stand beside the first
    strategy = draw(st.sampled_from([s for s in RolloutStrategy if not (beside and s is RolloutStrategy.BLUE_GREEN)]))
    canary = strategy is RolloutStrategy.CANARY
    surge_percent, floor = draw(st.integers(0, 100)), draw(st.sampled_from(["unavailable", "available", "neither"]))
    percent = draw(st.integers(0, 100)) if floor != "neither" else 0
    number = 0 if percent else draw(COUNT)
    min_ready_s, deadline_s = sorted((draw(WAIT), draw(WAIT)))
    return Rollout(
        strategy=strategy,
        max_surge=0 if surge_percent else draw(st.integers(1, 10_000)),
        max_surge_percent=surge_percent,
        max_unavailable=number if floor == "unavailable" else 0,
        max_unavailable_percent=percent if floor == "unavailable" else 0,
        min_available=number if floor == "available" and not percent else None,
        min_available_percent=percent if floor == "available" else 0,
        batch_size=draw(COUNT),
        pause_s=draw(WAIT),
        min_ready_s=min_ready_s,
        progress_deadline_s=deadline_s if deadline_s > min_ready_s else 0.0,
        auto_rollback=draw(st.booleans()),
        canary=draw(st.integers(1, 10_000)) if canary else 0,
        auto_promote=draw(st.booleans()) and (canary or strategy is RolloutStrategy.BLUE_GREEN),
    )


@st.composite
def specs(draw: st.DrawFn) -> WorkloadSpec:
    executor, mode = draw(st.sampled_from(ExecutorKind)), draw(st.sampled_from(WorkloadMode))
    docker, ports = executor is ExecutorKind.DOCKER, draw(port_lists(executor))
    requests = Resources(*(draw(st.integers(0, most)) for most in (1_024_000, 2**26, 2**30, 10**6, 64)))
    return WorkloadSpec(
        executor=executor,
        image="example/image:1" if docker else "",
        image_pull_policy=draw(st.sampled_from(ImagePullPolicy)) if docker else ImagePullPolicy.IF_NOT_PRESENT,
        command=("program", *draw(some(TEXT))),
        args=draw(some(TEXT)),
        env=draw(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), TEXT, max_size=3)),
        ports=ports,
        requests=requests,
        limits=Limits(
            cpu_millicores=draw(st.just(0) | st.integers(requests.cpu_millicores, 1_024_000)),
            memory_mb=draw(st.just(0) | st.integers(requests.memory_mb, 2**26)),
            pids=draw(st.integers(0, 4_194_304)),
        ),
        mode=mode,
        replicas=1 if mode is WorkloadMode.PER_NODE else draw(COUNT),
        priority=draw(st.integers(-1_000, 1_000)),
        placement=draw(placements(mode)),
        restart_policy=RestartPolicy(
            condition=draw(st.sampled_from(RestartCondition)),
            max_retries=draw(st.integers(0, 1000)),
            backoff_s=draw(SECONDS),
        ),
        rollout=draw(rollouts(mode)),
        liveness_probe=draw(probes(ports, 1)),
        readiness_probe=draw(probes(ports, 100)),
        volumes=draw(volume_lists()),
        security_context=draw(security_contexts()),
        stop_grace_s=draw(SECONDS),
        lost_after_s=draw(WAIT),
        stop_after_s=draw(WAIT),
        reconcile=draw(st.sampled_from(Reconcile)),
    )


@settings(max_examples=150, deadline=None)
@given(specs())
def test_a_specification_written_as_manifest_reads_back_the_same(spec: WorkloadSpec) -> None:
    """Whether or not this version honours all of it."""
    written = write_spec(spec)
    for decoded in (written, json.loads(json.dumps(written)), yaml.safe_load(yaml.safe_dump(written))):
        problems = Problems()
        assert read_spec(Fields(decoded, "spec", problems)) == spec
        assert problems.found() == ()


@settings(max_examples=100, deadline=None)
@given(specs(), NAME, NAME, st.dictionaries(LABEL, TEXT, max_size=3))
def test_a_record_written_as_manifest_reads_back_the_same_or_is_refused_for_what_is_not_honoured(
    spec: WorkloadSpec, namespace: str, name: str, labels: dict[str, str]
) -> None:
    record = WorkloadRecord(namespace=namespace, name=name, uid="u", spec=spec, labels=labels)
    problems = Problems()
    refuse_unsupported(spec, problems)
    if problems.found():
        with pytest.raises(InvalidSpec) as refused:
            parse_manifest(to_manifest(record))
        assert tuple(refused.value.problems) == problems.found()
    else:
        parsed = parse_manifest(to_manifest(record))
        assert (parsed.namespace, parsed.name, parsed.labels, parsed.spec) == (namespace, name, labels, spec)
