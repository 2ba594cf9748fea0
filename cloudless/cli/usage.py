"""`… top`: what nodes and tasks use now, beside what they have or may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import click

from cloudless.cli.options import Options
from cloudless.cli.output import Column, Listing, show_list
from cloudless.cli.plain import to_plain
from cloudless.core.model import Resources
from cloudless.core.quantity import format_cpu, format_mb
from cloudless.rpc.v1.usage_pb2 import NodeUsage, ReadTaskUsageResponse, Usage

_MIB = 1024 * 1024
TaskEntry = ReadTaskUsageResponse.Entry


class NodeTop(NamedTuple):
    """A node's usage with its capacity."""

    used: NodeUsage
    capacity: Resources


def _part(used: int, whole: int, form: Callable[[int], str]) -> str:
    """Return `250m/4 6%`; a `-` where something is not known or without limit."""
    if used < 0:
        return "-"
    return f"{form(used)}/{form(whole)} {100 * used / whole:.0f}%" if whole > 0 else form(used)


def _memory_mb(usage: Usage) -> int:
    return usage.memory_bytes // _MIB if usage.memory_bytes >= 0 else -1


def _disk(top: NodeTop) -> str:
    free, total = top.used.disk_free_bytes, top.used.disk_total_bytes
    return _part((total - free) // _MIB, total // _MIB, format_mb) if total > 0 else "-"


NODE_TOP: Listing[NodeTop] = Listing(
    kind="node",
    name=lambda top: top.used.node_id,
    plain=lambda top: to_plain(top.used),
    columns=[
        Column("NODE", lambda top: top.used.node_id),
        Column("CPU", lambda top: _part(top.used.usage.cpu_millicores, top.capacity.cpu_millicores, format_cpu)),
        Column("MEMORY", lambda top: _part(_memory_mb(top.used.usage), top.capacity.memory_mb, format_mb)),
        Column("DISK", _disk),
    ],
)

TASK_TOP: Listing[TaskEntry] = Listing(
    kind="task",
    name=lambda entry: entry.task_id,
    plain=to_plain,
    columns=[
        Column("WORKLOAD", lambda entry: f"{entry.namespace}/{entry.workload}"),
        Column("SLOT", lambda entry: str(entry.slot)),
        Column("TASK", lambda entry: entry.task_id),
        Column("NODE", lambda entry: entry.node_id),
        Column("CPU", lambda entry: _part(entry.usage.cpu_millicores, entry.cpu_limit_millicores, format_cpu)),
        Column("MEMORY", lambda entry: _part(_memory_mb(entry.usage), entry.memory_limit_mb, format_mb)),
    ],
)


def show_tops(options: Options, listing: Listing[Any], items: Iterable[Any], silent: Iterable[str], empty: str) -> None:
    """Show the items, those that use most first, and on stderr who did not answer."""
    found = list(items)
    if names := list(silent):
        click.echo(f"no answer from {len(names)} of the nodes: {', '.join(names[:10])}", err=True)
    show_list(options, listing, found, empty=empty)


def show_task_usage(options: Options, namespace: str, workload: str) -> None:
    """Ask for and show the usage of a workload's tasks, or of all of a namespace."""
    from cloudless.cli.methods import READ_TASK_USAGE
    from cloudless.rpc.v1.usage_pb2 import ReadTaskUsageRequest

    request = ReadTaskUsageRequest(read=options.read(), namespace=namespace, workload=workload)
    with options.client() as client:
        answer = client.call(READ_TASK_USAGE, request)
    tasks = sorted(answer.tasks, key=lambda entry: -entry.usage.cpu_millicores)
    show_tops(options, TASK_TOP, tasks, answer.silent_node_ids, "no tasks run")
