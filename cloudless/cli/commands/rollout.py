"""`workload rollout …`, `workload history`, `workload diff`: how a workload changes, and what it was before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.workload_pb2 import GetRolloutResponse, Revision

_WAIT_S = 120.0


@click.group(cls=LazyGroup)
def rollout() -> None:
    """How a workload's newest change is doing: look, pause, resume, promote, undo."""


@rollout.command("status", cls=Command)
@click.argument("name")
@click.option("--wait", is_flag=True, help="Wait for its end; exit code 10 if it fails or is rolled back.")
@click.option("--wait-timeout", default=_WAIT_S, show_default=True, metavar="SECONDS", help="For --wait.")
def status(name: str, wait: bool, wait_timeout: float) -> None:
    """Say how the newest change of workload NAME is doing."""
    from cloudless.cli.methods import GET_ROLLOUT
    from cloudless.cli.output import show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.cli.rollouts import wait_rolled_out
    from cloudless.rpc.v1.workload_pb2 import GetRolloutRequest

    options = current()
    namespace, name = options.target(name)
    with options.client() as client:
        if wait:
            wait_rolled_out(client, namespace, name, wait_timeout)
        answer = client.call(GET_ROLLOUT, GetRolloutRequest(read=options.read(), namespace=namespace, name=name))
    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    _show(f"{namespace}/{name}", answer)


def _show(name: str, answer: GetRolloutResponse) -> None:
    from cloudless.cli.ages import format_age
    from cloudless.cli.rollouts import counts, phase_word
    from cloudless.cli.views import now_ms

    record, notes = answer.workload.record, answer.rollout
    if answer.HasField("rollout"):
        since = format_age(notes.since_ms, now_ms())
        of = f", a rollback of {notes.rollback_of}" if notes.rollback_of else ""
        click.echo(f"{name}: {phase_word(notes)} for {since}, generation {notes.generation}{of}: {notes.reason}")
    elif record.rollout_generation:
        click.echo(f"{name}: generation {record.task_generation} waits for the leader to begin")
    else:
        click.echo(f"{name}: its template never changed")
    click.echo(f"  {counts(answer.workload.summary)}")
    for line in answer.waiting:
        click.echo(f"  {line}")


_REQUEST_ID = click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")


@rollout.command("pause", cls=Command)
@click.argument("name")
@_REQUEST_ID
def pause(name: str, request_id: str) -> None:
    """Begin no more replacements of workload NAME until it is resumed; it keeps all replicas."""
    _order(name, request_id, "PAUSE", "paused")


@rollout.command("resume", cls=Command)
@click.argument("name")
@_REQUEST_ID
def resume(name: str, request_id: str) -> None:
    """Let a paused rollout of workload NAME go on."""
    _order(name, request_id, "RESUME", "goes on")


@rollout.command("promote", cls=Command)
@click.argument("name")
@_REQUEST_ID
def promote(name: str, request_id: str) -> None:
    """Let all tasks of workload NAME follow those that were tried first (CANARY, BLUE_GREEN)."""
    _order(name, request_id, "PROMOTE", "promoted")


@rollout.command("undo", cls=Command)
@click.argument("name")
@click.option("--to", "generation", type=click.IntRange(min=1), metavar="GENERATION", help="See `workload history`.")
@_REQUEST_ID
@click.option("--wait", is_flag=True, help="Wait until it is put back; exit code 10 if that fails.")
@click.option("--wait-timeout", default=_WAIT_S, show_default=True, metavar="SECONDS", help="For --wait.")
def undo(name: str, generation: int | None, request_id: str, wait: bool, wait_timeout: float) -> None:
    """Give workload NAME its earlier template again: the one before, or --to GENERATION."""
    from cloudless.cli.rollouts import wait_rolled_out

    _order(name, request_id, "UNDO", "is put back", generation or 0)
    if wait:
        options = current()
        namespace, name = options.target(name)
        with options.client() as client:
            click.echo(f"workload/{name}: {wait_rolled_out(client, namespace, name, wait_timeout)}", err=True)


def _order(name: str, request_id: str, action: str, done: str, generation: int = 0) -> None:
    from cloudless.cli.methods import UPDATE_ROLLOUT
    from cloudless.rpc.v1.common_pb2 import WriteOptions
    from cloudless.rpc.v1.workload_pb2 import RolloutAction, UpdateRolloutRequest

    options = current()
    namespace, name = options.target(name)
    request = UpdateRolloutRequest(
        options=WriteOptions(request_id=request_id),
        namespace=namespace,
        name=name,
        action=RolloutAction.Value(f"ROLLOUT_ACTION_{action}"),
        to_generation=generation,
    )
    with options.client() as client:
        record = client.call(UPDATE_ROLLOUT, request).workload.record
    click.echo(f"workload/{name} {done} (generation {record.task_generation})")


@click.command("history", cls=Command)
@click.argument("name")
def history(name: str) -> None:
    """List the templates of workload NAME that are kept, newest first."""
    from cloudless.cli.output import show_list, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import REVISIONS

    found = _revisions(name)
    if current().output in ("json", "yaml"):
        return show_plain(current(), [to_plain(revision) for revision in found])
    show_list(current(), REVISIONS, found)


@click.command("diff", cls=Command)
@click.argument("name")
@click.option("--from", "before", type=click.IntRange(min=1), metavar="GENERATION", help="Default: the one before.")
@click.option("--to", "after", type=click.IntRange(min=1), metavar="GENERATION", help="Default: the present one.")
def diff(name: str, before: int | None, after: int | None) -> None:
    """Show what differs between two templates of workload NAME."""
    import difflib

    found = _revisions(name)
    new = _pick(found, after, found[0])
    older = next((revision for revision in found if revision.generation < new.generation), found[-1])
    old = _pick(found, before, older)
    lines = difflib.unified_diff(
        old.manifest.splitlines(),
        new.manifest.splitlines(),
        f"generation {old.generation}",
        f"generation {new.generation}",
        lineterm="",
    )
    for line in lines:
        click.echo(click.style(line, fg={"+": "green", "-": "red"}.get(line[:1])))


def _revisions(name: str) -> list[Revision]:
    from cloudless.cli.methods import LIST_REVISIONS
    from cloudless.rpc.v1.workload_pb2 import ListRevisionsRequest

    options = current()
    namespace, name = options.target(name)
    with options.client() as client:
        request = ListRevisionsRequest(read=options.read(), namespace=namespace, name=name)
        return list(client.call(LIST_REVISIONS, request).revisions)


def _pick(found: list[Revision], generation: int | None, default: Revision) -> Revision:
    from cloudless.errors import NotFound

    if generation is None:
        return default
    for revision in found:
        if revision.generation == generation:
            return revision
    raise NotFound(
        f"no generation {generation} is kept", hint=f"kept are: {', '.join(str(r.generation) for r in found)}"
    )
