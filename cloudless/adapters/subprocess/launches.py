"""The agent's side of the launcher: commands beside running tasks, one at a time or hundreds at once.

Nothing here waits in a thread while a command runs: its end comes as a message, its streams are read as they fill.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger

from cloudless.adapters.subprocess import procfs
from cloudless.errors import ExecutorError, NotFound, Temporary

MARK_VARIABLE = "CLOUDLESS_EXEC"
"""In the environment of each such command: what tells it, and all it starts, from everything else."""
SEND_TIMEOUT_S = 5.0
END_TIMEOUT_S = 5.0
"""A command that is not gone by then (a process in an uninterruptible wait) is left to the launcher."""
FAULT = b"fault:"
"""As in the launcher, which is not imported for it: the agent need not carry what only that needs."""
_SOURCE = Path(__file__).with_name("launcher.py")


class Launch:
    """A command under way. `ended` comes to its exit code, 128 + N after signal N."""

    def __init__(self, name: str, memory: int) -> None:
        self.name, self.memory = name, memory
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Return the exit code once nothing is left of the command. Raises NotFound or Temporary if it never ran."""
        status = await asyncio.shield(self.ended)
        if fault := self._fault():
            raise fault
        return status

    def _fault(self) -> ExecutorError | NotFound | None:
        said = os.pread(self.memory, 512, 0)
        if not said.startswith(FAULT):
            return None
        words = said.removeprefix(FAULT).decode(errors="replace")
        if "has ended" in words:
            return NotFound(words)
        return Temporary(f"the surroundings of the task cannot be entered: {words}")


class Launches:
    """All commands of one agent; `owner` tells its own from those of other agents on this machine."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._launches: dict[str, Launch] = {}
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    def new_mark(self) -> str:
        """Return a value for MARK_VARIABLE that no other command has."""
        return f"{self._owner}-{secrets.token_hex(8)}"

    async def start(self, order: dict[str, Any], streams: list[int]) -> Launch:
        """Start a command; `streams` are one open file (a terminal) or three. Raises Temporary."""
        agent = await self._open()
        name = secrets.token_hex(8)
        memory = os.memfd_create("order", os.MFD_CLOEXEC)
        try:
            os.write(memory, marshal.dumps(order))
            launch = self._launches[name] = Launch(name, memory)
            await self._send(agent, lambda: socket.send_fds(agent, [name.encode()], [memory, *streams]))
        except BaseException:
            self._launches.pop(name, None)
            os.close(memory)
            raise
        return launch

    async def end(self, launch: Launch) -> None:
        """Kill the command and all it started; return once nothing is left."""
        try:
            agent = self._socket
            if not launch.ended.done() and agent is not None:
                await self._send(agent, lambda: agent.send(launch.name.encode()))
                async with asyncio.timeout(END_TIMEOUT_S):
                    await asyncio.shield(launch.ended)
        except (TimeoutError, Temporary):
            logger.warning("a command beside a task does not end: {}", launch.name)
        finally:
            self._launches.pop(launch.name, None)
            os.close(launch.memory)

    def close(self) -> None:
        """End all commands; the launcher sees to that when it finds us gone."""
        self._closed = True
        self._lose("the agent leaves")

    # --- the launcher ---------------------------------------------------------------------------

    async def _open(self) -> socket.socket:
        async with self._opening:
            if self._socket is None:
                self._check_open()
                loop = asyncio.get_running_loop()
                ours = await loop.run_in_executor(None, self._spawn)
                try:
                    self._check_open()
                except Temporary:
                    ours.close()
                    raise
                self._socket = ours
                loop.add_reader(ours, self._read)
            return self._socket

    def _check_open(self) -> None:
        if self._closed:
            raise Temporary("the agent leaves")

    def _spawn(self) -> socket.socket:
        """Start a launcher. What an earlier one left, having been killed, is killed first."""
        procfs.kill_marked(f"{MARK_VARIABLE}={self._owner}-")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SOURCE), str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", env={},
                close_fds=True, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        ours.setblocking(False)
        return ours

    def _read(self) -> None:
        while self._socket is not None:
            try:
                said = self._socket.recv(64)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                self._lose("the process that ran it was killed")
                return
            name, _, status = said.decode().partition(" ")
            launch = self._launches.get(name)
            if launch is not None and not launch.ended.done():
                launch.ended.set_result(int(status))

    def _lose(self, why: str) -> None:
        if self._socket is not None:
            with suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._process is not None:
            # Reaped by whoever looks next: it ends by itself now.
            self._process.poll()
        for launch in list(self._launches.values()):
            if not launch.ended.done():
                launch.ended.set_exception(Temporary(why))
                launch.ended.exception()

    async def _send(self, agent: socket.socket, send: Callable[[], Any]) -> None:
        """Send one message; a launcher that does not read is given up after a while. Raises Temporary."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                while True:
                    try:
                        send()
                        return
                    except BlockingIOError:
                        writable: asyncio.Future[None] = loop.create_future()
                        loop.add_writer(agent, _settle, writable)
                        try:
                            await writable
                        finally:
                            loop.remove_writer(agent)
        except (TimeoutError, OSError) as error:
            raise Temporary(f"commands beside tasks cannot be started now: {error or 'no answer'}") from error


def _settle(possible: asyncio.Future[None]) -> None:
    if not possible.done():
        possible.set_result(None)
