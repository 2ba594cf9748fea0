"""`workload …`: what the cluster is to run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.log_options import build_request, log_options
from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.common_pb2 import WriteOptions
    from cloudless.rpc.v1.workload_pb2 import ApplyResult

_WAIT_S = 120.0


_LAZY = {
    "wait": ("cloudless.cli.commands.wait:wait", "Wait until it is rolled out, has done its job, or is gone."),
    "plan": ("cloudless.cli.commands.plan:plan", "Show what applying a manifest would do, without doing it."),
    "rollout": ("cloudless.cli.commands.rollout:rollout", "Its newest change: status, pause, resume, promote, undo."),
    "history": ("cloudless.cli.commands.rollout:history", "List the templates it had."),
    "diff": ("cloudless.cli.commands.rollout:diff", "Show what differs between two of them."),
}


@click.group(cls=LazyGroup, lazy=_LAZY, aliases={"create": "apply", "describe": "explain"})
def workload() -> None:
    """What runs: apply a manifest, look, scale, explain, read logs, delete."""


@workload.command("apply", cls=Command)
@click.option("--filename", "-f", required=True, metavar="FILE|-", help="Manifest, YAML or JSON; - reads stdin.")
@click.option("--dry-run", is_flag=True, help="Validate and say what would change; write nothing.")
@click.option("--if-revision", default=0, metavar="N", help="Only if the workload is still at revision N.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
@click.option("--wait", is_flag=True, help="Wait until it is rolled out; exit code 10 if it fails or is rolled back.")
@click.option("--wait-timeout", default=_WAIT_S, show_default=True, metavar="SECONDS", help="For --wait.")
def apply(filename: str, dry_run: bool, if_revision: int, request_id: str, wait: bool, wait_timeout: float) -> None:
    """Create or change the workloads of a manifest, all or none."""
    from cloudless.cli.methods import APPLY_WORKLOAD
    from cloudless.cli.rollouts import wait_rolled_out
    from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest

    options = current()
    request = ApplyWorkloadRequest(
        options=_write(request_id, if_revision), manifest=read_manifest(filename), dry_run=dry_run
    )
    with options.client() as client:
        results = client.call(APPLY_WORKLOAD, request).results
        _show_results(list(results), dry_run)
        if wait and not dry_run:
            for result in results:
                applied = result.generation if result.action == "changed" else 0
                stands = wait_rolled_out(client, result.namespace, result.name, wait_timeout, applied)
                click.echo(f"workload/{result.name} is rolled out: {stands}", err=True)


def read_manifest(filename: str) -> str:
    """Return the text of a manifest file, or of stdin for `-`. Raises InvalidSpec if it cannot be read."""
    from cloudless.errors import InvalidSpec, Problem

    try:
        data = sys.stdin.buffer.read() if filename == "-" else Path(filename).read_bytes()
        return data.decode()
    except OSError as error:
        raise InvalidSpec([Problem(filename, error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        raise InvalidSpec([Problem(filename, f"is not UTF-8 text (byte {error.start})")]) from error


def _show_results(results: list[ApplyResult], dry_run: bool) -> None:
    from cloudless.cli.output import show_plain
    from cloudless.cli.plain import to_plain

    options = current()
    if options.output in ("json", "yaml"):
        return show_plain(options, [to_plain(result) for result in results])
    for result in results:
        name = result.name if result.namespace == "default" else f"{result.namespace}/{result.name}"
        if options.output == "name":
            click.echo(f"workload/{name}")
            continue
        changed = f": {', '.join(result.changed_fields)}" if result.action == "changed" else ""
        click.echo(f"workload/{name} {result.action}{changed}{' (dry run)' if dry_run else ''}")


@workload.command("list", cls=Command)
@click.option("--selector", "-l", multiple=True, metavar="KEY=VALUE,…", help="Labels that must match.")
def list_workloads(selector: tuple[str, ...]) -> None:
    """List workloads of all namespaces, or of --namespace."""
    from cloudless.cli.methods import LIST_WORKLOADS
    from cloudless.cli.output import show_list
    from cloudless.cli.paging import pages
    from cloudless.cli.selectors import parse_selector
    from cloudless.cli.views import WORKLOADS
    from cloudless.rpc.v1.workload_pb2 import ListWorkloadsRequest

    options = current()
    request = ListWorkloadsRequest(read=options.read(), namespace=options.namespace, selector=parse_selector(selector))
    with options.client() as client:
        found = [item for page in pages(client, LIST_WORKLOADS, request) for item in page.workloads]
    show_list(options, WORKLOADS, found, empty="no workloads: `cloudless workload apply -f FILE` makes one")


@workload.command("get", cls=Command)
@click.argument("name")
def get(name: str) -> None:
    """Show workload NAME (or NAMESPACE/NAME); `-o yaml` prints a manifest that can be applied again."""
    from cloudless.cli.methods import GET_WORKLOAD
    from cloudless.cli.output import show_list, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import WORKLOADS
    from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest

    options = current()
    namespace, name = options.target(name)
    with options.client() as client:
        request = GetWorkloadRequest(
            read=options.read(), namespace=namespace, name=name, with_manifest=options.output == "yaml"
        )
        answer = client.call(GET_WORKLOAD, request)
    if options.output == "yaml":
        click.echo(answer.manifest.rstrip("\n"))
    elif options.output == "json":
        show_plain(options, to_plain(answer.workload))
    else:
        show_list(options, WORKLOADS, [answer.workload])


@workload.command("scale", cls=Command)
@click.argument("name")
@click.argument("replicas_argument", required=False, type=click.IntRange(min=0), metavar="[REPLICAS]")
@click.option("--replicas", type=click.IntRange(min=0), help="How many to run.")
@click.option("--if-revision", default=0, metavar="N", help="Only if the workload is still at revision N.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
@click.option("--wait", is_flag=True, help="Wait until as many run.")
@click.option("--wait-timeout", default=_WAIT_S, show_default=True, metavar="SECONDS", help="For --wait.")
def scale(
    name: str,
    replicas_argument: int | None,
    replicas: int | None,
    if_revision: int,
    request_id: str,
    wait: bool,
    wait_timeout: float,
) -> None:
    """Run REPLICAS replicas of workload NAME."""
    from cloudless.cli.methods import SCALE_WORKLOAD
    from cloudless.cli.rollouts import wait_rolled_out
    from cloudless.rpc.v1.workload_pb2 import ScaleWorkloadRequest

    wanted = replicas if replicas is not None else replicas_argument
    if wanted is None:
        raise click.UsageError("how many? `cloudless workload scale NAME --replicas N`")
    options = current()
    namespace, name = options.target(name)
    write = _write(request_id, if_revision)
    with options.client() as client:
        client.call(
            SCALE_WORKLOAD, ScaleWorkloadRequest(options=write, namespace=namespace, name=name, replicas=wanted)
        )
        click.echo(f"workload/{name} scaled to {wanted}")
        if wait:
            wait_rolled_out(client, namespace, name, wait_timeout)


@workload.command("delete", cls=Command)
@click.argument("name")
@click.option("--if-revision", default=0, metavar="N", help="Only if the workload is still at revision N.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
@click.option("--wait", is_flag=True, help="Wait until its tasks have ended and it is gone.")
@click.option("--wait-timeout", default=_WAIT_S, show_default=True, metavar="SECONDS", help="For --wait.")
def delete(name: str, if_revision: int, request_id: str, wait: bool, wait_timeout: float) -> None:
    """Stop all tasks of workload NAME, then forget it."""
    from cloudless.cli.gone import wait_gone
    from cloudless.cli.methods import DELETE_WORKLOAD
    from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest

    options = current()
    namespace, name = options.target(name)
    write = _write(request_id, if_revision)
    with options.client() as client:
        client.call(DELETE_WORKLOAD, DeleteWorkloadRequest(options=write, namespace=namespace, name=name))
        if wait:
            wait_gone(client, namespace, name, wait_timeout)
    click.echo(f"workload/{name} {'deleted' if wait else 'is being deleted'}")


@workload.command("explain", cls=Command)
@click.argument("name")
def explain(name: str) -> None:
    """Say why workload NAME is not (yet) as asked."""
    from cloudless.cli.methods import EXPLAIN_WORKLOAD
    from cloudless.cli.output import show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.rpc.v1.workload_pb2 import ExplainWorkloadRequest

    options = current()
    namespace, name = options.target(name)
    request = ExplainWorkloadRequest(read=options.read(), namespace=namespace, name=name)
    with options.client() as client:
        answer = client.call(EXPLAIN_WORKLOAD, request)
    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    click.echo(f"{namespace}/{name}: {answer.verdict}")
    # Replicas that want a node for the same reasons share their lines; what the verdict said is not said again.
    unplaced: dict[tuple[str, ...], list[str]] = {}
    for slot in answer.unplaced:
        why = [f"    {reason.count} of {slot.nodes_total} nodes: {reason.reason}" for reason in slot.reasons]
        near = [f"    nearest {miss.node_id}: {'; '.join(miss.obstacles)}" for miss in slot.nearest]
        unplaced.setdefault((slot.text, *why, *near), []).append(str(slot.slot))
    for (text, *details), slots in unplaced.items():
        if text in answer.verdict and len(details) < 2 and len(unplaced) == 1:
            continue
        click.echo(f"  slot {', '.join(slots)}: {text}")
        for line in details:
            click.echo(line)
    for line in answer.waiting:
        if line not in answer.verdict:
            click.echo(f"  waits for {line}")


@workload.command("top", cls=Command)
@click.argument("name", default="")
def top(name: str) -> None:
    """Show what the tasks of workload NAME (all without) use now, of what they may."""
    from cloudless.cli.usage import show_task_usage

    options = current()
    show_task_usage(options, *(options.target(name) if name else (options.namespace, "")))


@workload.command("endpoints", cls=Command)
@click.argument("name")
@click.option("--near", default="", metavar="NODE", help="Nearest to this node first.")
@click.option("--watch", "-w", is_flag=True, help="Go on with what changes until interrupted.")
def endpoints(name: str, near: str, watch: bool) -> None:
    """List where workload NAME can be reached: its tasks that run and are ready, best first."""
    from cloudless.cli.endpoints import follow_endpoints
    from cloudless.cli.methods import LIST_ENDPOINTS
    from cloudless.cli.output import show_list
    from cloudless.cli.views import ENDPOINTS, print_step
    from cloudless.rpc.v1.names_pb2 import ListEndpointsRequest, WatchEndpointsRequest

    options = current()
    namespace, name = options.target(name)
    with options.client() as client:
        if watch:
            request = WatchEndpointsRequest(namespace=namespace, workload=name, near_node_id=near)
            for step in follow_endpoints(client, request):
                print_step(options.output, step)
            return
        listed = client.call(
            LIST_ENDPOINTS,
            ListEndpointsRequest(read=options.read(), namespace=namespace, workload=name, near_node_id=near),
        )
    show_list(
        options, ENDPOINTS, listed.endpoints,
        empty=f"no task of {name} is ready: `cloudless workload explain {name}` says why",
    )  # fmt: skip


@workload.command("logs", cls=Command)
@click.argument("name")
@log_options
def logs(name: str, **wanted: Any) -> None:
    """Print the output of workload NAME's tasks, each line after its task's id; --follow goes on through updates."""
    from cloudless.cli.logs import print_logs

    options = current()
    namespace, name = options.target(name)
    with options.client() as client:
        print_logs(client, build_request(namespace=namespace, workload=name, **wanted))


@workload.command("exec", cls=Command)
@click.argument("name")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND…")
@click.option("--stdin", "-i", is_flag=True, help="Give it our input.")
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal.")
@click.option("--slot", type=click.IntRange(min=0), help="Beside the task of this slot. Default: the lowest that runs.")
def exec_(name: str, command: tuple[str, ...], stdin: bool, tty: bool, slot: int | None) -> None:
    """Run COMMAND beside a running task of workload NAME, and end with its exit code."""
    from cloudless.cli.exec import find_running, run_command

    options = current()
    namespace, name = options.target(name)
    with options.client() as client:
        task_id = find_running(client, namespace, name, slot)
        code = run_command(client, task_id, command, stdin=stdin, terminal=tty)
    click.get_current_context().exit(code)


def _write(request_id: str, if_revision: int) -> WriteOptions:
    from cloudless.rpc.v1.common_pb2 import WriteOptions

    return WriteOptions(request_id=request_id, if_revision=if_revision)
