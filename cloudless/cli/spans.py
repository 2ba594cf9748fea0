"""Time spans as people type them: `90`, `90s`, `30m`, `24h`, `7d`."""

from __future__ import annotations

import re

import click

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Span(click.ParamType):
    """A number of whole seconds, with a unit if wanted."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,9})([smhd]?)", str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is no span of time: write 90s, 30m, 24h or 7d", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]
