"""Print the output of tasks, line by line, so that lines of several tasks never mix; each with its time if wanted.

A chunk may end inside a line: its rest waits for the next chunk of the same task and stream.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from cloudless.cli.client import Client
from cloudless.cli.methods import READ_LOGS
from cloudless.errors import AgentUnreachable
from cloudless.rpc.v1.workload_pb2 import ReadLogsRequest


class LineBuffer:
    """Cuts the chunks of many tasks into whole lines, marked with their task once there are several."""

    def __init__(self, *, marked: bool, timed: bool = False) -> None:
        self._marked, self._timed = marked, timed
        # The part of a line that has come, and when its beginning was written.
        self._rest: dict[tuple[str, str], tuple[bytes, int]] = {}

    def feed(self, task_id: str, stream: str, data: bytes, at_ms: int = 0) -> Iterator[bytes]:
        """Yield the lines that `data` completes."""
        begun, begun_ms = self._rest.pop((task_id, stream), (b"", at_ms))
        first, *others = data.split(b"\n")
        lines = [(begun + first, begun_ms), *((line, at_ms) for line in others)]
        rest, rest_ms = lines.pop()
        if rest:
            self._rest[task_id, stream] = rest, rest_ms
        yield from (self._mark(task_id, line_ms) + line + b"\n" for line, line_ms in lines)

    def flush(self) -> Iterator[bytes]:
        """Yield what was never ended by a newline."""
        for (task_id, _), (rest, at_ms) in self._rest.items():
            yield self._mark(task_id, at_ms) + rest + b"\n"
        self._rest.clear()

    def _mark(self, task_id: str, at_ms: int) -> bytes:
        time = (_format_time(at_ms) if at_ms else "-") + " " if self._timed else ""
        return (time + (f"[{task_id}] " if self._marked else "")).encode()


def _format_time(at_ms: int) -> str:
    """Return the time in UTC, to a tenth of a second: the nodes tell no more exactly."""
    moment = datetime.fromtimestamp(at_ms / 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 100_000}Z"


def print_logs(client: Client, request: ReadLogsRequest) -> None:
    """Print until the end, or until interrupted when following. Raises AgentUnreachable if logs were missing."""
    buffer, missing, silent = LineBuffer(marked=not request.task_id, timed=request.timestamps), [], True
    out = sys.stdout.buffer
    for chunk in client.stream(READ_LOGS, request):
        if chunk.stream == "error":
            missing.append(chunk.task_id)
            text = chunk.data.decode(errors="replace")
            click.echo(text if f"task {chunk.task_id}" in text else f"{chunk.task_id}: {text}", err=True)
            continue
        silent = False
        out.writelines(buffer.feed(chunk.task_id, chunk.stream, chunk.data, chunk.at_ms))
        out.flush()
    out.writelines(buffer.flush())
    out.flush()
    if missing:
        raise AgentUnreachable(f"the logs of {len(missing)} task(s) cannot be had now: {', '.join(missing)}")
    if silent:
        click.echo("no output" if request.task_id else f"no task of {request.workload} has output", err=True)
