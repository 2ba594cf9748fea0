"""Run a command beside a task from a terminal, or from a script: streams both ways, and its exit code.

With a terminal ours is raw for as long as the command runs: every key goes there, Ctrl-C too, and a change of our
window's size as well. Input is read only once the command has begun, so that nothing typed is lost to a coordinator
that could not be reached.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from cloudless.cli.client import Client
from cloudless.cli.methods import EXEC_TASK, LIST_TASKS
from cloudless.cli.paging import pages
from cloudless.errors import NotFound, Unavailable
from cloudless.rpc.v1.exec_pb2 import ExecStart, ExecTaskRequest, TerminalSize
from cloudless.rpc.v1.workload_pb2 import ListTasksRequest

INPUT_BYTES = 32 * 1024
WAITING_MAX = 16


class _Requests:
    """What is sent to one coordinator: the start, then what is put in. Ends with None."""

    def __init__(self, start: ExecStart) -> None:
        self._waiting: queue.Queue[ExecTaskRequest | None] = queue.Queue(WAITING_MAX)
        self._start = start

    def __iter__(self) -> Iterator[ExecTaskRequest]:
        yield ExecTaskRequest(start=self._start)
        while (request := self._waiting.get()) is not None:
            yield request

    def put(self, request: ExecTaskRequest) -> None:
        self._waiting.put(request)

    def put_soon(self, request: ExecTaskRequest | None) -> None:
        """Put without waiting, from a signal handler or at the end; what finds no room is dropped."""
        with suppress(queue.Full):
            self._waiting.put_nowait(request)

    def end(self) -> None:
        while True:
            with suppress(queue.Empty):
                self._waiting.get_nowait()
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                continue


def find_running(client: Client, namespace: str, workload: str, slot: int | None) -> str:
    """Return the id of a running task of the workload: of `slot`, else of the lowest. Raises NotFound."""
    request = ListTasksRequest(namespace=namespace, workload=workload)
    running = [
        (task.desired.slot, task.desired.id)
        for page in pages(client, LIST_TASKS, request)
        for task in page.tasks
        if task.state == "RUNNING" and slot in (None, task.desired.slot)
    ]
    if not running:
        where = "" if slot is None else f" in slot {slot}"
        raise NotFound(f"no task of {namespace}/{workload} runs{where}", hint="see cloudless workload explain")
    return min(running)[1]


def run_command(client: Client, task_id: str, command: Sequence[str], *, stdin: bool, terminal: bool) -> int:
    """Run it and return its exit code. Raises Unavailable if the connection breaks before it ends."""
    start = ExecStart(task_id=task_id, command=command, stdin=stdin)
    if terminal:
        start.terminal.CopyFrom(_own_size())
    opened: list[_Requests] = []

    def open_requests() -> Iterator[ExecTaskRequest]:
        for earlier in opened:
            earlier.end()
        opened.append(_Requests(start))
        return iter(opened[-1])

    try:
        return _follow(client.duplex(EXEC_TASK, open_requests), opened, stdin=stdin, terminal=terminal)
    finally:
        for requests in opened:
            requests.end()


def _follow(answers: Iterator[Any], opened: list[_Requests], *, stdin: bool, terminal: bool) -> int:
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    first = next(answers)
    if first.WhichOneof("body") != "started":
        raise Unavailable("the command's beginning was not told")
    with _own_terminal(opened[-1], raw=terminal and stdin, resizes=terminal):
        if stdin:
            threading.Thread(target=_read_input, args=(opened[-1],), name="exec-input", daemon=True).start()
        for answer in answers:
            match answer.WhichOneof("body"):
                case "output":
                    stream = streams.get(answer.output.stream, sys.stdout.buffer)
                    stream.write(answer.output.data)
                    stream.flush()
                case "exit_code":
                    return int(answer.exit_code)
    raise Unavailable("the connection ended before the command did", hint="it was ended, too")


def _read_input(requests: _Requests) -> None:
    handle = sys.stdin.fileno()
    while True:
        try:
            data = os.read(handle, INPUT_BYTES)
        except OSError:
            data = b""
        if not data:
            requests.put(ExecTaskRequest(end_of_input=True))
            return
        requests.put(ExecTaskRequest(input=data))


@contextmanager
def _own_terminal(requests: _Requests, *, raw: bool, resizes: bool) -> Iterator[None]:
    """Make our terminal raw, tell of its size, and put it back as it was."""
    handle = sys.stdin.fileno()
    raw = raw and os.isatty(handle)
    before: list[Any] = termios.tcgetattr(handle) if raw else []
    before_signal: Any = None
    if resizes:
        before_signal = signal.signal(
            signal.SIGWINCH, lambda number, frame: requests.put_soon(ExecTaskRequest(resize=_own_size()))
        )
    try:
        if raw:
            tty.setraw(handle)
        yield
    finally:
        if raw:
            termios.tcsetattr(handle, termios.TCSADRAIN, before)
        if resizes:
            signal.signal(signal.SIGWINCH, before_signal)


def _own_size() -> TerminalSize:
    size = shutil.get_terminal_size()
    return TerminalSize(columns=size.columns, rows=size.lines)
