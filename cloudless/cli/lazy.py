"""Command groups whose commands are imported when they are used.

A group lists its commands as `name -> (module:attribute, one line of help)`; listing them costs no import.
Aliases are other words for the same command; they work everywhere and are shown nowhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

ALIASES: Mapping[str, str] = {"ls": "list", "show": "get", "rm": "delete", "desc": "describe"}
"""Words that people bring along from other tools; a command of that very name comes first."""

_LINE_OF_HELP = 140
"""Enough for the first sentence of any command: a listing that breaks off in the middle says nothing."""


class LazyGroup(click.Group):
    """A click group with commands that are imported on use, and with aliases."""

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]] | None = None,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})
        self._aliases = {**ALIASES, **(aliases or {})}

    def list_commands(self, ctx: click.Context) -> list[str]:
        # In the order they were listed: what belongs together stands together.
        return [*self._lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name if self._has(cmd_name) else self._aliases.get(cmd_name, cmd_name)
        if name not in self._lazy:
            return self.commands.get(name)
        module, _, attribute = self._lazy[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            ctx.fail(f"no such command: {name}{self._suggestion(name)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in self._lazy.items()]
        rows += [(name, command.get_short_help_str(_LINE_OF_HELP)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _has(self, name: str) -> bool:
        return name in self._lazy or name in self.commands

    def _suggestion(self, name: str) -> str:
        import difflib

        near = difflib.get_close_matches(name, [*self._lazy, *self.commands], n=1)
        return f"; did you mean {near[0]}?" if near else ""
