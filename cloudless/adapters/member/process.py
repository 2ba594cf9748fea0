"""Hold one etcd process, whether it is our child or was adopted: signal it, learn of its end.

Both go through a pidfd: it becomes readable when the process ends, child or not, and a signal sent through it
cannot hit another process that was given the same pid. The exit code is known for children only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

from cloudless.adapters.member.pidfile import Identity, find_orphan

_KEPT_VARIABLES = ("PATH", "TZ", "LANG")
ORPHAN_GRACE_S = 5.0


class EtcdProcess:
    """A running etcd. Create it inside the event loop, by `spawn` or `adopt`; call `close` when done with it."""

    def __init__(self, pid: int, pidfd: int, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.adopted = child is None
        self.started_at_s = time.monotonic()
        self._child = child
        self._pidfd = pidfd
        self._open = True
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._on_end)

    @classmethod
    def spawn(cls, argv: list[str], environment: dict[str, str], log_file: Path) -> EtcdProcess:
        """Start `argv` in a session of its own, so that Ctrl-C at the coordinator's terminal does not reach it.

        Output goes to `log_file`, appended. Nothing ties it to this process: it outlives a killed coordinator.
        """
        with log_file.open("ab") as log:
            child = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, close_fds=True, cwd="/",
            )  # fmt: skip
        return cls(child.pid, os.pidfd_open(child.pid), child)

    @classmethod
    def adopt(cls, identity: Identity) -> EtcdProcess | None:
        """Take over a process of an earlier coordinator; None if it has ended meanwhile."""
        try:
            pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        # Only now is the pid pinned: look again whether it is still the same process.
        if not identity.lives():
            os.close(pidfd)
            return None
        return cls(identity.pid, pidfd, None)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def ran_s(self) -> float:
        """Return the seconds since it was started or adopted."""
        return time.monotonic() - self.started_at_s

    @property
    def exit_text(self) -> str:
        """Return how it ended, in words; the exit code of an adopted process is not to be had."""
        code = self._child.returncode if self._child else None
        if code is None:
            return "ended, exit code unknown (adopted)" if self.adopted else "running"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def wait_end(self) -> None:
        await self._ended.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self._open and not self.ended:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    async def end(self, grace_s: float) -> None:
        """Ask it to stop, kill it after `grace_s`, and return when it has ended.

        A stopped (SIGSTOP) process cannot answer the request; the kill reaches it all the same.
        """
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait_end()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait_end()

    def close(self) -> None:
        """Let go of it without ending it."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if self._child:
            self._child.wait()
        self._ended.set()


async def end_orphan(pidfile: Path, data_dir: str, grace_s: float = ORPHAN_GRACE_S) -> bool:
    """End the etcd that an earlier coordinator left running on this directory; return whether there was one.

    The caller holds the directory's lock.
    """
    orphan = find_orphan(pidfile, data_dir)
    process = EtcdProcess.adopt(orphan) if orphan else None
    if process is None:
        return False
    try:
        await process.end(grace_s)
    finally:
        process.close()
    pidfile.unlink(missing_ok=True)
    return True


def build_environment(memory_limit_bytes: int) -> dict[str, str]:
    """Return the environment for etcd: no secret, no proxy, no ETCD_* of ours, and a soft limit for its memory.

    etcd reads every ETCD_* variable as a flag. The limit makes Go collect earlier; it never fails an allocation.
    """
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "GOMEMLIMIT": f"{memory_limit_bytes // 1024**2}MiB"}
