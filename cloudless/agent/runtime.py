"""An agent from start to stop: put the parts together, keep them running, leave the tasks running behind.

Order matters: the data directory is locked before anything is read, ports are bound before anything is
started, tasks are found again before any coordinator is listened to.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from random import SystemRandom
from typing import Any, TypeVar

from loguru import logger

from cloudless.adapters.discovery.lookup import NetworkLookup
from cloudless.adapters.discovery.resolver import SeedResolver
from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.subprocess import ProcessExecutor
from cloudless.adapters.system import SystemClock
from cloudless.agent.assignments import Gate
from cloudless.agent.config import AgentLimits, build_node_info, read_boot_id
from cloudless.agent.contact import Contact
from cloudless.agent.credentials import obtain_credentials
from cloudless.agent.datadir import lock_data_dir
from cloudless.agent.dialling import grpc_dial
from cloudless.agent.docker import NAME as DOCKER
from cloudless.agent.docker import DockerSupply
from cloudless.agent.journal import Head, Journal
from cloudless.agent.links import Links
from cloudless.agent.meeting import refuse_two_clusters
from cloudless.agent.metrics import AgentMetrics
from cloudless.agent.reports import ReportBook
from cloudless.agent.room import DiskRoom
from cloudless.agent.sampling import Sources
from cloudless.agent.server import start_server
from cloudless.agent.session import SessionParts
from cloudless.agent.tasks import TaskRunner
from cloudless.agent.usage import UsageMeter, measure_tasks
from cloudless.core.abilities import START, WORDS
from cloudless.core.discovery.seeds import parse_seed
from cloudless.core.model import NodeInfo
from cloudless.ports import Clock, Executor
from cloudless.settings import AgentSettings

A = TypeVar("A")

SERVER_STOP_S = 0.2


async def run_agent(settings: AgentSettings, limits: AgentLimits | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises StartupError; any other error is a bug, and tasks survive that too."""
    limits = limits or AgentLimits()
    lock = lock_data_dir(settings.data_dir)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        stack.callback(os.close, lock)
        credentials = await _unless(stop, obtain_credentials(settings, SystemClock())) if settings.tls else None
        if stop.is_set():
            return
        process = ProcessExecutor(settings.data_dir / "tasks", cgroup_parent=settings.cgroup_parent)
        stack.callback(process.close)
        journal = Journal(settings.data_dir, threads_max=limits.journal_threads_max)
        stack.callback(journal.close)
        executors: dict[str, Executor] = {process.name: process}
        reports, clock = ReportBook(), SystemClock()
        room = DiskRoom(settings.data_dir, settings.disk_reserve_mb, reports.changed.set)
        stack.callback(room.close)
        runner = TaskRunner(settings, limits, executors, journal, reports, clock, room.look)
        server, port = await start_server(settings.listen_address, settings.node_id, runner, limits, credentials)
        settings = _with_port(settings, port)
        stack.push_async_callback(server.stop, SERVER_STOP_S)
        metrics = AgentMetrics()
        if settings.metrics_address:
            stack.callback(metrics.serve(settings.metrics_address, credentials.directory if credentials else None))
        seeds = SeedResolver(
            [parse_seed(seed) for seed in settings.coordinators], NetworkLookup(settings.dns_servers), clock
        )
        head, tasks = await journal.load()
        if not head.cluster_id and credentials is None:  # certificates are of one cluster
            await refuse_two_clusters(seeds)
        head = await begin_life(head, journal, clock.wall_ms(), secrets.token_hex(8))
        docker = DockerSupply(settings, head.agent_id, runner, reports.changed.set)
        gate = Gate(head, journal, settings.node_id)
        contact = Contact(gate, runner, clock, read_boot_id())
        await runner.recover(tasks, incarnation=head.incarnation, awaited=docker.awaited, on_known=contact.look)
        await docker.look_first()

        info = build_node_info(settings, tuple(executors), head.agent_id, process.abilities, head.incarnation)
        for ability, why_not in info.unable.items():
            logger.warning("this node cannot {}: {}", WORDS[ability], why_not)

        meter = UsageMeter(settings.node_id, settings.data_dir, partial(measure_tasks, runner), clock)
        links = Links(
            seeds,
            _build_parts(
                lambda: _describe(info, room, docker),
                limits,
                runner,
                reports,
                metrics,
                gate,
                clock,
                Dialler(credentials),
                contact.hear,
                meter,
            ),
        )
        metrics.watch(Sources(info, runner, links, reports, contact, room, docker, meter, credentials).sample)
        logger.info("agent {} serves on {}", settings.node_id, settings.listen_address)
        if credentials is not None:
            renewing = asyncio.create_task(credentials.run(links.addresses, metrics.renew), name="credentials")
            stack.callback(renewing.cancel)
        parts = [links.run(), docker.run(), contact.run(), room.run()]
        await _run_until(stop, runner, parts, end_tasks=settings.stop_tasks_on_exit)
        runner.leave()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, A]) -> A | None:
    """Return what `work` comes to, None if `stop` is set first."""
    doing, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait([doing, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if doing.done():
        return doing.result()
    doing.cancel()
    await asyncio.wait([doing])
    return None


def _describe(info: NodeInfo, room: DiskRoom, docker: DockerSupply) -> NodeInfo:
    """Return what is to be said of this node now."""
    unable = {**info.unable, **({START: room.fault} if room.fault else {})}
    return replace(info, executors=(*info.executors, DOCKER) if docker.offered else info.executors, unable=unable)


def _with_port(settings: AgentSettings, port: int) -> AgentSettings:
    """Return the settings with the port really listened on in place of 0 (any)."""
    host, _, advertised = (settings.advertise_address or settings.listen_address).rpartition(":")
    return replace(settings, advertise_address=f"{host}:{port if advertised == '0' else advertised}")


async def _run_until(
    stop: asyncio.Event, runner: TaskRunner, loops: Sequence[Coroutine[Any, Any, None]], *, end_tasks: bool
) -> None:
    """Run tasks and `loops` (which do not end by themselves) until `stop` is set, or raise what broke.

    With `end_tasks` the sessions go on until the tasks have ended, so that the cluster hears of it.
    """
    work = [asyncio.create_task(loop) for loop in (runner.run(), *loops, stop.wait())]
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        logger.info("leaving; tasks {}", "are stopped" if end_tasks else "run on")
        if end_tasks:
            await runner.end_all()
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def begin_life(head: Head, journal: Journal, wall_ms: int, new_agent_id: str) -> Head:
    """Count this start; by the wall clock at least, should the last count not have reached the disk."""
    incarnation = max(head.incarnation + 1, wall_ms)
    head = replace(head, incarnation=incarnation, agent_id=head.agent_id or new_agent_id)
    try:
        await journal.save_head(head)
    except OSError as error:
        logger.error("the data directory cannot be written: {}; no task will be started", error.strerror or error)
    return head


def _build_parts(
    info: Callable[[], NodeInfo],
    limits: AgentLimits,
    runner: TaskRunner,
    reports: ReportBook,
    metrics: AgentMetrics,
    gate: Gate,
    clock: Clock,
    dialler: Dialler,
    on_heard: Callable[[], None],
    meter: UsageMeter,
) -> SessionParts:
    return SessionParts(
        info=info,
        limits=limits,
        clock=clock,
        random=SystemRandom(),
        dial=grpc_dial(dialler, limits),
        gate=gate,
        runner=runner,
        reports=reports,
        on_round_trip=metrics.take_round_trip,
        on_refused=metrics.count_refusal,
        on_resent=metrics.count_resent,
        on_heard=on_heard,
        measure=meter.measure,
    )
