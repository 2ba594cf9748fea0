"""What a request says that its permission depends on: for whom it speaks, and which namespaces it touches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloudless.adapters.yaml_documents import load_documents
from cloudless.core.identity.access import NO_FACTS, RequestFacts
from cloudless.errors import UserError
from cloudless.rpc.v1 import cluster_pb2, workload_pb2

DEFAULT_NAMESPACE = "default"


def find_facts(request: Any) -> RequestFacts:
    """Return the facts of one request; those without any concern nobody in particular."""
    find = _FINDERS.get(request.DESCRIPTOR.full_name)
    return find(request) if find else NO_FACTS


def _of_coordinator(request: Any) -> RequestFacts:
    return RequestFacts(speaks_for=(request.coordinator_id,))


def _of_object(request: Any) -> RequestFacts:
    return RequestFacts(namespaces=(request.namespace or DEFAULT_NAMESPACE,))


def _of_list(request: Any) -> RequestFacts:
    return RequestFacts(namespaces=(request.namespace,) if request.namespace else None)


def _of_manifest(request: workload_pb2.ApplyWorkloadRequest) -> RequestFacts:
    """Return the namespaces of all documents; a manifest that cannot be read is refused by its own service."""
    try:
        documents = load_documents(request.manifest)
    except UserError:
        return NO_FACTS
    return RequestFacts(namespaces=tuple(_namespace_of(document) for document in documents))


def _namespace_of(document: Any) -> str:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return str(namespace) if namespace else DEFAULT_NAMESPACE


_FINDERS: dict[str, Callable[[Any], RequestFacts]] = {
    message.DESCRIPTOR.full_name: find
    for message, find in (
        (cluster_pb2.JoinRaftClusterRequest, lambda request: RequestFacts(speaks_for=(request.node_id,))),
        (cluster_pb2.RemoveMemberRequest, _of_coordinator),
        (cluster_pb2.UpdateMemberRequest, _of_coordinator),
        (workload_pb2.ApplyWorkloadRequest, _of_manifest),
        (workload_pb2.GetWorkloadRequest, _of_object),
        (workload_pb2.ScaleWorkloadRequest, _of_object),
        (workload_pb2.DeleteWorkloadRequest, _of_object),
        (workload_pb2.ExplainWorkloadRequest, _of_object),
        (workload_pb2.ListWorkloadsRequest, _of_list),
        (workload_pb2.ListTasksRequest, _of_list),
        (workload_pb2.ReadLogsRequest, _of_list),
        (workload_pb2.GetTaskRequest, lambda request: RequestFacts(namespaces=None)),  # an id tells of no namespace
    )
}
