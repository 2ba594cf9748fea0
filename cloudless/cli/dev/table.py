"""Which process is which: the record of a dev cluster's processes in `<state>/state.json`.

Every process is recorded with pid, start time, boot and command line; nothing is ever signalled that does not match
all four, so that a pid that was given to a stranger is left alone. Readers and writers (`up`, `start`, `drill`,
`down` may run at once) exclude each other with a lock file.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cloudless.adapters.member import procfs
from cloudless.adapters.member.durable import write_durably
from cloudless.adapters.member.pidfile import Identity, find_orphan, identify
from cloudless.cli.dev.layout import CoordinatorPlan, Layout, build_layout
from cloudless.errors import DataDirLocked, MemberFailed, NotFound

_POLL_S = 0.02
_EXEC_S = 2.0
_REAP_S = 1.0


@dataclass
class Record:
    """What is on disk: the layout's offset, the etcd in use, and the processes by name."""

    port_offset: int = 0
    etcd_binary: str = ""
    tls: bool = False
    processes: dict[str, Identity] = field(default_factory=dict)


class Table:
    """The processes of one dev cluster."""

    def __init__(self, layout: Layout, etcd_binary: str = "") -> None:
        self.layout = layout
        self.etcd_binary = etcd_binary
        # Our own children, so that they can be reaped; a process may also have been started by another command.
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    def open(cls, state_dir: Path) -> Table:
        """Return the table of the cluster recorded under `state_dir`. Raises NotFound."""
        record = read_record(state_dir.resolve() / "state.json")
        if record is None:
            raise NotFound(
                f"no dev cluster under {state_dir}",
                hint="`cloudless dev up` starts one, --state-dir names one elsewhere",
            )
        return cls(build_layout(state_dir, record.port_offset, tls=record.tls), record.etcd_binary)

    def identities(self) -> dict[str, Identity]:
        """Return the recorded processes by name, living or not."""
        record = read_record(self.layout.record_file)
        return record.processes if record else {}

    def living(self) -> dict[str, Identity]:
        """Return the recorded processes that run."""
        self.reap()
        return {name: who for name, who in self.identities().items() if who.lives()}

    def start(self, name: str) -> Identity:
        """Start process `name` and record it. Raises DataDirLocked if it runs already."""
        with self._changing() as record:
            old = record.processes.get(name)
            if old and old.lives():
                raise DataDirLocked(
                    f"{name} runs already (pid {old.pid})", hint=f"`{self.layout.command(f'kill {name}')}` ends it"
                )
            record.processes[name] = self._spawn(name)
            return record.processes[name]

    def etcd_of(self, name: str) -> Identity | None:
        """Return the etcd that runs for coordinator `name`, whoever is its parent now."""
        if not isinstance(self.layout.plan(name), CoordinatorPlan):
            return None
        data_dir = self.layout.data_dir(name)
        return find_orphan(data_dir / "etcd.pid", str(data_dir / "etcd"))

    def exit_text(self, pid: int) -> str:
        """Return how our child ended, in words; what others started can only be seen to be gone."""
        child = self._children.get(pid)
        try:
            # A dying process loses its command line, and so counts as gone, a moment before it can be reaped.
            code = child.wait(_REAP_S) if child else None
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            return "ended"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _spawn(self, name: str) -> Identity:
        log_file = self.layout.log_file(name)
        log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = self.layout.environment(name, os.environ, self.etcd_binary)
        with log_file.open("ab") as log:
            child = subprocess.Popen(
                self.layout.argv(name), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, close_fds=True, cwd=self.layout.state_dir,
            )  # fmt: skip
        self._children[child.pid] = child
        who = _identify_started(child)
        if who is None:
            raise MemberFailed(f"{name} ended at once ({self.exit_text(child.pid)})", hint=f"see {log_file}")
        return who

    def reap(self) -> None:
        """Collect our children that ended: until then each stays a zombie."""
        for child in self._children.values():
            child.poll()

    @contextmanager
    def _changing(self) -> Iterator[Record]:
        self.layout.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.layout.state_dir / "state.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = read_record(self.layout.record_file) or Record(
                self.layout.port_offset, self.etcd_binary, self.layout.tls
            )
            yield record
            document = asdict(record) | {"processes": {name: asdict(who) for name, who in record.processes.items()}}
            write_durably(self.layout.record_file, json.dumps(document, indent=1))


def _identify_started(child: subprocess.Popen[bytes]) -> Identity | None:
    """Return who our child is, None if it ended at once. The kernel shows its command line only after exec is done."""
    deadline_s = time.monotonic() + _EXEC_S
    while child.poll() is None and time.monotonic() < deadline_s:
        if who := identify(child.pid):
            return who
        time.sleep(0.001)
    return None


def read_record(path: Path) -> Record | None:
    """Return what `path` records, or None if there is no such file or no sense in it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        processes = {
            name: Identity(who["pid"], who["start_ticks"], who["boot_id"], tuple(who["argv"]))
            for name, who in document["processes"].items()
        }
        return Record(
            int(document["port_offset"]), str(document["etcd_binary"]), document.get("tls") is True, processes
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def send(who: Identity, number: signal.Signals) -> bool:
    """Signal this very process; return False if it is gone."""
    try:
        handle = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return False
    try:
        # Only now is the pid pinned: it is still the process we mean, or we do nothing.
        if not who.lives():
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def wait_gone(table: Table, processes: dict[str, Identity], timeout_s: float) -> dict[str, Identity]:
    """Wait until the processes have ended; return those that have not after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        table.reap()
        left = {name: who for name, who in processes.items() if who.lives()}
        if not left or time.monotonic() >= deadline_s:
            return left
        time.sleep(_POLL_S)


def rss_mb(pid: int) -> float:
    """Return a process's resident memory in MiB, 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def ticks(pid: int) -> int | None:
    """Return when `pid` started, or None if it is gone: with the pid this names one process."""
    return procfs.start_ticks(pid)
