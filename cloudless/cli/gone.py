"""Wait until a workload that is being deleted is gone, with all its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudless.cli.client import Client


def wait_gone(client: Client, namespace: str, name: str, timeout_s: float) -> None:
    """Return when there is no such workload. Raises StoreTimeout, which says how many tasks are left."""
    from cloudless.cli.methods import GET_WORKLOAD
    from cloudless.cli.waiting import wait_for
    from cloudless.errors import NotFound
    from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest

    def look() -> tuple[bool, None, str]:
        try:
            found = client.call(GET_WORKLOAD, GetWorkloadRequest(namespace=namespace, name=name)).workload
        except NotFound:
            return True, None, ""
        return (
            False,
            None,
            f"{namespace}/{name} is being deleted, {found.summary.active or found.summary.running} task(s) left",
        )

    wait_for(look, timeout_s, f"gone: {namespace}/{name}")
