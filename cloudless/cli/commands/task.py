"""`task …`: single instances of workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.workload_pb2 import Task


@click.group(cls=LazyGroup, aliases={"describe": "get"})
def task() -> None:
    """Single instances of workloads."""


@task.command("list", cls=Command)
@click.option("--workload", "-w", default="", metavar="NAME", help="Only of this workload (NAME or NAMESPACE/NAME).")
@click.option("--node", "node_id", default="", metavar="ID", help="Only on this node.")
@click.option("--all", "-a", "ended_too", is_flag=True, help="Ended tasks too.")
def list_tasks(workload: str, node_id: str, ended_too: bool) -> None:
    """List tasks."""
    from cloudless.cli.methods import LIST_TASKS
    from cloudless.cli.output import show_list
    from cloudless.cli.paging import pages
    from cloudless.cli.views import TASKS
    from cloudless.rpc.v1.workload_pb2 import ListTasksRequest

    options = current()
    namespace, workload = options.target(workload) if workload else (options.namespace, "")
    request = ListTasksRequest(
        read=options.read(), namespace=namespace, workload=workload, node_id=node_id, all=ended_too
    )
    with options.client() as client:
        tasks = [found for page in pages(client, LIST_TASKS, request) for found in page.tasks]
    tasks.sort(key=lambda t: (t.desired.namespace, t.desired.workload, t.desired.slot, t.desired.created_at_ms))
    show_list(options, TASKS, tasks)


@task.command("top", cls=Command)
@click.option("--workload", "-w", default="", metavar="NAME", help="Only of this workload (NAME or NAMESPACE/NAME).")
def top(workload: str) -> None:
    """Show what tasks use now, of what they may."""
    from cloudless.cli.usage import show_task_usage

    options = current()
    show_task_usage(options, *(options.target(workload) if workload else (options.namespace, "")))


@task.command("get", cls=Command)
@click.argument("task_id")
def get(task_id: str) -> None:
    """Show all about TASK_ID."""
    from cloudless.cli.methods import GET_TASK
    from cloudless.cli.output import show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.rpc.v1.workload_pb2 import GetTaskRequest

    options = current()
    with options.client() as client:
        found = client.call(GET_TASK, GetTaskRequest(read=options.read(), task_id=task_id)).task
    if options.output in ("json", "yaml"):
        show_plain(options, to_plain(found))
    elif options.output == "name":
        click.echo(f"task/{found.desired.id}")
    else:
        _show_facts(found)


def _show_facts(found: Task) -> None:
    from cloudless.cli.ages import format_age
    from cloudless.cli.output import show_fields
    from cloudless.cli.views import format_exit, format_resources, now_ms

    desired, observed = found.desired, found.observed
    show_fields(
        current(),
        [
            ("task", desired.id),
            ("state", found.state),
            ("message", observed.message),
            (
                "workload",
                f"{desired.namespace}/{desired.workload}, replica {desired.slot}, generation {desired.task_generation}",
            ),
            ("node", desired.node_id),
            ("wanted", "running" if desired.desired == 1 else f"stopped: {desired.reason}"),
            ("decided", f"in term {desired.term}, {format_age(desired.created_at_ms, now_ms())} ago; {desired.reason}"),
            ("attempt", f"{observed.attempt}, {observed.restarts} restarts" if observed.attempt else ""),
            ("pid", str(observed.pid or "")),
            ("started", f"{format_age(observed.started_at_ms, now_ms())} ago" if observed.started_at_ms else ""),
            ("last exit", format_exit(found).replace("-", "")),
            ("ports", "\n".join(f"{name} {observed.host}:{observed.ports[name]}" for name in sorted(observed.ports))),
            ("requests", format_resources(desired.spec.requests)),
            ("runs", desired.spec.image or "\n".join([*desired.spec.command, *desired.spec.args])),
        ],
    )


@task.command("logs", cls=Command)
@click.argument("task_id")
@click.option("--follow", "-f", is_flag=True, help="Go on as it grows.")
@click.option("--tail", default=100, show_default=True, metavar="LINES", help="Last lines; -1: all kept.")
def logs(task_id: str, follow: bool, tail: int) -> None:
    """Print the output of TASK_ID."""
    from cloudless.cli.logs import print_logs
    from cloudless.rpc.v1.workload_pb2 import ReadLogsRequest

    with current().client() as client:
        print_logs(client, ReadLogsRequest(task_id=task_id, tail_lines=tail or 1, follow=follow))
