"""Print the output of tasks, line by line, so that lines of several tasks never mix.

A chunk may end inside a line: its rest waits for the next chunk of the same task and stream.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from cloudless.cli.client import Client
from cloudless.cli.methods import READ_LOGS
from cloudless.errors import AgentUnreachable
from cloudless.rpc.v1.workload_pb2 import ReadLogsRequest


class LineBuffer:
    """Cuts the chunks of many tasks into whole lines, marked with their task once there are several."""

    def __init__(self, *, marked: bool) -> None:
        self._marked = marked
        self._rest: dict[tuple[str, str], bytes] = {}

    def feed(self, task_id: str, stream: str, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes."""
        *lines, rest = (self._rest.pop((task_id, stream), b"") + data).split(b"\n")
        if rest:
            self._rest[task_id, stream] = rest
        yield from (self._mark(task_id) + line + b"\n" for line in lines)

    def flush(self) -> Iterator[bytes]:
        """Yield what was never ended by a newline."""
        for (task_id, _), rest in self._rest.items():
            yield self._mark(task_id) + rest + b"\n"
        self._rest.clear()

    def _mark(self, task_id: str) -> bytes:
        return f"[{task_id}] ".encode() if self._marked else b""


def print_logs(client: Client, request: ReadLogsRequest) -> None:
    """Print until the end, or until interrupted when following. Raises AgentUnreachable if logs were missing."""
    buffer, missing, silent = LineBuffer(marked=not request.task_id), [], True
    out = sys.stdout.buffer
    for chunk in client.stream(READ_LOGS, request):
        if chunk.stream == "error":
            missing.append(chunk.task_id)
            text = chunk.data.decode(errors="replace")
            click.echo(text if f"task {chunk.task_id}" in text else f"{chunk.task_id}: {text}", err=True)
            continue
        silent = False
        out.writelines(buffer.feed(chunk.task_id, chunk.stream, chunk.data))
        out.flush()
    out.writelines(buffer.flush())
    out.flush()
    if missing:
        raise AgentUnreachable(f"the logs of {len(missing)} task(s) cannot be had now: {', '.join(missing)}")
    if silent:
        click.echo("no output" if request.task_id else f"no task of {request.workload} has output", err=True)
