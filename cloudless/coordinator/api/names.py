"""NameService: where a workload's ready endpoints are, now and as they change.

A watch holds what its reader was last told and tells the difference to what is, whenever that may have changed: there
is no queue that could overflow, and nothing to resume. Whoever lost a watch begins a new one, anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from cloudless.coordinator.api.access import Access, deadline_s, not_found
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.naming import Asker, Endpoint, compare_endpoints, find_endpoints
from cloudless.core.state import Applied, View
from cloudless.errors import HistoryGone, InvalidSpec, Problem, Unavailable
from cloudless.rpc.v1 import names_pb2 as pb

SIGN_OF_LIFE_S = 5.0
CATCH_UP_TIMEOUT_S = 5.0
WATCHES_MAX = 1_000
_OF_ALL_NODES = frozenset((Kind.NODE_INFO, Kind.NODE_STATUS))


class Names:
    """NameService."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._watches = 0

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Any) -> pb.ListEndpointsResponse:
        ref = _read_ref(request.namespace, request.workload)
        view = await self._access.settle(request.read, context)
        endpoints = _find(view, ref, request.near_node_id)
        return pb.ListEndpointsResponse(
            header=self._access.header(), endpoints=[_to_message(endpoint) for endpoint in endpoints]
        )

    async def WatchEndpoints(
        self, request: pb.WatchEndpointsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEndpointsResponse]:
        ref = _read_ref(request.namespace, request.workload)
        if request.min_revision < 0:
            raise InvalidSpec([Problem("min_revision", "must not be negative")])
        if self._watches >= WATCHES_MAX:
            raise Unavailable(f"this coordinator serves {WATCHES_MAX} watches of endpoints already", hint="ask another")
        replica = self._access.replica
        await replica.loaded.wait()
        await replica.wait_for(request.min_revision, timeout_s=min(CATCH_UP_TIMEOUT_S, deadline_s(context)))
        news = _News(self._access, ref)
        self._watches += 1
        stop_listening = replica.listen(news.on_applied)
        try:
            async for answer in self._tell(ref, request.near_node_id, news):
                yield answer
        finally:
            self._watches -= 1
            stop_listening()

    async def _tell(
        self, ref: tuple[str, str], near_node_id: str, news: _News
    ) -> AsyncIterator[pb.WatchEndpointsResponse]:
        """Yield all endpoints, then every difference. The workload may come later, and go."""
        held: dict[tuple[str, str], Endpoint] = {}
        told_revision, first = 0, True
        while True:
            view = self._access.view
            if view.revision < told_revision:
                raise HistoryGone("the store was restored", hint="watch again from the beginning")
            told_revision = view.revision
            endpoints = find_endpoints(view, *ref, Asker(near_node_id, near_node_id))
            changes = compare_endpoints(held, endpoints)
            if first or changes or news.quiet:
                yield pb.WatchEndpointsResponse(
                    header=self._access.header(told_revision),
                    complete=first,
                    put=[_to_message(endpoint) for endpoint in changes.put],
                    gone=[pb.EndpointKey(task_id=task_id, port_name=port) for task_id, port in changes.gone],
                    revision=told_revision,
                )
            held, first = changes.fold(held), False
            await news.wait(SIGN_OF_LIFE_S)


class _News:
    """Notices what may have changed a workload's endpoints. `quiet`: nothing has, for the time waited."""

    def __init__(self, access: Access, ref: tuple[str, str]) -> None:
        self._access, self._ref = access, ref
        self._changed = asyncio.Event()
        self.quiet = False

    def on_applied(self, applied: Applied) -> None:
        for transition in applied.transitions:
            if transition.kind in _OF_ALL_NODES or self._concerns(transition.kind, transition.key, transition.before):
                self._changed.set()
                return

    async def wait(self, timeout_s: float) -> None:
        self.quiet = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
                self.quiet = False
        self._changed.clear()

    def _concerns(self, kind: Kind | None, key: str, before: Any) -> bool:
        if kind is Kind.WORKLOAD:
            return key == keys.workload(*self._ref)
        if kind not in (Kind.TASK_DESIRED, Kind.TASK_OBSERVED):
            return False
        parsed = keys.parse(key)
        task = self._access.view.tasks.get(parsed.parts[0]) if parsed else None
        if task is not None:
            return (task.desired.namespace, task.desired.workload) == self._ref
        return (
            kind is Kind.TASK_DESIRED
            and (getattr(before, "namespace", ""), getattr(before, "workload", "")) == self._ref
        )


def _read_ref(namespace: str, workload: str) -> tuple[str, str]:
    if not workload:
        raise InvalidSpec([Problem("workload", "must be given")])
    return namespace or "default", workload


def _find(view: View, ref: tuple[str, str], near_node_id: str) -> tuple[Endpoint, ...]:
    if ref not in view.workloads:
        raise not_found("workload", "/".join(ref))
    return find_endpoints(view, *ref, Asker(near_node_id, near_node_id))


def _to_message(endpoint: Endpoint) -> pb.Endpoint:
    return pb.Endpoint(
        namespace=endpoint.namespace,
        workload=endpoint.workload,
        task_id=endpoint.task_id,
        node_id=endpoint.node_id,
        region=endpoint.region,
        zone=endpoint.zone,
        host=endpoint.host,
        port_name=endpoint.port_name,
        port=endpoint.port,
        protocol=endpoint.protocol.value,
        distance=endpoint.distance.name.lower(),
        order=endpoint.order,
        doubtful=endpoint.doubtful,
    )
