"""One attempt's directory: who runs it, how it ended, and whether any of that is still true.

::

    <root>/<task id>/home, tmp, volumes/  shared by the task's attempts
    <root>/<task id>/<attempt>/lock       held (flock) by the shim for as long as it lives
                               state.json who runs it: pid, start time, boot
                               exit.json  how it ended; written last
                               stdout.log stdout.log.1 stderr.log stderr.log.1 grace shim.log

A shim that cannot write exit.json for a sick disk lives on, trying, and is called "ended CODE SIGNAL" meanwhile.

The lock is taken before the shim is spawned and inherited by it, so a crash of the agent anywhere in between
is told afterwards: a directory that nobody holds and that has no state was never started.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudless.adapters.subprocess import procfs
from cloudless.adapters.subprocess.cgroups import TaskGroup
from cloudless.core.model import Instance
from cloudless.core.task_environment import TASK_ID_VARIABLE

_LEFTOVER_ROUNDS_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """state.json: the shim and the command, each told from every other process of its pid."""

    boot_id: str
    shim_pid: int
    shim_start_ticks: int
    pid: int
    start_ticks: int
    started_at_ms: int
    started_boottime_s: float
    ports: Mapping[str, int] = field(default_factory=dict)

    def command_lives(self) -> bool:
        """Return whether this very command still runs."""
        return procfs.boot_id() == self.boot_id and procfs.start_ticks(self.pid) == self.start_ticks

    def lives(self) -> bool:
        """Return whether this very shim still runs."""
        return procfs.boot_id() == self.boot_id and procfs.start_ticks(self.shim_pid) == self.shim_start_ticks


def no_group(task_id: str) -> TaskGroup:
    """Return the control groups of a task that has none."""
    return TaskGroup({})


@dataclass(frozen=True, slots=True)
class Attempt:
    """The directory of one attempt. Its methods read and write files: call them off the event loop.

    `find_group` returns the control groups of its task.
    """

    path: Path
    task_id: str
    number: int
    find_group: Callable[[str], TaskGroup] = field(default=no_group, compare=False, repr=False)

    def create(self) -> int:
        """Create the directory and return its held lock. Raises FileExistsError if the attempt was made before."""
        task_dir = self.path.parent
        for directory in (task_dir.parent, task_dir, task_dir / "home", task_dir / "tmp"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Not LOCK_NB: someone may be probing it in `is_held` this very moment.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def is_held(self) -> bool:
        """Return whether a shim (or an agent about to spawn it) holds the attempt."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def read_state(self) -> State | None:
        document = _read_json(self.path / "state.json")
        try:
            return State(**{name: document[name] for name in State.__dataclass_fields__}) if document else None
        except KeyError:
            return None

    def find(self) -> Instance | None:
        """Return the attempt as it is, or None if it never ran or is only now being started.

        An attempt whose shim is gone without a word has lost its exit code: what is left of it is ended, and
        that outcome is written down, so that it is the same whenever it is asked for.
        """
        state = self.read_state()
        if state is None:
            return None
        ended = self._read_end(state)
        if ended is None and state.lives():
            if (words := procfs.name_of(state.shim_pid).split())[:1] == ["ended"] and len(words) == 3:
                # The disk takes no exit.json.
                return self._instance(state, running=False, exit_code=int(words[1]), signal=int(words[2]))
            ran_s = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - state.started_boottime_s)
            return self._instance(state, running=True, ran_s=ran_s)
        # It may have ended between the two looks.
        return ended or self._read_end(state) or self._lose(state)

    def wipe(self) -> None:
        """Delete an attempt that never ran."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _read_end(self, state: State) -> Instance | None:
        end = _read_json(self.path / "exit.json")
        if not end:
            return None
        return self._instance(
            state,
            running=False,
            exit_code=int(end.get("exit_code", -1)),
            signal=int(end.get("signal", 0)),
            finished_at_ms=int(end.get("finished_at_ms", 0)),
            ran_s=float(end.get("ran_s", 0.0)),
            message=str(end.get("message", "")),
        )

    def _lose(self, state: State) -> Instance:
        rebooted = procfs.boot_id() != state.boot_id
        if not rebooted:
            self.find_group(self.task_id).end()
            end_leftovers(self.task_id, state)
        end = {
            "exit_code": -1,
            "signal": int(signal.SIGKILL),
            "finished_at_ms": time.time_ns() // 1_000_000,
            "ran_s": 0.0 if rebooted else time.clock_gettime(time.CLOCK_BOOTTIME) - state.started_boottime_s,
            "message": "ended by a reboot of its machine" if rebooted else "its supervising process was killed",
        }
        temporary = self.path / ".exit.json.lost"
        try:
            temporary.write_text(json.dumps(end), encoding="utf-8")
            temporary.replace(self.path / "exit.json")
        except OSError:
            # Read-only or full: the same is found again next time.
            pass
        fields = {name: end[name] for name in ("exit_code", "signal", "finished_at_ms", "ran_s", "message")}
        return self._instance(state, running=False, **fields)

    def _instance(self, state: State, *, running: bool, **fields: Any) -> Instance:
        return Instance(
            task_id=self.task_id,
            attempt=self.number,
            running=running,
            pid=state.pid if running else 0,
            started_at_ms=state.started_at_ms,
            ports=dict(state.ports),
            **fields,
        )


def end_leftovers(task_id: str, state: State) -> None:
    """Kill what a killed shim left behind: everything that still carries the task's id in its environment.

    The command itself dies with the shim; what it had started does not. Strangers cannot be hit: the id is the
    task's own, and nothing older than the shim is looked at. What has cleared its environment is only found in the
    task's control group.
    """
    for _ in range(_LEFTOVER_ROUNDS_MAX):
        left = procfs.find_by_environment(f"{TASK_ID_VARIABLE}={task_id}", since_ticks=state.shim_start_ticks)
        if not left:
            return
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
