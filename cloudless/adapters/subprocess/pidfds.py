"""Hold on to processes by pidfds, opened only if the process is still the very one that was written down."""

from __future__ import annotations

import asyncio
import os
import signal

from cloudless.adapters.subprocess.attempt import State


def open_shim(state: State) -> int | None:
    """Return a pidfd of the shim, or None if it is gone."""
    try:
        pidfd = os.pidfd_open(state.shim_pid)
    except ProcessLookupError:
        return None
    # Only now is the pid pinned: look again whether it is still the same process.
    if state.lives():
        return pidfd
    os.close(pidfd)
    return None


def open_command(state: State) -> int | None:
    """Return a pidfd of the command, or None if it is gone."""
    try:
        pidfd = os.pidfd_open(state.pid)
    except ProcessLookupError:
        return None
    if state.command_lives():
        return pidfd
    os.close(pidfd)
    return None


def send(state: State, number: signal.Signals) -> bool:
    """Signal the shim; return False if it is gone."""
    pidfd = open_shim(state)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


async def until_readable(*handles: int, timeout_s: float | None = None) -> None:
    """Return when one of the handles can be read (of a pidfd: its process has ended), or after the time."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    for handle in handles:
        loop.add_reader(handle, ended.cancel)
    try:
        await asyncio.wait({ended}, timeout=timeout_s)
    finally:
        for handle in handles:
            loop.remove_reader(handle)
