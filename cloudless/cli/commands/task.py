"""`task …`: single instances of workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.log_options import build_request, log_options
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
            ("ready", _ready_words(found) if found.state == "RUNNING" else ""),
            ("probe failures", str(observed.probe_failures or "")),
            ("started", f"{format_age(observed.started_at_ms, now_ms())} ago" if observed.started_at_ms else ""),
            ("last exit", format_exit(found).replace("-", "")),
            ("ports", "\n".join(f"{name} {observed.host}:{observed.ports[name]}" for name in sorted(observed.ports))),
            ("requests", format_resources(desired.spec.requests)),
            ("runs", desired.spec.image or "\n".join([*desired.spec.command, *desired.spec.args])),
        ],
    )


def _ready_words(found: Task) -> str:
    from cloudless.cli.ages import format_age
    from cloudless.cli.views import format_ready, now_ms

    since_ms = found.observed.ready_since_ms
    return format_ready(found) + (f", for {format_age(since_ms, now_ms())}" if since_ms else "")


@task.command("logs", cls=Command)
@click.argument("task_id")
@log_options
def logs(task_id: str, **wanted: Any) -> None:
    """Print the output of TASK_ID."""
    from cloudless.cli.logs import print_logs

    with current().client() as client:
        print_logs(client, build_request(task_id=task_id, **wanted))


@task.command("exec", cls=Command)
@click.argument("task_id")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND…")
@click.option("--stdin", "-i", is_flag=True, help="Give it our input.")
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal.")
def exec_(task_id: str, command: tuple[str, ...], stdin: bool, tty: bool) -> None:
    """Run COMMAND beside TASK_ID, in its surroundings, and end with its exit code.

    `cloudless task exec -it web-0-a1b2 -- sh` is a shell there. The command ends when this does.
    """
    from cloudless.cli.exec import run_command

    with current().client() as client:
        code = run_command(client, task_id, command, stdin=stdin, terminal=tty)
    click.get_current_context().exit(code)
