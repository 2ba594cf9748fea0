"""A command beside a container's own, run by the engine inside the container.

The engine's library would hold a thread for as long as a command runs, and hundreds may; so the one long call, whose
connection becomes the command's streams, is made here on an asyncio stream. All others go through `Engine`.

The engine has no call that ends such a command. It is found by a mark in its environment, with all that it started, and
killed from outside; that needs an agent that runs as root on the engine's own machine. Only the container's control
group is looked through, so that hundreds of probes do not each read the environment of every process there is.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import struct
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger

from cloudless.adapters.docker.engine import Engine
from cloudless.adapters.docker.faults import Refused, Unanswered
from cloudless.errors import NotFound
from cloudless.ports import ExecRequest, LogChunk, TerminalSize

MARK_VARIABLE = "CLOUDLESS_EXEC"
CHUNK_BYTES = 32 * 1024
HEAD_BYTES_MAX = 64 * 1024
END_LOOKS_MAX = 100
END_LOOK_S = 0.02
KILL_ROUNDS_MAX = 100
KILL_AGAIN_S = 0.02
END_OF_INPUT = b"\x04"
COMMAND_FAULTS = (126, 127)
_HEADER = struct.Struct(">BxxxL")
_STREAMS = {1: "stdout", 2: "stderr"}
_PROC = Path("/proc")


class DockerExecution:
    """Implements `ports.Execution`. `open` it first; `close` kills what has not ended."""

    def __init__(self, engine: Engine, container: str, request: ExecRequest, command: list[str]) -> None:
        self._engine, self._container, self._request, self._command = engine, container, request, command
        self._mark = f"{MARK_VARIABLE}={secrets.token_hex(16)}"
        self._id = ""
        self._group: tuple[Path, ...] = ()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._code: int | None = None
        self._refusal = b""

    async def open(self) -> None:
        """Create the command and start it. Raises NotFound, Unanswered or Refused."""
        terminal = self._request.terminal
        try:
            self._id, self._group = await self._engine.call(self._create)
        except Refused as refused:
            if refused.status in (404, 409):
                raise NotFound(f"the container of task {self._request.attempt.task_id} does not run") from refused
            raise
        try:
            async with asyncio.timeout(self._engine.limits.call_timeout_s):
                await self._start()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError) as error:
            self._engine.doubt()
            raise Unanswered(f"the Docker engine at {self._engine.host} does not answer") from error
        if terminal is not None:
            await self.resize(terminal)

    async def output(self) -> AsyncGenerator[LogChunk, None]:
        """Yield the output; the engine going away ends it too, and `wait` tells."""
        assert self._reader is not None
        if self._refusal:
            yield LogChunk("stderr", self._refusal + b"\n")
            return
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            if self._request.terminal is not None:
                while data := await self._reader.read(CHUNK_BYTES):
                    yield LogChunk("stdout", data)
                return
            while True:
                number, left = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                while left:
                    data = await self._reader.read(min(left, CHUNK_BYTES))
                    if not data:
                        return
                    left -= len(data)
                    yield LogChunk(_STREAMS.get(number, "stdout"), data)

    async def write(self, data: bytes) -> None:
        assert self._writer is not None
        with suppress(ConnectionError, RuntimeError):
            if data:
                self._writer.write(data)
                await self._writer.drain()
            elif self._request.terminal is not None:
                self._writer.write(END_OF_INPUT)
            elif self._writer.can_write_eof():
                self._writer.write_eof()

    async def resize(self, size: TerminalSize) -> None:
        # Refused: it has ended.
        with suppress(Refused, Unanswered):
            await self._engine.call(lambda client: client.exec_resize(self._id, height=size.rows, width=size.columns))

    async def wait(self) -> int:
        """Return the exit code. Raises Unanswered if the engine has gone away."""
        for _ in range(END_LOOKS_MAX):
            if self._code is not None:
                return self._code
            seen: dict[str, Any] = await self._engine.call(lambda client: client.exec_inspect(self._id))
            if not seen["Running"] and seen["ExitCode"] is not None:
                self._code = int(seen["ExitCode"])
                return self._code
            await asyncio.sleep(END_LOOK_S)
        raise Unanswered(f"the Docker engine at {self._engine.host} does not say how the command ended")

    async def close(self) -> None:
        """Kill the command and all it started, unless it is known to have ended by itself.

        Raises Unanswered if the engine does not answer: then nobody can say whether the command was slow or the engine.
        """
        if self._writer is not None:
            self._writer.close()
        if not self._id:
            return
        for _ in range(KILL_ROUNDS_MAX):
            if not await asyncio.to_thread(_kill_marked, self._mark.encode(), self._group):
                break
            await asyncio.sleep(KILL_AGAIN_S)
        if self._code is None and not await self._engine.probe():
            raise Unanswered(self._engine.fault)
        if self._code is None and os.geteuid() != 0:
            logger.warning("a command in container {} may run on: ending it takes root", self._container)

    def _create(self, client: Any) -> tuple[str, tuple[Path, ...]]:
        """In a thread: have the engine make the command; return its id and what lists the container's processes."""
        made = client.exec_create(
            self._container,
            self._command,
            stdin=self._request.stdin or self._request.terminal is not None,
            tty=self._request.terminal is not None,
            environment=[self._mark],
        )
        pid = int(client.inspect_container(self._container)["State"]["Pid"] or 0)
        return made["Id"], _find_group(pid)

    async def _start(self) -> None:
        """Ask for the start on a connection of its own, which then is the command's streams."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            self._engine.host.removeprefix("unix://"), limit=HEAD_BYTES_MAX
        )
        terminal = self._request.terminal
        start: dict[str, Any] = {"Detach": False, "Tty": terminal is not None}
        if terminal is not None:
            start["ConsoleSize"] = [terminal.rows, terminal.columns]
        body = json.dumps(start).encode()
        self._writer.write(
            b"POST /exec/%s/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n" % (self._id.encode(), len(body)) + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status in (101, 200):
            return
        said = (await self._reader.read(CHUNK_BYTES)).decode(errors="replace")
        words = _read_message(said)
        if status in (404, 409):
            raise NotFound(f"the container of task {self._request.attempt.task_id} does not run")
        # A command that is not there is refused here by some engines, and ends with 127 on others.
        seen = await self._engine.call(lambda client: client.exec_inspect(self._id))
        if seen["ExitCode"] not in COMMAND_FAULTS:
            raise Refused(status, words)
        self._code, self._refusal = int(seen["ExitCode"]), words.encode()


def _read_message(said: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(said[said.index("{") : said.rindex("}") + 1])["message"])
    return said[:512].strip()


def _find_group(pid: int) -> tuple[Path, ...]:
    """Return the files that list the processes of the control group that `pid` is in; none if it cannot be told."""
    found = []
    with suppress(OSError, ValueError):
        for line in (_PROC / str(pid) / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            file = Path(f"/sys/fs/cgroup/{controllers.removeprefix('name=')}{path}/cgroup.procs")
            if path != "/" and file.exists():
                found.append(file)
    return tuple(found)


def _list_processes(group: tuple[Path, ...]) -> list[int]:
    """Return the processes of the group, all there are if it is not known."""
    for file in group:
        with suppress(OSError):
            return [int(word) for word in file.read_text().split()]
    # A group that has gone has no processes.
    return [] if group else [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]


def _kill_marked(mark: bytes, group: tuple[Path, ...]) -> bool:
    """Kill every process of the group that carries `mark`, and all below it; return whether there was one."""
    family: dict[int, list[int]] = {}
    found: list[int] = []
    for pid in _list_processes(group):
        with suppress(OSError):
            fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] in (b"Z", b"X"):
                continue
            family.setdefault(int(fields[1]), []).append(pid)
            if mark in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    doomed = set(found)
    while found:
        below = [pid for pid in family.get(found.pop(), ()) if pid not in doomed]
        doomed.update(below)
        found.extend(below)
    killed = False
    for pid in sorted(doomed):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            killed = True
    return killed
