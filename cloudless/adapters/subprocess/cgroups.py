"""Control groups: one for each task, which bounds what all its processes together may use, and holds them all.

::

    <mount>/<parent>/<this agent's tasks directory, quoted>/<task id>     in each hierarchy that is used

Version 2 has one hierarchy, version 1 one for each controller; a machine with both has its controllers in version 1.
A task's group outlives the agent and the task's attempts. It is found again by its path alone, so nothing needs to be
remembered. Whatever left its process group, cleared its environment and outlived its shim is still in the group.

What cannot be limited here is told by `missing`, with the reason; a task that asks for it is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from cloudless.core.model import Limits, Resources
from cloudless.core.usage import UNKNOWN, Usage
from cloudless.errors import Permanent, Temporary

CONTROLLERS = ("cpu", "memory", "pids")
NOTHING = "none"
"""In place of the parent: control groups are not used."""
PERIOD_US = 100_000
KILL_ROUNDS_MAX = 200
KILL_PAUSE_S = 0.01
_MIB = 1024 * 1024
_PROCS = "cgroup.procs"
_QUOTED_SLASH = "%2F"
_NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy, with those of the controllers (`cpuacct` too) that it has."""

    mount: Path
    controllers: frozenset[str]
    unified: bool


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """A task's groups, by controller; a directory may serve several. Without any, nothing is done.

    `unified`: the controllers of version 2; a machine may have some in either version.
    """

    places: Mapping[str, Path]
    unified: frozenset[str] = frozenset()

    @property
    def directories(self) -> tuple[Path, ...]:
        return tuple(sorted(set(self.places.values())))

    @property
    def entrances(self) -> tuple[str, ...]:
        """Return the files to which a process writes "0" to come in."""
        return tuple(str(path / _PROCS) for path in self.directories)

    @property
    def deaths_file(self) -> str:
        """Return the file that counts in a line `oom_kill N` who was killed for want of memory, "" if there is none."""
        if "memory" not in self.places:
            return ""
        return str(self.places["memory"] / ("memory.events" if "memory" in self.unified else "memory.oom_control"))

    def members(self) -> frozenset[int]:
        """Return the processes in it."""
        found: set[int] = set()
        for path in self.directories:
            with suppress(OSError):
                found.update(int(word) for word in (path / _PROCS).read_text(encoding="ascii").split())
        return frozenset(found - {0})

    def end(self) -> bool:
        """Kill all that is in it; return whether nothing is left. One that forks for ever does not get away."""
        for _ in range(KILL_ROUNDS_MAX):
            members = self.members()
            if not members:
                return True
            if "pids" in self.places:
                _try_write(self.places["pids"] / "pids.max", "0")
            for path in self.directories:
                _try_write(path / "cgroup.kill", "1")  # of version 2 since Linux 5.14
            for pid in members:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(KILL_PAUSE_S)
        return False

    def remove(self) -> None:
        """End what is in it and delete it. Raises Temporary if something cannot be ended."""
        if not self.end():
            raise Temporary(f"processes of {self.directories[0].name} do not end")
        for path in self.directories:
            _remove_directory(path)

    def read_usage(self) -> Usage:
        return Usage(self._read_cpu_s(), self._read_memory_bytes())

    def _read_cpu_s(self) -> float:
        if "cpu" in self.unified:
            microseconds = _read_entry(self.places.get("cpu"), "cpu.stat", "usage_usec")
            return microseconds / 1e6 if microseconds >= 0 else UNKNOWN
        nanoseconds = _read_number(self.places.get("cpuacct"), "cpuacct.usage")
        return nanoseconds / 1e9 if nanoseconds >= 0 else UNKNOWN

    def _read_memory_bytes(self) -> int:
        """Return what is in use, without the files' pages that could be given up at once."""
        place = self.places.get("memory")
        unified = "memory" in self.unified
        used = _read_number(place, "memory.current" if unified else "memory.usage_in_bytes")
        if used < 0:
            return UNKNOWN
        idle = _read_entry(place, "memory.stat", "inactive_file" if unified else "total_inactive_file")
        return max(0, used - max(0, int(idle)))


class ControlGroups:
    """The groups of one agent's tasks, whose files are under `root`. Its methods read and write files.

    `missing` says of each of `CONTROLLERS` that cannot be used why not.
    """

    def __init__(
        self, hierarchies: Iterable[Hierarchy], root: Path, parent: str, controllers: tuple[str, ...] = CONTROLLERS
    ) -> None:
        self._scope = Path(parent, _scope_name(root))
        self._parent = parent
        self.missing: dict[str, str] = {}
        self._places: dict[str, Hierarchy] = {}
        if parent == NOTHING:
            self.missing = dict.fromkeys(controllers, "control groups are turned off (CLOUDLESS_CGROUP_PARENT)")
            return
        for hierarchy in hierarchies:
            self._places |= dict.fromkeys(sorted(hierarchy.controllers), hierarchy)
        self.missing = {
            name: f"no control group hierarchy with the {name} controller is mounted"
            for name in controllers
            if name not in self._places
        }
        for name, hierarchy in sorted(self._places.items()):
            if fault := self._try_out(name, hierarchy):
                self.missing[name] = fault
                del self._places[name]

    def find(self, task_id: str) -> TaskGroup:
        """Return the task's groups as far as they are there."""
        places = {name: one.mount / self._scope / task_id for name, one in self._places.items()}
        return TaskGroup(
            {name: path for name, path in places.items() if path.is_dir()},
            frozenset(name for name, one in self._places.items() if one.unified),
        )

    def prepare(self, task_id: str, limits: Limits, requests: Resources) -> TaskGroup:
        """Make the task's groups, empty, with its limits. Raises Permanent for a limit that cannot be kept here."""
        wanted = {"cpu": limits.cpu_millicores, "memory": limits.memory_mb, "pids": limits.pids}
        for name, amount in wanted.items():
            if amount and name in self.missing:
                raise Permanent(
                    f"this node cannot limit {name}: {self.missing[name]}",
                    hint="take the limit out, or run the agent where it may make control groups",
                )
        try:
            for name in sorted(self._places):
                self._make(name, task_id)
            group = self.find(task_id)
            if not group.end():
                raise Temporary(f"processes of an earlier attempt of task {task_id} do not end")
            for name, path in sorted(group.places.items()):
                for setting in build_settings(name, name in group.unified, limits, requests):
                    _write(path, setting)
        except OSError as error:
            raise Temporary(f"cannot set up the control group of task {task_id}: {error.strerror}") from error
        return group

    def collect(self, known: Collection[str]) -> None:
        """Remove the groups of tasks that are not `known`, and those of agents whose directory is gone."""
        for hierarchy in sorted(set(self._places.values()), key=lambda one: one.mount):
            parent = hierarchy.mount / self._parent
            for scope in _subdirectories(parent):
                own = scope.name == self._scope.name
                gone = scope.name.startswith(_QUOTED_SLASH) and not os.path.lexists(unquote(scope.name))
                if not own and not gone:
                    continue
                for path in _subdirectories(scope):
                    if not own:
                        _remove_directory(path)
                    elif path.name not in known:
                        with suppress(Temporary):
                            TaskGroup({"pids": path}).remove()
                if not own:
                    _remove_directory(scope)

    def close(self) -> None:
        """Leave no empty groups behind; a task's next attempt makes its own again."""
        for hierarchy in set(self._places.values()):
            scope = hierarchy.mount / self._scope
            for path in (*_subdirectories(scope), scope):
                _remove_directory(path)
            _remove_directory(hierarchy.mount / self._parent)

    def _try_out(self, name: str, hierarchy: Hierarchy) -> str:
        """Return why no groups with the controller can be made, "" if they can."""
        try:
            self._make(name, ".try")
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.EBUSY:
                reason = "the group above has processes of its own"
            return f"{hierarchy.mount / self._parent}: {reason}"
        scope = hierarchy.mount / self._scope
        _remove_directory(scope / ".try")
        if name == "cpu":
            # All tasks together weigh as much as the machine, not as one process beside this group.
            for path in (scope.parent, scope):
                with suppress(OSError):
                    _write(path, _share(1000 * (os.cpu_count() or 1), hierarchy.unified))
        return ""

    def _make(self, name: str, task_id: str) -> None:
        """Make the task's directory for a controller, and let the ones above pass that on. Raises OSError."""
        hierarchy = self._places[name]
        path = hierarchy.mount
        for part in (*self._scope.parts, task_id):
            if hierarchy.unified:
                _pass_on(path, name)
            path /= part
            path.mkdir(mode=0o755, exist_ok=True)
        if hierarchy.unified and name not in (path / "cgroup.controllers").read_text(encoding="ascii").split():
            raise OSError(errno.ENOTSUP, f"{name} is not passed on to it")


def find_hierarchies(mountinfo: str, controllers_of: Mapping[Path, str]) -> tuple[Hierarchy, ...]:
    """Return the hierarchies among the mounts of /proc/self/mountinfo.

    `controllers_of`: the text of `cgroup.controllers` of each mount of version 2.
    """
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        front, _, back = line.partition(" - ")
        fields, (kind, _, options) = front.split(), [*back.split(), "", "", ""][:3]
        if len(fields) < 5 or kind not in ("cgroup", "cgroup2"):
            continue
        mount = Path(fields[4].encode().decode("unicode_escape"))
        words = controllers_of.get(mount, "").split() if kind == "cgroup2" else options.split(",")
        controllers = frozenset(words) & {*CONTROLLERS, "cpuacct"}
        if controllers:
            found.append(Hierarchy(mount, controllers, kind == "cgroup2"))
    return tuple(found)


def look_for_hierarchies() -> tuple[Hierarchy, ...]:
    """Return those that this process sees; none if they cannot be told."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    told: dict[Path, str] = {}
    for line in mountinfo.splitlines():
        if " - cgroup2 " in line:
            mount = Path(line.split()[4])
            with suppress(OSError):
                told[mount] = (mount / "cgroup.controllers").read_text(encoding="ascii")
    return find_hierarchies(mountinfo, told)


def _scope_name(root: Path) -> str:
    """Return the name of an agent's group: its directory, or, if that is too long for a name, a hash of it."""
    quoted = quote(str(root), safe="")
    return quoted if len(quoted) <= _NAME_MAX else hashlib.sha256(quoted.encode()).hexdigest()


class Setting(NamedTuple):
    """A value for one of a controller's files; not every kernel has the `optional` ones."""

    file: str
    value: str
    optional: bool = False


def build_settings(name: str, unified: bool, limits: Limits, requests: Resources) -> list[Setting]:
    """Return what to write into a controller's files of a task's group."""
    quota_us = limits.cpu_millicores * PERIOD_US // 1000
    memory = str(limits.memory_mb * _MIB)
    if name == "cpu" and unified:
        return [_share(requests.cpu_millicores, unified), Setting("cpu.max", f"{quota_us or 'max'} {PERIOD_US}")]
    if name == "cpu":
        period = Setting("cpu.cfs_period_us", str(PERIOD_US))
        return [_share(requests.cpu_millicores, unified), period, Setting("cpu.cfs_quota_us", str(quota_us or -1))]
    if name == "memory" and limits.memory_mb and unified:
        # No swap, which would only make the end slower; and all of the task ends, not any one of its processes.
        swap, group = Setting("memory.swap.max", "0", optional=True), Setting("memory.oom.group", "1", optional=True)
        return [Setting("memory.max", memory), swap, group]
    if name == "memory" and limits.memory_mb:
        return [Setting("memory.limit_in_bytes", memory), Setting("memory.memsw.limit_in_bytes", memory, True)]
    if name == "pids":
        return [Setting("pids.max", str(limits.pids or "max"))]
    return []


def _share(cpu_millicores: int, unified: bool) -> Setting:
    """Return the weight beside others where the processors are short: 1024 shares are a core's worth."""
    shares = min(262_144, max(2, cpu_millicores * 1024 // 1000))
    if unified:
        return Setting("cpu.weight", str(1 + (shares - 2) * 9999 // 262_142))
    return Setting("cpu.shares", str(shares))


def _write(path: Path, setting: Setting) -> None:
    """Write a setting into the group at `path`. Raises OSError."""
    file = path / setting.file
    if not setting.optional or file.exists():
        file.write_text(setting.value, encoding="ascii")


def _pass_on(path: Path, controller: str) -> None:
    """Let the groups below have the controller. Raises OSError."""
    control = path / "cgroup.subtree_control"
    if controller not in control.read_text(encoding="ascii").split():
        control.write_text(f"+{controller}", encoding="ascii")


def _try_write(path: Path, text: str) -> None:
    if path.exists():
        with suppress(OSError):
            path.write_text(text, encoding="ascii")


def _remove_directory(path: Path) -> None:
    """Remove a group that has neither processes nor groups below it; leave any other."""
    with suppress(OSError):
        path.rmdir()


def _subdirectories(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _read_number(directory: Path | None, name: str) -> int:
    if directory is None:
        return -1
    try:
        return int((directory / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return -1


def _read_entry(directory: Path | None, name: str, entry: str) -> float:
    """Return the number in the line `entry N` of a file, -1 if there is none."""
    if directory is not None:
        with suppress(OSError, ValueError):
            for line in (directory / name).read_text(encoding="ascii").splitlines():
                found, _, number = line.partition(" ")
                if found == entry:
                    return float(number)
    return -1.0
