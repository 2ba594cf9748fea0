"""Read the documents of a manifest: what each is, whom it names, and the workload it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloudless.core.fields import Fields, Problems, describe, quote
from cloudless.core.manifest.names import read_labels, read_name
from cloudless.core.manifest.spec import read_spec
from cloudless.core.manifest.unsupported import refuse_unsupported
from cloudless.core.model import WorkloadSpec
from cloudless.errors import InvalidSpec, Problem

API_VERSIONS = ("cloudless.io/v1", "cloudless/v1")
DEFAULT_NAMESPACE = "default"
DOCUMENTS_MAX = 200


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
    name = read_name(metadata, "name", "")
    namespace = read_name(metadata, "namespace", DEFAULT_NAMESPACE)
    labels = read_labels(metadata, "labels", count_max=64)
    annotations = read_labels(metadata, "annotations", count_max=64, length_max=4096)
    metadata.finish()
    if not top.has("spec"):
        problems.add("spec", "is missing")
    spec = read_spec(top.child("spec"))
    refuse_unsupported(spec, problems)
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
