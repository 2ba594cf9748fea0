"""What an executor is given to start: the task as assigned, with what this node adds to it."""

from __future__ import annotations

from collections.abc import Mapping

from cloudless.core.model import TaskDesired
from cloudless.ports import StartRequest
from cloudless.settings import AgentSettings


def build_request(
    desired: TaskDesired, attempt: int, ports: Mapping[str, int], settings: AgentSettings
) -> StartRequest:
    """Return the request for one attempt, with the ports that were chosen for it."""
    return StartRequest(
        task_id=desired.id,
        attempt=attempt,
        spec=desired.spec,
        env={
            "CLOUDLESS_WORKLOAD": desired.workload,
            "CLOUDLESS_NAMESPACE": desired.namespace,
            "CLOUDLESS_SLOT": str(desired.slot),
            "CLOUDLESS_NODE_ID": settings.node_id,
            "CLOUDLESS_ZONE": settings.zone,
        },
        ports=dict(ports),
        labels={
            "namespace": desired.namespace,
            "workload": desired.workload,
            "slot": str(desired.slot),
            "node_id": settings.node_id,
        },
    )
