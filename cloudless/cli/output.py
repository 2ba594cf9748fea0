"""Print objects in the form asked for: table, wide table, JSON, YAML or names.

A `Listing` says once how a kind of object looks; every command that shows such objects uses it. Tables fit the
terminal (long cells fold); without a terminal nothing is folded or coloured, so that `grep` and `awk` see whole
lines.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from cloudless.cli.options import Options

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
_NO_TERMINAL_WIDTH = 10_000
_FOLDING = frozenset({"MESSAGE", "PORTS", "PEER URL", "DIGEST", "NOTE"})
"""Columns of long text: they give way when a terminal is narrow, the others stay in one piece."""

_STYLES = {
    "READY": "green", "RUNNING": "green", "ok": "green", "yes": "green", "leader": "bold green", "up": "green",
    "healthy": "green", "standby": "green", "ailing": "yellow", "silent": "yellow", "dead": "red",
    "starting": "yellow", "catching-up": "yellow",
    "degraded": "yellow", "CORDONED": "yellow", "DRAINING": "yellow", "DRAINED": "yellow", "PENDING": "yellow",
    "BACKOFF": "yellow", "STARTING": "yellow", "UNKNOWN": "magenta", "WARNING": "yellow", "learner": "yellow",
    "unavailable": "red", "OFFLINE": "red", "FAILED": "red", "ERROR": "red", "down": "red", "LOST": "red",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column: its heading, the cell for an object, and whether only `-o wide` shows it."""

    heading: str
    cell: Callable[[T], str]
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """How objects of one kind look: `kind/name` for `-o name`, columns for tables, `plain` for JSON and YAML."""

    kind: str
    name: Callable[[T], str]
    columns: Sequence[Column[T]]
    plain: Callable[[T], Any]


def show_list(options: Options, listing: Listing[T], objects: Iterable[T], empty: str = "") -> None:
    """Print objects; `empty` is said on stderr when there are none (never on stdout, where programs read)."""
    chosen = list(objects)
    if options.output == "name":
        click.echo("".join(f"{listing.kind}/{listing.name(item)}\n" for item in chosen), nl=False)
    elif options.output in ("json", "yaml"):
        show_plain(options, [listing.plain(item) for item in chosen])
    elif not chosen:
        click.echo(empty or f"no {listing.kind}s", err=True)
    else:
        columns = [c for c in listing.columns if options.output == "wide" or not c.wide]
        show_table(options, [c.heading for c in columns], [[c.cell(item) for c in columns] for item in chosen])


def show_plain(options: Options, value: Any) -> None:
    """Print a plain value as YAML if asked for, else as JSON."""
    if options.output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120), nl=False)
    else:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(options: Options, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings, without borders."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in _FOLDING)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console = build_console(options, fit=options.output != "wide")
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), color=not console.no_color)


def show_fields(options: Options, fields: Iterable[tuple[str, str]]) -> None:
    """Print `name  value` lines, names aligned; fields without a value are left out."""
    shown = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *rest = value.splitlines()
        style = _STYLES.get(first)
        text = (
            click.style(first, fg=style)
            if style in ("green", "yellow", "red", "magenta") and colored(options)
            else first
        )
        click.echo(f"{name:<{width}}  {text}")
        for line in rest:
            click.echo(f"{'':<{width}}  {line}")


def build_console(options: Options, *, fit: bool = True) -> Console:
    """Return a rich console that obeys `--no-color`, NO_COLOR and the absence of a terminal.

    `fit` False lets lines grow beyond the terminal: who asks for everything gets it.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    plain = not (terminal and colored(options))
    return Console(
        file=sys.stdout, no_color=plain, color_system=None if plain else "auto", highlight=False, markup=False,
        emoji=False, soft_wrap=False, width=None if terminal and fit else _NO_TERMINAL_WIDTH,
    )  # fmt: skip


def colored(options: Options) -> bool:
    """Return whether colours are wanted at all."""
    import os

    return options.color and "NO_COLOR" not in os.environ
