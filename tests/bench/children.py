"""Helper processes of a benchmark: Python modules that talk in lines and end when their standard input does.

A measured part runs in a process of its own so that it does not share a loop, or an interpreter's lock, with the
load. None is left behind: closing the pipe is enough, whoever dies first.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.architecture.tree import ROOT

PROFILED = ROOT / "tests/bench/profiled.py"
UNTOLD = ROOT / "tests/bench/untold.py"
_END_S = 20.0
_LINE_BYTES_MAX = 16 << 20


class Child:
    """A running helper. It is asked and answers in lines."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read_line(self, timeout_s: float = 120.0) -> str:
        """Return its next line. Raises RuntimeError if it has ended instead."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        if not line:
            raise RuntimeError(f"helper {self.pid} ended before it answered; its errors are above")
        return line.decode().rstrip("\n")

    async def read_json(self, timeout_s: float = 120.0) -> Any:
        return json.loads(await self.read_line(timeout_s))

    async def ask(self, line: str, timeout_s: float = 120.0) -> Any:
        """Send a line and return the JSON of the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()
        return await self.read_json(timeout_s)

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start_module(stack: AsyncExitStack, module: str, *arguments: str, profile_to: Path | None = None) -> Child:
    """Start `python -m MODULE` and end it with the stack; profiled if there is a file to write that to."""
    how = [str(PROFILED), str(profile_to), "now"] if profile_to else ["-m"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *how, module, *arguments,
        stdin=PIPE, stdout=PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, limit=_LINE_BYTES_MAX,
    )  # fmt: skip
    child = Child(process)
    stack.push_async_callback(child.end)
    return child


async def read_requests() -> AsyncIterator[str]:
    """In a helper: yield the lines of standard input until it ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.rstrip("\n")


def answer(value: object) -> None:
    """In a helper: answer with one line of JSON."""
    print(json.dumps(value), flush=True)
