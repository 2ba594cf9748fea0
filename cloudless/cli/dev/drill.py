"""Break a running dev cluster on purpose and measure how it recovers, round after round.

While rounds go on, a writer loads the cluster, a prober asks every replica, a witness looks at every coordinator,
and a recorder keeps the history of all writes; `rounds` brings the faults, `report` judges.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import click

from cloudless.adapters.grpc.channel import INSECURE, Dialler
from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev.health import Health
from cloudless.cli.dev.history import History
from cloudless.cli.dev.identities import credentials_of
from cloudless.cli.dev.layout import Layout
from cloudless.cli.dev.prober import Prober
from cloudless.cli.dev.report import Kind, Report, Round, round_line
from cloudless.cli.dev.rounds import Stage, run_round
from cloudless.cli.dev.table import Table
from cloudless.cli.dev.witness import Witness
from cloudless.cli.dev.writer import Writer
from cloudless.cli.methods import GET_DIGEST, GET_WORKLOAD
from cloudless.errors import NotFound, StoreTimeout
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest

__all__ = ["DrillSettings", "Kind", "run_drill"]

FIT_S = 30.0
"""How long a cluster may take to be whole before the first round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSettings:
    """`kinds` in turn for `rounds` rounds; the replicas of `workload` ([namespace/]name) are watched."""

    rounds: int = 8
    kinds: tuple[Kind, ...] = tuple(Kind)
    workload: str = "hello"
    settle_s: float = 60.0


def run_drill(table: Table, settings: DrillSettings) -> Report:
    """Return what was found. Raises a typed error if the cluster is not fit to begin with."""
    return asyncio.run(_drill(table, settings))


async def _drill(table: Table, settings: DrillSettings) -> Report:
    namespace, slash, name = settings.workload.rpartition("/")
    workload = (namespace, name) if slash else ("default", settings.workload)
    async with AsyncExitStack() as stack:
        dialler = _dialler(table.layout)
        client = await stack.enter_async_context(AsyncClient(table.layout.api_addresses, 10.0, dialler))
        clients = {
            plan.name: await stack.enter_async_context(AsyncClient((address,), 5.0, dialler))
            for plan, address in zip(table.layout.coordinators, table.layout.api_addresses, strict=True)
        }
        health = Health(table.layout, clients)
        await _require_fit(client, health, workload)
        stage = await _set_stage(stack, table, client, clients, health, workload, settings.settle_s)
        rounds = await _run_rounds(stage, settings)
    notes = [*dict.fromkeys(stage.notes)]
    notes += [
        f"changes of revisions {a} to {b} were not recorded; newest values were read back"
        for a, b in stage.history.gaps
    ]
    return Report(tuple(rounds), tuple(notes))


def _dialler(layout: Layout) -> Dialler:
    credentials = credentials_of(layout)
    return INSECURE if credentials is None else Dialler(lambda: credentials)


async def _require_fit(client: AsyncClient, health: Health, workload: tuple[str, str]) -> None:
    if await health.wait_settled(FIT_S) is None:
        raise StoreTimeout(
            f"the cluster is not whole, so a drill would prove nothing: {'; '.join(health.findings())}",
            hint="`cloudless dev status` shows it; `cloudless dev start NAME` starts what is down",
        )
    try:
        await client.call(GET_WORKLOAD, GetWorkloadRequest(namespace=workload[0], name=workload[1]))
    except NotFound as error:
        raise NotFound(
            f"{error.message}: the drill watches its replicas",
            hint="`cloudless workload apply -f examples/hello.yaml --wait`, or name another with --workload",
        ) from error


async def _set_stage(
    stack: AsyncExitStack,
    table: Table,
    client: AsyncClient,
    clients: dict[str, AsyncClient],
    health: Health,
    workload: tuple[str, str],
    settle_s: float,
) -> Stage:
    newest = await client.call(GET_DIGEST, GetDigestRequest())
    # A client of its own: its preferred coordinator must not be moved by the writers' failures.
    watching = await stack.enter_async_context(AsyncClient(table.layout.api_addresses, 10.0, _dialler(table.layout)))
    stage = Stage(
        table, client, clients, Writer(client), Prober(), Witness(clients), History(watching, newest.revision + 1),
        health, workload, settle_s,
    )  # fmt: skip
    recording = asyncio.create_task(stage.history.record())
    stack.push_async_callback(_end, recording)
    stage.witness.start()
    stack.push_async_callback(stage.witness.stop)
    stage.writer.start()
    stack.push_async_callback(stage.writer.stop)
    stack.push_async_callback(stage.prober.aim, set())
    return stage


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _run_rounds(stage: Stage, settings: DrillSettings) -> list[Round]:
    rounds = []
    for index in range(settings.rounds):
        done = await run_round(stage, index + 1, settings.kinds[index % len(settings.kinds)])
        rounds.append(done)
        click.echo(round_line(done), err=True)
        if done.settle_s is None:
            # Another fault on a cluster that has not healed would measure nothing.
            break
    return rounds
