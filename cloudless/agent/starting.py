"""What an executor is given to start: the task as assigned, with what this node adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

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


def own_ip(settings: AgentSettings) -> str:
    """Return the IP address at which tasks of this node are asked: the one that others are told.

    A server that listens on the loopback only is thereby not found to be ready for others. Where others are told a
    name, which may be hard to look up here, it is the loopback.
    """
    host = settings.advertise_address.rpartition(":")[0].strip("[]")
    try:
        found = ip_address(host)
    except ValueError:
        return "127.0.0.1"
    return "127.0.0.1" if found.is_unspecified else host
