"""`node …`: the machines that run tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.cli.client import Client
    from cloudless.rpc.v1.node_pb2 import Node


@click.group(cls=LazyGroup)
def node() -> None:
    """The machines that run tasks."""


@node.command("list", cls=Command)
@click.option(
    "--selector", "-l", multiple=True, metavar="KEY=VALUE,…", help="id, zone, region, type, phase or a label."
)
def list_nodes(selector: tuple[str, ...]) -> None:
    """List nodes; CPU and MEM are reserved/capacity."""
    from cloudless.cli.methods import LIST_NODES
    from cloudless.cli.output import show_list
    from cloudless.cli.paging import pages
    from cloudless.cli.selectors import parse_selector
    from cloudless.cli.views import NODES
    from cloudless.rpc.v1.node_pb2 import ListNodesRequest

    options = current()
    request = ListNodesRequest(read=options.read(), selector=parse_selector(selector))
    with options.client() as client:
        nodes = [found for page in pages(client, LIST_NODES, request) for found in page.nodes]
    show_list(options, NODES, nodes, empty="no nodes: start an agent (`cloudless agent run`)")


@node.command("get", cls=Command)
@click.argument("node_id")
def get(node_id: str) -> None:
    """Show NODE_ID in one line."""
    from cloudless.cli.output import show_list, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import NODES

    options = current()
    with options.client() as client:
        found = _get(client, node_id)
    if options.output in ("json", "yaml"):
        show_plain(options, to_plain(found))
    else:
        show_list(options, NODES, [found])


@node.command("top", cls=Command)
@click.argument("node_ids", nargs=-1)
def top(node_ids: tuple[str, ...]) -> None:
    """Show what NODE_IDS (all nodes without) use now, of what they have."""
    from cloudless.cli.methods import LIST_NODES, READ_NODE_USAGE
    from cloudless.cli.paging import pages
    from cloudless.cli.usage import NODE_TOP, NodeTop, show_tops
    from cloudless.core.model import Resources
    from cloudless.rpc.codec import from_message
    from cloudless.rpc.v1.node_pb2 import ListNodesRequest
    from cloudless.rpc.v1.usage_pb2 import ReadNodeUsageRequest

    options = current()
    with options.client() as client:
        listed = pages(client, LIST_NODES, ListNodesRequest(read=options.read()))
        capacity = {found.id: from_message(found.info.capacity, Resources) for page in listed for found in page.nodes}
        answer = client.call(READ_NODE_USAGE, ReadNodeUsageRequest(read=options.read(), node_ids=node_ids))
    tops = [NodeTop(used, capacity.get(used.node_id, Resources())) for used in answer.nodes]
    tops.sort(key=lambda top: -top.used.usage.cpu_millicores)
    show_tops(options, NODE_TOP, tops, answer.silent_node_ids, "no node has answered")


@node.command("describe", cls=Command)
@click.argument("node_id")
def describe(node_id: str) -> None:
    """Show all about NODE_ID: capacity, reservations, labels, tasks, recent events."""
    from cloudless.cli.methods import LIST_EVENTS, LIST_TASKS
    from cloudless.cli.output import show_list, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import EVENTS, TASKS
    from cloudless.rpc.v1.event_pb2 import ListEventsRequest
    from cloudless.rpc.v1.workload_pb2 import ListTasksRequest

    options = current()
    with options.client() as client:
        found = _get(client, node_id)
        tasks = client.call(LIST_TASKS, ListTasksRequest(read=options.read(), node_id=node_id)).tasks
        events = client.call(
            LIST_EVENTS, ListEventsRequest(read=options.read(), subject=f"node/{node_id}", limit=10)
        ).events
    if options.output in ("json", "yaml"):
        return show_plain(
            options,
            {"node": to_plain(found), "tasks": [to_plain(t) for t in tasks], "events": [to_plain(e) for e in events]},
        )
    _show_facts(found)
    click.echo("\nTasks")
    show_list(options, TASKS, tasks, empty="none")
    click.echo("\nEvents")
    show_list(options, EVENTS, events, empty="none")


def _show_facts(found: Node) -> None:
    from cloudless.cli.ages import format_age, format_span
    from cloudless.cli.output import show_fields
    from cloudless.cli.views import format_labels, format_resources, format_taint, now_ms

    info, heard_s = found.info, found.last_heard_s
    show_fields(
        current(),
        [
            ("node", found.id),
            ("phase", found.phase),
            ("reason", found.status.reason),
            ("since", format_age(found.status.since_ms, now_ms())),
            ("reliability", f"{found.status.reliability:.0%}" if found.status.HasField("reliability") else "100%"),
            ("heard", f"{format_span(heard_s)} ago" if heard_s >= 0 else "not by the coordinator asked"),
            ("place", f"region {info.region or '-'}, zone {info.zone or '-'}, type {info.type or '-'}"),
            ("capacity", format_resources(info.capacity)),
            ("reserved", format_resources(found.reserved)),
            ("free", format_resources(found.free)),
            ("executors", ", ".join(info.executors)),
            ("can", ", ".join(info.capabilities) or "-"),
            *((f"cannot {ability}", why) for ability, why in sorted(info.unable.items())),
            ("labels", format_labels({**info.labels, **found.spec.labels})),
            ("taints", ", ".join(format_taint(taint) for taint in found.spec.taints)),
            ("address", info.address),
            ("version", info.version),
            ("enrolled", f"{format_age(info.enrolled_at_ms, now_ms())} ago"),
        ],
    )


def _write_options(command: Any) -> Any:
    command = click.option("--if-revision", default=0, metavar="N", help="Only if the node is still at revision N.")(
        command
    )
    return click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")(command)


@node.command("cordon", cls=Command)
@click.argument("node_ids", nargs=-1, required=True)
@_write_options
def cordon(node_ids: tuple[str, ...], if_revision: int, request_id: str) -> None:
    """Give NODE_IDS no new tasks; those they have go on."""
    _update_all(node_ids, if_revision, request_id, "cordoned", cordoned=True)


@node.command("uncordon", cls=Command)
@click.argument("node_ids", nargs=-1, required=True)
@_write_options
def uncordon(node_ids: tuple[str, ...], if_revision: int, request_id: str) -> None:
    """Let NODE_IDS take tasks again; ends a drain too."""
    _update_all(node_ids, if_revision, request_id, "uncordoned", cordoned=False, draining=False)


@node.command("drain", cls=Command)
@click.argument("node_ids", nargs=-1, required=True)
@click.option("--deadline", default="", metavar="DURATION", help="Stop what is left after 10m, say, come what may.")
@click.option("--wait", is_flag=True, help="Wait until they hold no task any more.")
@click.option("--wait-timeout", default=300.0, show_default=True, metavar="SECONDS", help="For --wait.")
@_write_options
def drain(
    node_ids: tuple[str, ...], deadline: str, wait: bool, wait_timeout: float, if_revision: int, request_id: str
) -> None:
    """Move all tasks away from NODE_IDS and give them no new ones. `uncordon` ends it.

    A task's replacement runs before it is stopped; without room for one, it is stopped as far as enough stay available.
    """
    deadline_s = _parse_deadline(deadline)
    _update_all(node_ids, if_revision, request_id, "draining", draining=True, drain_deadline_s=deadline_s)
    if wait:
        for node_id in node_ids:
            _wait_drained(node_id, wait_timeout)
            click.echo(f"node/{node_id} drained")


def _parse_deadline(text: str) -> float:
    from cloudless.core.quantity import parse_duration_s

    try:
        return parse_duration_s(text) if text else 0.0
    except ValueError as error:
        raise click.UsageError(f"--deadline {error}") from error


@node.command("remove", cls=Command)
@click.argument("node_ids", nargs=-1, required=True)
@_write_options
def remove(node_ids: tuple[str, ...], if_revision: int, request_id: str) -> None:
    """Forget NODE_IDS, whose agents have stopped and will not come back; what ran there is replaced."""
    from cloudless.cli.methods import REMOVE_NODE
    from cloudless.rpc.v1.common_pb2 import WriteOptions
    from cloudless.rpc.v1.node_pb2 import RemoveNodeRequest

    _refuse_for_many(node_ids, if_revision, request_id)
    with current().client() as client:
        for node_id in node_ids:
            write = WriteOptions(request_id=request_id, if_revision=if_revision)
            client.call(REMOVE_NODE, RemoveNodeRequest(options=write, node_id=node_id))
            click.echo(f"node/{node_id} removed")


@node.command("label", cls=Command)
@click.argument("node_id")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-…")
@_write_options
def label(node_id: str, changes: tuple[str, ...], if_revision: int, request_id: str) -> None:
    """Set (KEY=VALUE) or remove (KEY-) labels of NODE_ID."""
    from cloudless.cli.selectors import parse_label_changes

    to_set, to_remove = parse_label_changes(changes)
    _update_all((node_id,), if_revision, request_id, "labelled", set_labels=to_set, remove_labels=to_remove)


@node.command("taint", cls=Command)
@click.argument("node_id")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE:EFFECT|KEY:EFFECT-|KEY-…")
@_write_options
def taint(node_id: str, changes: tuple[str, ...], if_revision: int, request_id: str) -> None:
    """Put taints on NODE_ID (KEY=VALUE:EFFECT, KEY:EFFECT) or take them off (KEY:EFFECT-, or KEY- for all of a key).

    EFFECT is NO_SCHEDULE, PREFER_NO_SCHEDULE or NO_EXECUTE; the last makes tasks that do not tolerate it leave.
    """
    from cloudless.cli.selectors import parse_taint_changes

    to_set, to_remove = parse_taint_changes(changes)
    _update_all((node_id,), if_revision, request_id, "tainted", set_taints=to_set, remove_taints=to_remove)


def _update_all(node_ids: tuple[str, ...], if_revision: int, request_id: str, done: str, **changes: Any) -> None:
    from cloudless.cli.methods import UPDATE_NODE
    from cloudless.rpc.v1.common_pb2 import WriteOptions
    from cloudless.rpc.v1.node_pb2 import UpdateNodeRequest

    _refuse_for_many(node_ids, if_revision, request_id)
    with current().client() as client:
        for node_id in node_ids:
            write = WriteOptions(request_id=request_id, if_revision=if_revision)
            answer = client.call(UPDATE_NODE, UpdateNodeRequest(options=write, node_id=node_id, **changes))
            click.echo(f"node/{node_id} {done} (phase {answer.node.phase})")


def _refuse_for_many(node_ids: tuple[str, ...], if_revision: int, request_id: str) -> None:
    if len(node_ids) > 1 and (if_revision or request_id):
        raise click.UsageError("--if-revision and --request-id are for one node")


def _get(client: Client, node_id: str) -> Node:
    from cloudless.cli.methods import GET_NODE
    from cloudless.rpc.v1.node_pb2 import GetNodeRequest

    return client.call(GET_NODE, GetNodeRequest(read=current().read(), node_id=node_id)).node


def _wait_drained(node_id: str, timeout_s: float) -> None:
    from cloudless.cli.waiting import wait_for

    with current().client() as client:

        def look() -> tuple[bool, None, str]:
            found = _get(client, node_id)
            return not found.tasks_live, None, f"{node_id} still holds {found.tasks_live} task(s)"

        wait_for(look, timeout_s, f"drained: {node_id}")
