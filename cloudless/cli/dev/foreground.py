"""Stay with a running dev cluster: report deaths and returns, and end it all on Ctrl-C, SIGTERM or `dev down`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cloudless.cli.dev.progress import Progress
from cloudless.cli.dev.table import Table

_POLL_S = 0.2


class Stop(Exception):
    """A signal asked us to end."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Deferred:
    """Whether a signal has to wait, and the one that waits."""

    held = False
    waiting: signal.Signals | None = None


def raise_on_signals() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into Stop, so that whatever runs is left through its `finally`."""
    for number in _SIGNALS:
        signal.signal(number, _raise)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals wait until the block is done: a process started must be recorded before anything else happens.

    Not by blocking them in the kernel: the process started would inherit that and never hear SIGTERM.
    """
    _Deferred.held = True
    try:
        yield
    finally:
        _Deferred.held = False
    if _Deferred.waiting:
        raise Stop(_Deferred.waiting.name)


def ignore_signals() -> None:
    """Ignore further signals while cleaning up: a second Ctrl-C must not leave processes behind."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, _: FrameType | None) -> None:
    if _Deferred.held:
        _Deferred.waiting = signal.Signals(number)
        return
    raise Stop(signal.Signals(number).name)


def stay(table: Table, progress: Progress) -> None:
    """Return when another command has taken the cluster down. Raises Stop on a signal."""
    known = {name: who.pid for name, who in table.living().items()}
    while table.layout.record_file.exists():
        time.sleep(_POLL_S)
        living = {name: who.pid for name, who in table.living().items()}
        for name, pid in known.items():
            if living.get(name) != pid:
                progress.say(f"{_now()}  {name} (pid {pid}) {table.exit_text(pid)}")
        for name, pid in living.items():
            if known.get(name) != pid:
                progress.say(f"{_now()}  {name} runs again (pid {pid})")
        known = living
    progress.say("taken down by another command")


def _now() -> str:
    return time.strftime("%H:%M:%S")
