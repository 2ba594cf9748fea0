"""Turn a decoded manifest into a workload's specification and back, or say everything that is wrong with it.

A manifest names what it wants; what it leaves out gets the defaults of `WorkloadSpec`. Nothing is
ignored: an unknown field is refused with the nearest known name, and a field that this version knows
but does not honour is refused as such (`unsupported`). All problems of all documents are reported at
once. Whatever the input, the only error is InvalidSpec.

`document` reads documents, `spec` what a workload is; the other modules a topic each. `text` writes a
record back; parsing that gives the same specification.
"""

from cloudless.core.manifest.document import (
    API_VERSIONS,
    DEFAULT_NAMESPACE,
    DOCUMENTS_MAX,
    WorkloadManifest,
    parse_manifest,
    parse_manifests,
)
from cloudless.core.manifest.spec import REPLICAS_MAX
from cloudless.core.manifest.text import diff_fields, diff_values, to_manifest
from cloudless.core.template import build_task_spec, same_task_template

__all__ = [
    "API_VERSIONS",
    "DEFAULT_NAMESPACE",
    "DOCUMENTS_MAX",
    "REPLICAS_MAX",
    "WorkloadManifest",
    "build_task_spec",
    "diff_fields",
    "diff_values",
    "parse_manifest",
    "parse_manifests",
    "same_task_template",
    "to_manifest",
]
