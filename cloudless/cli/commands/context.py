"""`context …`: the clusters this person knows, and which one commands are for."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cloudless.cli.contexts import Context, Contexts, contexts_file, read_contexts, write_contexts
from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current


@click.group(cls=LazyGroup)
def context() -> None:
    """The clusters you know: where their coordinators are, and what proves who you are."""


@context.command("list", cls=Command)
def list_contexts() -> None:
    """Show all contexts; the current one is marked."""
    from cloudless.cli.output import Column, Listing, show_list

    contexts = _read()
    listing: Listing[tuple[str, Context]] = Listing(
        kind="context",
        name=lambda entry: entry[0],
        columns=(
            Column("CURRENT", lambda entry: "*" if entry[0] == contexts.current else ""),
            Column("NAME", lambda entry: entry[0]),
            Column("COORDINATORS", lambda entry: ",".join(entry[1].coordinators)),
            Column("IDENTITY", lambda entry: str(entry[1].identity or "none: plain connections")),
        ),
        plain=lambda entry: {
            "name": entry[0],
            "current": entry[0] == contexts.current,
            "coordinators": list(entry[1].coordinators),
            "identity": str(entry[1].identity or ""),
        },
    )
    show_list(current(), listing, sorted(contexts.known.items()), "no contexts: see cloudless context set")


@context.command("use", cls=Command)
@click.argument("name")
def use(name: str) -> None:
    """Make NAME the context that commands are for."""
    _write(_read().using(name))
    click.echo(f"commands are for {name} now")


@context.command("set", cls=Command)
@click.argument("name")
@click.option("--at", "addresses", required=True, metavar="HOST:PORT,…", help="Coordinators; any of them answers.")
@click.option(
    "--identity", type=click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True),
    help="Directory of your key and certificate. Without it connections are plain.",
)  # fmt: skip
@click.option("--use/--no-use", default=True, show_default=True, help="Make it the current one.")
def set_context(name: str, addresses: str, identity: Path | None, use: bool) -> None:
    """Add context NAME, or change it."""
    coordinators = tuple(part.strip() for part in addresses.split(",") if part.strip())
    _write(_read().with_context(name, Context(coordinators, identity), use=use))
    click.echo(f"context {name}: {', '.join(coordinators)}")


@context.command("delete", cls=Command)
@click.argument("name")
def delete(name: str) -> None:
    """Forget context NAME. Its identity's files stay."""
    _write(_read().without(name))
    click.echo(f"context {name} forgotten")


def _read() -> Contexts:
    return read_contexts(contexts_file(os.environ))


def _write(contexts: Contexts) -> None:
    write_contexts(contexts_file(os.environ), contexts)
