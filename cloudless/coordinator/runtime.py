"""One coordinator process: in which order it starts, what it answers meanwhile, and how it stops.

Start: lock the data directory, listen, form or join the cluster, load the state, then serve and stand
for election. Stop: leave office, send agents elsewhere, move etcd's leadership away, finish calls, stop
the member. Anything that ends by itself with an error stops the whole coordinator with that error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from loguru import logger

from cloudless.adapters.grpc.server import GrpcServer
from cloudless.adapters.http.server import HttpServer
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.supervisor import Phase
from cloudless.adapters.member.wal_end import find_log_end
from cloudless.coordinator.body import Body
from cloudless.coordinator.formation import Formation
from cloudless.coordinator.health import build_routes, sample_metrics
from cloudless.core.membership.founding import Standing
from cloudless.errors import CloudlessError, StoreTimeout, Unavailable
from cloudless.observability.metrics import CoordinatorMetrics
from cloudless.rpc.v1 import agent_pb2, backup_pb2, cluster_pb2, event_pb2, node_pb2, peer_pb2, workload_pb2
from cloudless.settings import CoordinatorSettings
from etcd.find import Found

SERVICES = {
    "cluster": cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"],
    "nodes": node_pb2.DESCRIPTOR.services_by_name["NodeService"],
    "workloads": workload_pb2.DESCRIPTOR.services_by_name["WorkloadService"],
    "tasks": workload_pb2.DESCRIPTOR.services_by_name["TaskService"],
    "events": event_pb2.DESCRIPTOR.services_by_name["EventService"],
    "sessions": agent_pb2.DESCRIPTOR.services_by_name["AgentService"],
    "backups": backup_pb2.DESCRIPTOR.services_by_name["BackupService"],
    "peers": peer_pb2.DESCRIPTOR.services_by_name["PeerService"],
}
STOP_GRACE_S = 0.3
MEMBER_STOP_GRACE_S = 3.0


class Coordinator:
    """One coordinator process."""

    def __init__(self, settings: CoordinatorSettings, binary: Found) -> None:
        self._settings, self._binary = settings, binary
        self._datadir = DataDir(settings.data_dir)
        self._body: Body | None = None
        self._formation: Formation | None = None
        self._metrics = CoordinatorMetrics(lambda: sample_metrics(self._body))
        self._server = GrpcServer(settings.bind_address, settings.node_id, observe=self._metrics.count_request)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Raises StartupError and whatever ended a part."""
        self._datadir.lock()
        async with contextlib.AsyncExitStack() as stack:
            self._formation = Formation(self._settings, self._datadir, self._binary)
            stack.callback(self._formation.admin.close)
            stack.push_async_callback(self._stop_member)
            await self._listen(stack)
            if not await _unless(stop, self._formation.form()):
                return
            body = Body(self._settings, self._formation, str(self._binary.version))
            stack.push_async_callback(body.store.close)
            await self._serve(body, stop)

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        routes = build_routes(lambda: self._body, self._metrics.render)
        for address in dict.fromkeys((self._settings.http_address, self._settings.metrics_address)):
            http = HttpServer(address, routes)
            stack.push_async_callback(http.stop)
            await http.start()
        for service, descriptor in SERVICES.items():
            self._server.add(descriptor, self._resolver(service))
        await self._server.set_serving(False)
        stack.push_async_callback(self._server.stop, STOP_GRACE_S)
        await self._server.start()
        logger.info(
            "{} listens on {} (API), {} (HTTP)",
            self._settings.node_id,
            self._settings.bind_address,
            self._settings.http_address,
        )

    def _resolver(self, service: str) -> Callable[[str], Callable[..., Any]]:
        def resolve(method: str) -> Callable[..., Any]:
            if method == "GetFormation":
                return self._get_formation
            if self._body is None:
                raise Unavailable(
                    f"{self._settings.node_id} does not belong to a cluster yet",
                    hint="it is starting or waiting for the others: ask another coordinator, or look at its log",
                )
            parts = self._body.services[service]
            return next(getattr(part, method) for part in parts if hasattr(part, method))

        return resolve

    async def _get_formation(
        self, request: cluster_pb2.GetFormationRequest, context: object
    ) -> cluster_pb2.GetFormationResponse:
        assert self._formation is not None
        answer = self._formation.standing()
        if request.with_log and answer.phase == Standing.MEMBER.value:
            end = await asyncio.to_thread(find_log_end, self._datadir.etcd_dir)
            answer.log_term, answer.log_index = (end.term, end.index) if end else (0, 0)
        return answer

    async def _serve(self, body: Body, stop: asyncio.Event) -> None:
        running = asyncio.create_task(body.run(), name="coordinator")
        try:
            self._body = body
            await _first(running, asyncio.create_task(body.replica.loaded.wait()), asyncio.create_task(stop.wait()))
            if not running.done() and not stop.is_set():
                await self._server.set_serving(True)
                logger.info("{} serves", self._settings.node_id)
                await _first(running, asyncio.create_task(stop.wait()))
            await self._server.set_serving(False)
            if not running.done():
                logger.info("{} is stopping", self._settings.node_id)
                await body.leave()
        finally:
            await self._server.stop(STOP_GRACE_S)
            running.cancel()
            await asyncio.wait([running])
        _raise_first(running)

    async def _stop_member(self) -> None:
        supervisor = self._formation.supervisor if self._formation else None
        if supervisor is not None and supervisor.state.phase is not Phase.REMOVED:
            with contextlib.suppress(StoreTimeout):
                await supervisor.stop(MEMBER_STOP_GRACE_S)


async def _unless(stop: asyncio.Event, work: Any) -> bool:
    """Await `work` unless `stop` is set first; return whether it was done."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await _first(task, stopped)
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
        return False
    task.result()
    return True


async def _first(keep: asyncio.Task[Any], *others: asyncio.Task[Any]) -> None:
    """Return when any is done; cancel the others, not `keep`."""
    await asyncio.wait([keep, *others], return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()


def _raise_first(task: asyncio.Task[Any]) -> None:
    """Raise what ended `task`, a typed error in preference to the group that holds it."""
    if task.cancelled():
        return
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        typed, rest = error.split(CloudlessError)
        error = (typed or rest or error).exceptions[0]
    if error is not None:
        raise error
