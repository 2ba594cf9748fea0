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

from google.protobuf.descriptor import ServiceDescriptor
from loguru import logger

from cloudless.adapters.dns.server import DnsServer
from cloudless.adapters.grpc.server import GrpcServer
from cloudless.adapters.http.server import HttpServer
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.logtail import EtcdLine, LogTail
from cloudless.adapters.member.supervisor import Phase
from cloudless.adapters.member.wal_end import find_log_end
from cloudless.adapters.system import SystemClock
from cloudless.coordinator.body import Body
from cloudless.coordinator.credentials import OwnCredentials, load_credentials
from cloudless.coordinator.departure import REMOVED_HINT
from cloudless.coordinator.formation import Formation
from cloudless.coordinator.guard import Guard
from cloudless.coordinator.health import OPEN_PATHS, build_pages
from cloudless.coordinator.httpapi.serving import build_api
from cloudless.coordinator.inspection import Inspector
from cloudless.coordinator.names import NameAnswers
from cloudless.coordinator.sampling import sample
from cloudless.core.membership.founding import Standing
from cloudless.core.membership.records import autopilot_status_of, replacements_of
from cloudless.core.state import View
from cloudless.errors import CloudlessError, MemberRemoved, StoreTimeout, Unavailable
from cloudless.observability.logs import KIND
from cloudless.observability.metrics import COORDINATOR, COORDINATOR_PREFIX
from cloudless.observability.registry import ProcessMetrics
from cloudless.observability.requests import RequestMetrics
from cloudless.rpc.v1 import (
    agent_pb2,
    backup_pb2,
    cluster_pb2,
    event_pb2,
    identity_pb2,
    maintenance_pb2,
    names_pb2,
    node_pb2,
    peer_pb2,
    usage_pb2,
    workload_pb2,
)
from cloudless.settings import CoordinatorSettings
from etcd.find import Found

SERVICES: dict[str, ServiceDescriptor] = {
    "cluster": cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"],
    "nodes": node_pb2.DESCRIPTOR.services_by_name["NodeService"],
    "workloads": workload_pb2.DESCRIPTOR.services_by_name["WorkloadService"],
    "tasks": workload_pb2.DESCRIPTOR.services_by_name["TaskService"],
    "events": event_pb2.DESCRIPTOR.services_by_name["EventService"],
    "sessions": agent_pb2.DESCRIPTOR.services_by_name["AgentService"],
    "backups": backup_pb2.DESCRIPTOR.services_by_name["BackupService"],
    "identity": identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
    "names": names_pb2.DESCRIPTOR.services_by_name["NameService"],
    "usage": usage_pb2.DESCRIPTOR.services_by_name["UsageService"],
    "peers": peer_pb2.DESCRIPTOR.services_by_name["PeerService"],
    "maintenance": maintenance_pb2.DESCRIPTOR.services_by_name["MaintenanceService"],
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
        self._inspector: Inspector | None = None
        self._metrics = ProcessMetrics(COORDINATOR_PREFIX, COORDINATOR, lambda: sample(self._body))
        self._own = OwnCredentials()
        self._server: GrpcServer | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Raises StartupError and whatever ended a part."""
        self._datadir.lock()
        if not await _unless(stop, self._obtain_credentials()):
            return
        async with contextlib.AsyncExitStack() as stack:
            self._formation = Formation(self._settings, self._datadir, self._binary, self._own)
            self._inspector = Inspector(self._settings, str(self._binary.version), self._formation)
            stack.callback(self._formation.admin.close)
            stack.push_async_callback(self._stop_member)
            tail = LogTail(self._datadir.log_file, _pass_on)  # ended before etcd is: its last words are of its end
            stack.push_async_callback(_ended, asyncio.create_task(tail.run(), name="etcd-log"))
            await self._listen(stack)
            if not await _unless(stop, self._form()):
                return
            version = str(self._binary.version)
            body = Body(self._settings, self._formation, version, self._own, self._inspector, self._metrics)
            self._inspector.body = body
            stack.push_async_callback(body.store.close)
            try:
                await self._serve(body, stop)
            except MemberRemoved:
                if not body.departure.under_way:
                    raise
                self._formation.put_away(f"{body.members.status.cluster_id:x}" if body.members.status else "")
                logger.warning("{} has left the cluster for good; {}", self._settings.node_id, REMOVED_HINT)

    async def _obtain_credentials(self) -> None:
        self._own = await load_credentials(self._settings, SystemClock())

    async def _form(self) -> None:
        """Come to belong to a cluster. That may take weeks: meanwhile certificates are renewed all the same."""
        assert self._formation is not None
        keeping = asyncio.create_task(self._own.keep(), name="own-credentials-while-forming")
        try:
            await self._formation.form()
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        door = Guard(
            self._find_view, lambda: self._own.cluster_id, tell=self._tell_refusal, open_door=not self._own.api
        )
        await self._listen_http(stack, door)
        await self._answer_names(stack)
        self._server = server = GrpcServer(
            self._settings.bind_address,
            self._settings.node_id,
            observe=RequestMetrics(self._metrics).observe,
            credentials=self._own.api,
            door=door,
            open_address=self._settings.enrol_address,
        )
        for service, descriptor in SERVICES.items():
            server.add(descriptor, self._resolver(service))
        await server.set_serving(False)
        stack.push_async_callback(server.stop, STOP_GRACE_S)
        await server.start()
        logger.info(
            "{} listens on {} (API), {} (HTTP)",
            self._settings.node_id,
            self._settings.bind_address,
            self._settings.http_address,
        )

    async def _listen_http(self, stack: contextlib.AsyncExitStack, door: Guard) -> None:
        """Serve pages on the HTTP and the metrics port, the API on the former alone."""
        assert self._formation is not None
        formation, settings = self._formation, self._settings
        pages = build_pages(lambda: self._body, lambda: formation.waiting_for, self._metrics.render, formation.admin)
        api = build_api(
            settings,
            SERVICES,
            lambda service, method: self._resolver(service)(method),
            door,
            RequestMetrics(self._metrics).observe,
            lambda: self._body.replica.machine.revision if self._body else 0,
        )
        for address in dict.fromkeys((settings.http_address, settings.metrics_address)):
            rest = api.answer if address == settings.http_address else None
            http = HttpServer(address, pages, rest, tls=self._own.http, open=OPEN_PATHS)
            stack.push_async_callback(http.stop)
            await http.start()

    async def _answer_names(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        if not settings.dns_address:
            return
        answers = NameAnswers(
            lambda: self._body.replica if self._body else None,
            settings.dns_domain,
            settings.dns_ttl_s,
            settings.dns_stale_max_s,
        )
        server = DnsServer(settings.dns_address, answers.respond, SystemClock())
        stack.push_async_callback(server.stop)
        await server.start()
        logger.info("{} answers names under {} on {}", settings.node_id, settings.dns_domain, settings.dns_address)

    def _tell_refusal(self, subject: str, actor: str, method: str, reason: str) -> None:
        if self._body is not None:
            self._body.trust.auditor.refused(subject, actor, method, reason)
        else:
            logger.warning("refused: {} by {} from {}: {}", method, actor or "nobody known", subject, reason)

    def _find_view(self) -> View | None:
        body = self._body
        return body.replica.machine if body is not None and body.replica.loaded.is_set() else None

    def _resolver(self, service: str) -> Callable[[str], Callable[..., Any]]:
        def resolve(method: str) -> Callable[..., Any]:
            if method == "GetFormation":
                return self._get_formation
            if method == "InspectCoordinator":
                return self._inspect
            if self._body is None:
                raise Unavailable(
                    f"{self._settings.node_id} is not a voter of a cluster yet",
                    hint="it is starting, waiting for the others, or stands by as a learner: ask another coordinator, "
                    "or look at its log",
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
        if self._body is not None:
            machine = self._body.replica.machine
            answer.awaited.extend(sorted({one.record.new_id for one in replacements_of(machine).values()} - {""}))
            answer.dropped_member_ids.extend(autopilot_status_of(machine).dropped_member_ids)
        return answer

    async def _inspect(self, request: object, context: object) -> maintenance_pb2.InspectCoordinatorResponse:
        assert self._inspector is not None
        return await self._inspector.inspect()

    async def _serve(self, body: Body, stop: asyncio.Event) -> None:
        assert self._server is not None
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


def _pass_on(line: EtcdLine) -> None:
    """Write a line of etcd's log into ours; those of one kind are summed up, whatever their values."""
    logger.bind(**{"source": "etcd", KIND: line.kind}).log(line.level, "{}", line.text)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


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
