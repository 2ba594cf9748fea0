"""`workload plan`: what applying a manifest would do, without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.workload_pb2 import PlannedTask, PlannedWorkload, SlotDiagnosis

CHANGES = 1
"""Exit code if something would change, as Nomad's: 2 and above are errors."""
_SHOWN_MAX = 20
_VALUE_MAX = 100


@click.command("plan", cls=Command)
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--filename", "-f", metavar="FILE|-", help="The same as the argument.")
def plan(file: str | None, filename: str | None) -> None:
    """Show what applying the manifest FILE would do: changes, where tasks would run, what would be pending and why.

    Nothing is written. It is the first step that is shown: a rolling update goes on from there, and of equal nodes
    others may be taken in the end. Exits with 0 if nothing would change, with 1 if something would.
    """
    from cloudless.cli.commands.workload import read_manifest
    from cloudless.cli.methods import PLAN_WORKLOAD
    from cloudless.cli.output import show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.rpc.v1.workload_pb2 import PlanWorkloadRequest

    if (file is None) == (filename is None):
        raise click.UsageError("which manifest? `cloudless workload plan FILE`, or - for stdin")
    options = current()
    request = PlanWorkloadRequest(read=options.read(), manifest=read_manifest(file or filename or ""))
    with options.client() as client:
        planned = client.call(PLAN_WORKLOAD, request).workloads
    if options.output in ("json", "yaml"):
        show_plain(options, [to_plain(each) for each in planned])
    else:
        for each in planned:
            for line in _lines(each):
                click.echo(line)
        click.echo(_sum(planned))
    if any(_changes(each) for each in planned):
        raise SystemExit(CHANGES)


def _lines(planned: PlannedWorkload) -> Iterator[str]:
    name = planned.name if planned.namespace == "default" else f"{planned.namespace}/{planned.name}"
    yield f"workload/{name} {planned.action}"
    for field in planned.fields:
        before = f"{_short(field.before)} -> " if planned.action == "changed" else ""
        yield f"  {field.path}: {before}{_short(field.after)}"
    yield from _by_node("start", planned.starts)
    yield from _by_node("stop", [task for task in planned.stops if not task.workload])
    for task in planned.stops:
        if task.workload:
            yield f"  stop {task.task_id} of {task.workload} on {task.node_id}: {task.reason}"
    yield from _pending(planned.unplaced)
    for line in planned.waiting:
        yield f"  waits: {line}"


def _pending(unplaced: Iterable[SlotDiagnosis]) -> Iterator[str]:
    """Yield why slots have no node; those with the same reasons share their lines."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for slot in unplaced:
        near = [f"    nearest {miss.node_id}: {'; '.join(miss.obstacles)}" for miss in slot.nearest]
        alike.setdefault((slot.text, *near), []).append(str(slot.slot))
    for (text, *near), slots in alike.items():
        yield f"  pending slot {_few(slots)}: {text}"
        yield from near


def _by_node(what: str, tasks: Iterable[PlannedTask]) -> Iterator[str]:
    """Yield one line for each node; at most so many."""
    slots: dict[str, list[str]] = {}
    for task in tasks:
        slots.setdefault(task.node_id, []).append(str(task.slot))
    for node_id in sorted(slots)[:_SHOWN_MAX]:
        yield f"  {what} slot {_few(slots[node_id])} on {node_id}"
    if len(slots) > _SHOWN_MAX:
        rest = sum(len(held) for node_id, held in slots.items() if node_id not in sorted(slots)[:_SHOWN_MAX])
        yield f"  {what} {rest} more on {len(slots) - _SHOWN_MAX} other nodes"


def _sum(planned: Iterable[PlannedWorkload]) -> str:
    every = list(planned)
    starts, stops = sum(len(each.starts) for each in every), sum(len(each.stops) for each in every)
    pending = sum(len(each.unplaced) for each in every)
    changed = sum(1 for each in every if each.action != "unchanged")
    if not changed and not starts and not stops and not pending:
        return "plan: nothing would change"
    return f"plan: {changed} of {len(every)} workloads change; tasks: {starts} start, {stops} stop, {pending} pending"


def _changes(planned: PlannedWorkload) -> bool:
    return planned.action != "unchanged" or bool(planned.starts or planned.stops)


def _few(slots: list[str]) -> str:
    return ", ".join(slots[:_SHOWN_MAX]) + (f" and {len(slots) - _SHOWN_MAX} more" if len(slots) > _SHOWN_MAX else "")


def _short(value: str) -> str:
    return value if len(value) <= _VALUE_MAX else value[: _VALUE_MAX - 1] + "…"
