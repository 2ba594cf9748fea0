"""`login`, `logout`, `whoami`, and `context …`: which cluster, and as whom."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, Options, current
from cloudless.errors import BadCredentials

if TYPE_CHECKING:
    from cloudless.cli.contexts import Book, Context


@click.command(cls=Command)
@click.option(
    "--token", envvar="CLOUDLESS_LOGIN_TOKEN", show_envvar=True, metavar="cl1.…", help="Asked for if not given."
)
@click.option("--name", metavar="NAME", help="Who you are there. Default: your name on this machine.")
@click.option("--as", "context_name", default="default", show_default=True, metavar="CONTEXT", help="What to call it.")
@click.option(
    "--join-address", "join_addresses", multiple=True, metavar="HOST:PORT", help="Where one asks to be let in."
)
@click.option(
    "--coordinator-identity",
    "coordinator_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="On a coordinator's host, `identity` in its data directory: become an admin without a token.",
)
def login(
    token: str | None,
    name: str | None,
    context_name: str,
    join_addresses: tuple[str, ...],
    coordinator_dir: Path | None,
) -> None:
    """Sign in to a cluster with a token for a person, and use it from now on.

    The key is made here and stays here. The cluster is checked against the token before the token is sent.
    """
    from cloudless.cli.contexts import Context, ContextFile, check_name
    from cloudless.cli.signing_in import sign_in

    options = click.get_current_context().ensure_object(Options)  # not what the current context says: this makes one
    context = Context(
        name=check_name(context_name),
        coordinators=options.coordinators,
        join_addresses=join_addresses,
        namespace=options.namespace,
    )
    person = name or _own_name()
    if coordinator_dir is not None:
        token = _token_of_coordinator(context, coordinator_dir, person)
    text = token or click.prompt("token", hide_input=True, err=True)
    made = sign_in(ContextFile(), context, text, person)
    click.echo(f"signed in to cluster {made.cluster_id} as {made.person} (context {made.name})")


def _token_of_coordinator(context: Context, directory: Path, person: str) -> str:
    from cloudless.adapters.pki.identity_dir import IdentityDir
    from cloudless.cli.signing_in import create_first_token

    coordinator = IdentityDir(directory).load()
    if coordinator is None:
        raise BadCredentials(f"there is no identity in {directory}", hint="it is `identity` in the data directory")
    return create_first_token(context, coordinator, person)


def _own_name() -> str:
    raw = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    name = re.sub(r"[^a-z0-9.-]+", "-", raw.lower()).strip("-.")[:63].rstrip("-.")
    if not name:
        raise click.UsageError("say who you are: --name")
    return name


@click.command(cls=Command)
@click.argument("context_name", required=False, metavar="[CONTEXT]")
def logout(context_name: str | None) -> None:
    """Forget CONTEXT (default: the current one) with its key on this machine.

    The identity stays enrolled; to lock it out everywhere: `cloudless identity revoke person NAME`.
    """
    from cloudless.cli.contexts import ContextFile

    file = ContextFile()
    name = context_name or _chosen(file.load())
    file.forget(name)
    click.echo(f"context/{name} forgotten")


@click.command(cls=Command)
def whoami() -> None:
    """Say who the cluster takes you for, and what you may do there."""
    from cloudless.cli.methods import WHO_AM_I
    from cloudless.cli.output import show_fields, show_plain
    from cloudless.cli.plain import enum_word, to_plain
    from cloudless.rpc.v1.identity_pb2 import WhoAmIRequest
    from cloudless.rpc.v1.objects_pb2 import Role

    options = current()
    with options.client() as client:
        answer = client.call(WHO_AM_I, WhoAmIRequest())
    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    role = enum_word(Role.DESCRIPTOR, answer.role).lower()
    show_fields(
        options,
        [
            ("name", answer.name or "nobody known: the cluster runs without TLS"),
            ("role", role),
            ("bound to", ", ".join(answer.namespaces)),
            ("cluster", answer.header.cluster_id),
            ("asked", answer.header.coordinator_id),
        ],
    )


@click.group(cls=LazyGroup)
def context() -> None:
    """The clusters you work with, and which one commands go to."""


@context.command("list", cls=Command)
def list_contexts() -> None:
    """List contexts; `*` marks the current one."""
    from cloudless.cli.contexts import ContextFile
    from cloudless.cli.output import Column, Listing, show_list

    book, options = ContextFile().load(), click.get_current_context().ensure_object(Options)

    def plain(shown: Context) -> dict[str, object]:
        return {
            "name": shown.name, "current": shown.name == book.current, "person": shown.person,
            "clusterId": shown.cluster_id, "namespace": shown.namespace, "coordinators": list(shown.coordinators),
            "joinAddresses": list(shown.join_addresses),
        }  # fmt: skip

    listing: Listing[Context] = Listing(
        kind="context",
        name=lambda c: c.name,
        plain=plain,
        columns=[
            Column("", lambda c: "*" if c.name == book.current else " "),
            Column("NAME", lambda c: c.name),
            Column("PERSON", lambda c: c.person or "-"),
            Column("CLUSTER", lambda c: c.cluster_id or "-"),
            Column("NAMESPACE", lambda c: c.namespace or "-"),
            Column("COORDINATORS", lambda c: ",".join(c.coordinators)),
        ],
    )
    show_list(options, listing, [book.contexts[name] for name in sorted(book.contexts)], empty="no contexts")


@context.command("use", cls=Command)
@click.argument("name")
def use(name: str) -> None:
    """Let commands go to NAME from now on."""
    from cloudless.cli.contexts import ContextFile

    file = ContextFile()
    file.save(file.load().use(name))
    click.echo(f"context/{name} is the current one")


@context.command("delete", cls=Command)
@click.argument("name")
def delete(name: str) -> None:
    """Forget NAME with its key, as `logout` does."""
    from cloudless.cli.contexts import ContextFile

    ContextFile().forget(name)
    click.echo(f"context/{name} forgotten")


def _chosen(book: Book) -> str:
    name = click.get_current_context().ensure_object(Options).context or book.current
    if not name:
        raise click.UsageError("there is no current context: name one")
    return name
