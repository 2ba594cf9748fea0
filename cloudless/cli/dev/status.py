"""Show a dev cluster: its processes, and what the cluster says of itself."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from cloudless.cli.client import Client
from cloudless.cli.commands.cluster import show_status
from cloudless.cli.dev.identities import credentials_of
from cloudless.cli.dev.layout import HOST, CoordinatorPlan
from cloudless.cli.dev.table import Table, rss_mb
from cloudless.cli.methods import GET_STATUS, LIST_TASKS
from cloudless.cli.options import Options
from cloudless.cli.output import show_plain, show_table
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest
from cloudless.rpc.v1.workload_pb2 import ListTasksRequest


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process as shown; `pid` 0 means it does not run."""

    name: str
    role: str
    pid: int
    rss_mb: float
    ports: dict[str, int]


def process_rows(table: Table) -> list[ProcessRow]:
    """Return every process of the cluster, each etcd below its coordinator."""
    living, rows = table.living(), []
    for plan in table.layout.plans:
        who = living.get(plan.name)
        pid = who.pid if who else 0
        coordinator = isinstance(plan, CoordinatorPlan)
        ports = {use: port for use, port in plan.ports.items() if not (coordinator and use in ("raft", "etcd"))}
        rows.append(ProcessRow(plan.name, "coordinator" if coordinator else "agent", pid, rss_mb(pid), ports))
        if isinstance(plan, CoordinatorPlan):
            etcd = table.etcd_of(plan.name)
            etcd_pid = etcd.pid if etcd else 0
            ports = {"raft": plan.raft_port, "client": plan.etcd_port}
            rows.append(ProcessRow(f"{plan.name}/etcd", "etcd", etcd_pid, rss_mb(etcd_pid), ports))
    return rows


def show(table: Table, options: Options) -> None:
    """Print processes and cluster status."""
    rows = process_rows(table)
    if options.output in ("json", "yaml"):
        plain = [
            {"name": r.name, "role": r.role, "pid": r.pid or None, "rssMb": round(r.rss_mb, 1), "ports": r.ports}
            for r in rows
        ]
        return show_plain(options, plain)
    cells = [
        [
            r.name, r.role, "up" if r.pid else "down", str(r.pid or "-"), f"{r.rss_mb:.0f}M" if r.pid else "-",
            " ".join(f"{use} {port}" for use, port in r.ports.items()),
        ]
        for r in rows
    ]  # fmt: skip
    show_table(options, ["NAME", "ROLE", "STATE", "PID", "RSS", "PORTS"], cells)
    click.echo()
    try:
        with Client(table.layout.api_addresses, 3.0, credentials_of(table.layout)) as client:
            show_status(options, client.call(GET_STATUS, GetStatusRequest()))
    except CloudlessError as error:
        click.echo(f"the cluster does not answer: {error.message}")


def next_steps(table: Table) -> str:
    """Return what a person may want to do with a fresh cluster, ready to copy."""
    layout = table.layout
    scheme = "https" if layout.tls else "http"
    lines = ["", "endpoints" if layout.tls else "endpoints (plain, nobody is asked who he is)"]
    for plan in layout.coordinators:
        lines.append(
            f"  {plan.name}  api {HOST}:{plan.api_port}  {scheme}://{HOST}:{plan.http_port}"
            f"  metrics {scheme}://{HOST}:{plan.metrics_port}/metrics"
        )
    lines += ["", "try next"]
    if shutil.which("cloudless") is None:
        lines += [f"  . {Path(sys.executable).with_name('activate')}   # puts cloudless on the PATH"]
    lines += ["  cloudless cluster status", "  cloudless node list", "  cloudless console   # all of it in a browser"]
    replicas = _replica_addresses(table)
    if replicas:
        lines += [f"  curl http://{replicas[0]}/   # a replica answers"]
    else:
        lines += ["  cloudless workload apply -f examples/hello.yaml --wait"]
    leader = "$(cloudless cluster leader -o name | cut -d/ -f2)"
    lines += [
        f"  {layout.command(f'kill {leader} --etcd')}   # then: dev start NAME",
        f"  {layout.command('drill --rounds 8')}   # break it on purpose and measure",
        f"  {layout.command('down')}",
    ]
    return "\n".join(lines)


def _replica_addresses(table: Table) -> list[str]:
    try:
        with Client(table.layout.api_addresses, 2.0, credentials_of(table.layout)) as client:
            tasks = client.call(LIST_TASKS, ListTasksRequest()).tasks
    except CloudlessError:
        return []
    return [f"{t.observed.host}:{port}" for t in tasks for port in t.observed.ports.values() if t.state == "RUNNING"]
