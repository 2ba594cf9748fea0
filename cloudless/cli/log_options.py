"""The options that say which output is wanted, for every command that prints some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.spans import Span

if TYPE_CHECKING:
    from cloudless.rpc.v1.workload_pb2 import ReadLogsRequest


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --follow, --tail, --since and --timestamps."""
    for option in (
        click.option("--timestamps", is_flag=True, help="Begin each line with when it was written (UTC)."),
        click.option("--since", type=Span(), metavar="SPAN", help="Only of the last 90s, 30m, 24h or 7d."),
        click.option("--tail", type=click.IntRange(min=-1), metavar="LINES", help="Last lines per task; -1: all kept. "
                     "Default: 100, with --since all."),
        click.option("--follow", "-f", is_flag=True, help="Go on as it grows."),
    ):  # fmt: skip
        command = option(command)
    return command


def build_request(
    *, follow: bool, tail: int | None, since: int | None, timestamps: bool, **whose: str
) -> ReadLogsRequest:
    """Return the request for the output of `whose` (fields of the request)."""
    from cloudless.rpc.v1.workload_pb2 import ReadLogsRequest

    # 0 means on the wire that nobody has said how many.
    lines = 0 if tail is None else tail or 1
    request = ReadLogsRequest(tail_lines=lines, follow=follow, since_s=since or 0, timestamps=timestamps)
    for name, value in whose.items():
        setattr(request, name, value)
    return request
