"""The objects a load writes: workloads without replicas, so that nothing runs; an annotation holds the value."""

from __future__ import annotations

import json

from cloudless.core.model import WorkloadRecord
from cloudless.rpc.v1.objects_pb2 import WorkloadRecord as WorkloadMessage

VALUE = "load-value"


def manifest_of(namespace: str, name: str, value: str) -> str:
    """Return the manifest of a workload that carries `value`."""
    metadata = {"name": name, "namespace": namespace, "annotations": {VALUE: value}}
    spec = {"executor": "process", "command": ["true"], "replicas": 0}
    return json.dumps({"apiVersion": "cloudless/v1", "kind": "Workload", "metadata": metadata, "spec": spec})


def value_of(record: WorkloadRecord | WorkloadMessage) -> str | None:
    """Return the value a workload carries; one that is being deleted is gone as far as its users are concerned."""
    return None if record.deleted_at_ms else record.annotations.get(VALUE, "no value")
