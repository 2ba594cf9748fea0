"""Turn a decoded manifest into a workload's specification, or say everything that is wrong with it.

A manifest names what it wants; what it leaves out gets the defaults of `WorkloadSpec`. Nothing is
ignored: an unknown field is refused with the nearest known name, and a field of the wider platform
that this version does not honour is refused as such. All problems of all documents are reported at
once. Whatever the input, the only error is InvalidSpec.

`to_manifest` writes a record back; parsing that gives the same specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloudless.core.fields import Fields, Problems, describe, quote, read_choice
from cloudless.core.keys import NAME_PATTERN
from cloudless.core.model import (
    ExecutorKind,
    Placement,
    Port,
    Resources,
    RestartPolicy,
    Rollout,
    RolloutStrategy,
    SpreadTopology,
    WorkloadSpec,
)
from cloudless.core.quantity import parse_cpu_millicores, parse_duration_s, parse_memory_mb, parse_storage_mb
from cloudless.core.template import build_task_spec, same_task_template
from cloudless.core.workload_text import diff_fields, to_manifest
from cloudless.errors import InvalidSpec, Problem

__all__ = [
    "API_VERSIONS",
    "DEFAULT_NAMESPACE",
    "DOCUMENTS_MAX",
    "REPLICAS_MAX",
    "WorkloadManifest",
    "build_task_spec",
    "diff_fields",
    "parse_manifest",
    "parse_manifests",
    "same_task_template",
    "to_manifest",
]

API_VERSIONS = ("cloudless.io/v1", "cloudless/v1")
DEFAULT_NAMESPACE = "default"
DOCUMENTS_MAX = 200
REPLICAS_MAX = 10_000
TEMPLATE_BYTES_MAX = 65_536
"""Of command, arguments, environment and image together: it is stored once per task."""
BACKOFF_MIN_S = 0.01
HOUR_S = 3600.0
LOST_AFTER_MAX_S = 30 * 86_400.0

NAME_WORDS = "1 to 63 lower-case letters, digits, '-' or '.', beginning and ending with a letter or digit"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,251}[A-Za-z0-9])?")
_LABEL_WORDS = "1 to 253 letters, digits, '-', '_', '.' or '/', beginning and ending with a letter or digit"
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_ITEMS_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadManifest:
    """One workload as a user wrote it, with the defaults filled in."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: WorkloadSpec = field(default_factory=WorkloadSpec)


def parse_manifest(document: object) -> WorkloadManifest:
    """Return the workload one document describes. Raises InvalidSpec with every problem."""
    problems = Problems()
    manifest = _read_document(document, problems)
    if problems.found():
        raise InvalidSpec(problems.found())
    return manifest


def parse_manifests(documents: Sequence[object]) -> tuple[WorkloadManifest, ...]:
    """Return the workloads of a file's documents, in order; empty documents are skipped. Raises InvalidSpec."""
    if len(documents) > DOCUMENTS_MAX:
        raise InvalidSpec([Problem("", f"has {len(documents)} documents; at most {DOCUMENTS_MAX} are taken at once")])
    numbered = [(number, document) for number, document in enumerate(documents, 1) if document is not None]
    if not numbered:
        raise InvalidSpec([Problem("", "there is no workload in it")])
    problems: list[Problem] = []
    manifests: list[WorkloadManifest] = []
    seen: dict[tuple[str, str], int] = {}
    for number, document in numbered:
        found = Problems()
        manifest = _read_document(document, found)
        first = seen.setdefault((manifest.namespace, manifest.name), number)
        if first != number and manifest.name:
            found.add("metadata.name", f"{manifest.namespace}/{manifest.name} is already in document {first}")
        problems.extend(_numbered(problem, number, len(documents)) for problem in found.found())
        manifests.append(manifest)
    if problems:
        raise InvalidSpec(problems)
    return tuple(manifests)


def _numbered(problem: Problem, number: int, documents: int) -> Problem:
    if documents == 1:
        return problem
    head = f"document {number}"
    return Problem(f"{head}: {problem.field}" if problem.field else head, problem.message)


def _read_document(document: object, problems: Problems) -> WorkloadManifest:
    if not isinstance(document, dict):
        problems.add("", f"must be a mapping with apiVersion, kind, metadata and spec, not {describe(document)}")
        return WorkloadManifest(namespace="", name="")
    top = Fields(document, "", problems)
    _expect(top, "apiVersion", API_VERSIONS)
    _expect(top, "kind", ("Workload",))
    metadata = top.child("metadata")
    name = _read_name(metadata, "name", "")
    namespace = _read_name(metadata, "namespace", DEFAULT_NAMESPACE)
    labels = metadata.text_map("labels", _LABEL_NAME, _LABEL_WORDS, count_max=64, length_max=253, convert=False)
    annotations = metadata.text_map(
        "annotations", _LABEL_NAME, _LABEL_WORDS, count_max=64, length_max=4096, convert=False
    )
    metadata.finish()
    if not top.has("spec"):
        problems.add("spec", "is missing")
    spec = _read_spec(top.child("spec"))
    top.refuse("status")
    top.finish()
    return WorkloadManifest(namespace=namespace, name=name, labels=labels, annotations=annotations, spec=spec)


def _expect(fields: Fields, name: str, allowed: tuple[str, ...]) -> None:
    wanted = " or ".join(allowed)
    value = fields.take(name)
    if value is None:
        fields.problems.add(name, f"is missing; write {allowed[0]}")
    elif value not in allowed:
        fields.problems.add(name, f"must be {wanted}, not {quote(value)}")


def _read_name(fields: Fields, name: str, default: str) -> str:
    path = fields.at(name)
    value = fields.take(name)
    if value is None:
        if not default:
            fields.problems.add(path, "is missing")
        return default
    if not isinstance(value, str):
        fields.problems.add(path, f"must be text, not {describe(value)}; write it in quotes")
    elif not NAME_PATTERN.fullmatch(value):
        fields.problems.add(path, f"must be {NAME_WORDS}, not {quote(value)}")
    else:
        return value
    return ""


def _read_spec(fields: Fields) -> WorkloadSpec:
    base = WorkloadSpec()
    image = fields.text("image", length_max=512)
    executor = fields.choice("executor", ExecutorKind.DOCKER if image else ExecutorKind.PROCESS)
    spec = WorkloadSpec(
        executor=executor,
        image=image,
        command=fields.texts("command", count_max=_ITEMS_MAX, length_max=16_384),
        args=fields.texts("args", count_max=_ITEMS_MAX, length_max=16_384),
        env=fields.text_map(
            "env",
            _ENV_NAME,
            "letters, digits or '_', not beginning with a digit, at most 128 long",
            count_max=_ITEMS_MAX,
            length_max=32_768,
            convert=True,
        ),
        ports=_read_ports(fields),
        requests=_read_resources(fields.child("resources"), base.requests),
        replicas=fields.whole("replicas", base.replicas, least=0, most=REPLICAS_MAX),
        placement=_read_placement(fields.child("placement")),
        restart_policy=_read_restart_policy(fields),
        rollout=_read_rollout(fields.child("rollout")),
        stop_grace_s=_read_duration(fields, "stopGrace", base.stop_grace_s, 0.0, HOUR_S),
        lost_after_s=_read_duration(fields, "lostAfter", base.lost_after_s, 0.0, LOST_AFTER_MAX_S),
    )
    fields.refuse("volumes", "livenessProbe", "readinessProbe", "startupProbe", "securityContext")
    fields.refuse("affinity", "antiAffinity", "tolerations", "reconcile", "stopAfter")
    fields.finish()
    _check_together(spec, fields)
    return spec


def _check_together(spec: WorkloadSpec, fields: Fields) -> None:
    """Check what no field can tell alone."""
    problems = fields.problems
    if spec.executor is ExecutorKind.PROCESS:
        if not spec.command or not spec.command[0]:
            problems.add(fields.at("command"), "is required by the process executor: the program and its arguments")
        if spec.image:
            problems.add(fields.at("image"), "is for the docker executor only")
    elif not spec.image:
        problems.add(fields.at("image"), "is required by the docker executor")
    if any(char.isspace() for char in spec.image):
        problems.add(fields.at("image"), "must not contain spaces")
    texts = (spec.image, *spec.command, *spec.args, *spec.env.keys(), *spec.env.values())
    size = sum(len(text.encode()) for text in texts)
    if size > TEMPLATE_BYTES_MAX:
        problems.add(fields.path, f"image, command, args and env have {size} bytes; at most {TEMPLATE_BYTES_MAX} fit")


def _read_ports(fields: Fields) -> tuple[Port, ...]:
    ports: list[Port] = []
    for path, item in fields.items("ports", count_max=64):
        if not isinstance(item, dict):
            fields.problems.add(path, f"must be a mapping with name and hostPort, not {describe(item)}")
            continue
        port = Fields(item, path, fields.problems)
        name = port.text("name", length_max=256)
        number = port.whole("hostPort", 0, least=0, most=65_535)
        port.refuse("containerPort", "protocol")
        port.finish()
        if not _PORT_NAME.fullmatch(name):
            message = "must be 1 to 32 lower-case letters, digits or '-', beginning and ending with a letter or digit"
            fields.problems.add(port.at("name"), message)
        if any(name == other.name for other in ports):
            fields.problems.add(port.at("name"), f"{quote(name)} is the name of another port")
        if number and any(number == other.host_port for other in ports):
            fields.problems.add(port.at("hostPort"), f"{number} is taken by another port")
        ports.append(Port(name=name, host_port=number))
    return tuple(ports)


def _read_resources(fields: Fields, base: Resources) -> Resources:
    requests = fields.child("requests")
    made = replace(
        base,
        cpu_millicores=requests.parsed("cpu", base.cpu_millicores, parse_cpu_millicores),
        memory_mb=requests.parsed("memory", base.memory_mb, parse_memory_mb),
        storage_mb=requests.parsed("storage", base.storage_mb, parse_storage_mb),
        bandwidth_mbps=requests.whole("bandwidth", base.bandwidth_mbps, least=0, most=1_000_000),
        gpus=requests.whole("gpu", base.gpus, least=0, most=64),
    )
    requests.finish()
    fields.refuse("limits")
    fields.finish()
    return made


def _read_placement(fields: Fields) -> Placement:
    made = Placement(
        regions=fields.texts("regions", count_max=64, length_max=128),
        zones=fields.texts("zones", count_max=64, length_max=128),
        node_selector=fields.text_map(
            "nodeSelector", _LABEL_NAME, _LABEL_WORDS, count_max=32, length_max=253, convert=False
        ),
        spread_topology=fields.choice("spreadTopology", SpreadTopology.NONE),
    )
    fields.refuse("affinity", "antiAffinity", "tolerations")
    fields.finish()
    return made


def _read_restart_policy(fields: Fields) -> RestartPolicy:
    base = RestartPolicy()
    value = fields.take("restartPolicy")
    path = fields.at("restartPolicy")
    if isinstance(value, str):
        return replace(base, condition=read_choice(value, base.condition, path, fields.problems))
    policy = Fields(value, path, fields.problems)
    made = RestartPolicy(
        condition=policy.choice("policy", base.condition),
        max_retries=policy.whole("maxRetries", base.max_retries, least=0, most=1000),
        backoff_s=_read_duration(policy, "backoff", base.backoff_s, BACKOFF_MIN_S, HOUR_S),
    )
    policy.finish()
    return made


def _read_rollout(fields: Fields) -> Rollout:
    base = Rollout()
    made = Rollout(
        strategy=fields.choice("strategy", base.strategy, later=("BLUE_GREEN", "CANARY")),
        max_surge=fields.whole("maxSurge", base.max_surge, least=0, most=REPLICAS_MAX),
        max_unavailable=fields.whole("maxUnavailable", base.max_unavailable, least=0, most=REPLICAS_MAX),
    )
    fields.refuse("minAvailable", "pauseDuration", "batchSize", "autoRollback", "progressDeadline")
    fields.finish()
    if made.strategy is RolloutStrategy.ROLLING_UPDATE and made.max_surge == 0 and made.max_unavailable == 0:
        fields.problems.add(fields.path, "maxSurge and maxUnavailable must not both be 0: nothing could be replaced")
    return made


def _read_duration(fields: Fields, name: str, default: float, least_s: float, most_s: float) -> float:
    def parse(value: object) -> float:
        seconds = parse_duration_s(value)
        if not least_s <= seconds <= most_s:
            raise ValueError(f"must be {least_s:g} to {most_s:g} seconds")
        return seconds

    return fields.parsed(name, default, parse)
