"""Run commands beside running tasks, in their surroundings, and leave nothing of them behind.

One small process per agent, begun with the first such command and ended with the agent. It runs in a bare
interpreter (`python -I -S`) and knows nothing of cloudless::

    agent ──"ID", with open files: order, streams──► launcher ──fork, enter, exec──► command and what it starts
          ──"ID" alone: end it─────────────────────►
          ◄──"ID STATUS": all of it has ended──────

The order is a memory file (marshal): argv, env, cwd, mark, whether there is a terminal, and the task's process with
its start time. A child enters that process's control groups, namespaces, user, limits and privileges before it becomes
the command. What keeps it from that is written over the order, for the agent to read.

The launcher is the subreaper of all it starts. When a command has ended, or is to be ended, everything that belongs to
it is killed: its descendants, its session, and whatever carries its mark in the environment. When the agent's end of
the socket closes, all are. Each command gets SIGKILL should the launcher die.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import marshal
import os
import resource
import select
import signal
import socket
import sys
import termios
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAPABILITY_VERSION = 0x20080522
CAPABILITIES_MAX = 64
LIBRARY = ctypes.CDLL(None, use_errno=True)
LIMITS = {
    "Max cpu time": resource.RLIMIT_CPU,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA,
    "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE,
    "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max address space": resource.RLIMIT_AS,
    "Max pending signals": resource.RLIMIT_SIGPENDING,
    "Max msgqueue size": resource.RLIMIT_MSGQUEUE,
    "Max nice priority": resource.RLIMIT_NICE,
    "Max realtime priority": resource.RLIMIT_RTPRIO,
    "Max realtime timeout": resource.RLIMIT_RTTIME,
}
"""As /proc/PID/limits calls them: prlimit(2) would need a privilege that even root may lack."""
FILES_MAX = 4
MESSAGE_BYTES_MAX = 64
KILL_AGAIN_MS = 10
NAMESPACES = ("ipc", "uts", "net", "mnt")
FAULT = b"fault:"
SIGNAL_BASE = 128
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def call(name: str, *arguments: int) -> int:
    """Call a function of the C library. Raises OSError."""
    result = int(getattr(LIBRARY, name)(*(ctypes.c_ulong(argument) for argument in arguments)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


# --- processes ----------------------------------------------------------------------------------


def stat_fields(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/<pid>/stat after the program's name (state, ppid, pgrp, session, …)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def descendants(top: int) -> dict[int, tuple[int, int]]:
    """Return (parent, session) of every process below `top`, parents before their children; the dead are left out."""
    found: dict[int, tuple[int, int]] = {}
    unseen = [top]
    while unseen:
        parent = unseen.pop(0)
        for pid in children(parent):
            fields = stat_fields(pid)
            if fields and fields[0] not in (b"Z", b"X"):
                found[pid] = (parent, int(fields[3]))
                unseen.append(pid)
    return found


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}"):
            return []
    except OSError:
        return []
    # A kernel without CONFIG_PROC_CHILDREN.
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [one for one in pids if (fields := stat_fields(one)) and int(fields[1]) == pid]


def carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return


# --- the child: into the task's surroundings ----------------------------------------------------


class Surroundings:
    """What there is to enter, read while all of /proc can still be seen. Raises OSError."""

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            self.status = dict(line.split(":", 1) for line in file if ":" in line)
        own = read_lines("/proc/self/cgroup")
        self.groups = [line for line in read_lines(f"/proc/{pid}/cgroup") if line not in own]
        self.limits = dict(map(read_limit, read_lines(f"/proc/{pid}/limits")[1:]))
        self.namespaces = []
        for name in NAMESPACES:
            path = f"/proc/{pid}/ns/{name}"
            if os.stat(path).st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
                self.namespaces.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def enter(self, directory: str) -> None:
        """Become what the task is, in `directory`. The order matters: privileges go last."""
        for line in self.groups:
            join_group(line)
        for handle in self.namespaces:
            call("setns", handle, 0)
        os.chdir(directory)
        self._limit_privileges()
        for name, pair in self.limits.items():
            if name in LIMITS and resource.getrlimit(LIMITS[name]) != pair:
                resource.setrlimit(LIMITS[name], pair)
        ambient = self._capabilities("CapAmb")
        if ambient:
            call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
        user, group = self._ids("Uid"), self._ids("Gid")
        if (user, group) != (os.geteuid(), os.getegid()):
            os.setgroups([int(word) for word in self.status.get("Groups", "").split()])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        if ambient:
            hold(ambient)
        if int(self.status.get("NoNewPrivs", "0")):
            call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    def _ids(self, name: str) -> int:
        return int(self.status[name].split()[1])

    def _capabilities(self, name: str) -> int:
        return int(self.status.get(name, "0").strip() or "0", 16)

    def _limit_privileges(self) -> None:
        kept = self._capabilities("CapBnd")
        for number in range(CAPABILITIES_MAX):
            if kept >> number & 1:
                continue
            try:
                if call("prctl", PR_CAPBSET_READ, number, 0, 0, 0):
                    call("prctl", PR_CAPBSET_DROP, number, 0, 0, 0)
            except OSError as error:
                if error.errno != errno.EINVAL:  # EINVAL: this kernel has no such capability
                    raise


def hold(capabilities: int) -> None:
    """Have these capabilities without being root, and let the command inherit them."""
    words = [capabilities & 0xFFFFFFFF] * 3 + [capabilities >> 32] * 3
    header, data = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)(*words)
    if LIBRARY.capset(header, data) < 0:
        raise OSError(ctypes.get_errno(), "capset")
    for number in range(CAPABILITIES_MAX):
        if capabilities >> number & 1:
            call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0)


def read_lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def read_limit(line: str) -> tuple[str, tuple[int, int]]:
    """Return (name, (soft, hard)) of a line of /proc/PID/limits, whose columns are of fixed width."""
    soft, hard = (-1 if word == "unlimited" else int(word) for word in line[26:].split()[:2])
    return line[:26].strip(), (soft, hard)


def join_group(line: str) -> None:
    """Join a control group named by a line of /proc/PID/cgroup. What cannot be joined is left: it only bounds."""
    _, controllers, path = line.split(":", 2)
    tops = [f"/sys/fs/cgroup/{controllers}"] if controllers else ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
    for top in tops:
        try:
            with open(f"{top}{path}/cgroup.procs", "w", encoding="ascii") as file:
                file.write("0")
            return
        except OSError:
            continue


def become_command(order: dict[str, Any], memory: int, streams: list[int], launcher: int) -> None:
    """In the child: enter the task's surroundings and turn into the command. Never returns."""
    status = NOT_EXECUTABLE
    try:
        os.setsid()
        for target in range(3):
            os.dup2(streams[min(target, len(streams) - 1)], target, inheritable=True)
        if order["terminal"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        try:
            enter(order, launcher)
        except (OSError, ValueError, KeyError) as error:
            os.ftruncate(memory, 0)
            os.pwrite(memory, FAULT + str(error).encode(), 0)
            os._exit(status)
        try:
            os.execvpe(order["argv"][0], order["argv"], order["env"])
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            status = NOT_FOUND if missing else NOT_EXECUTABLE
            what = "command not found" if missing else reason
            os.write(2, f"cannot run {order['argv'][0]}: {what}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def enter(order: dict[str, Any], launcher: int) -> None:
    fields = stat_fields(order["pid"])
    if fields is None or int(fields[19]) != order["start_ticks"]:
        raise ProcessLookupError("the task has ended")
    Surroundings(order["pid"]).enter(order["cwd"])
    # After the change of user, which would undo it.
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != launcher:
        raise ProcessLookupError("the agent has ended")
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)


# --- the launcher -------------------------------------------------------------------------------


class Launch:
    """One command, from fork to the end of the last process of it. `status` is None until the command has ended."""

    def __init__(self, pid: int, mark: bytes) -> None:
        self.pid = pid
        self.mark = mark
        self.status: int | None = None
        self.unwanted = False


class Launcher:
    def __init__(self, agent: socket.socket) -> None:
        self.agent = agent
        self.launches: dict[bytes, Launch] = {}
        self.stray = False

    def take(self) -> bool:
        """Take one message of the agent; return False if it is gone."""
        name, files, _, _ = socket.recv_fds(self.agent, MESSAGE_BYTES_MAX, FILES_MAX, socket.MSG_CMSG_CLOEXEC)
        if not name:
            return False
        if files:
            self.start(name, files)
        elif name in self.launches:
            self.launches[name].unwanted = True
        return True

    def start(self, name: bytes, files: list[int]) -> None:
        memory, streams = files[0], files[1:]
        try:
            order = marshal.loads(os.pread(memory, os.fstat(memory).st_size, 0))
            launcher = os.getpid()
            pid = os.fork()
            if pid == 0:
                become_command(order, memory, streams, launcher)
            self.launches[name] = Launch(pid, order["mark"].encode())
        except OSError as error:  # no more processes
            os.ftruncate(memory, 0)
            os.pwrite(memory, FAULT + str(error).encode(), 0)
            self.tell(name, NOT_EXECUTABLE)
        finally:
            for handle in files:
                os.close(handle)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            launch = next((one for one in self.launches.values() if one.pid == pid), None)
            if launch is None:
                continue
            launch.status = SIGNAL_BASE + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def end_leftovers(self) -> bool:
        """Kill what is left of commands that have ended or are to end; return whether there is more to kill."""
        doomed = {name: one for name, one in self.launches.items() if one.unwanted or one.status is not None}
        if not doomed and not self.stray:
            return False
        family = descendants(os.getpid())
        for name, launch in doomed.items():
            left = self.members(launch, family)
            for pid in left:
                kill(pid)
            if not left and launch.status is not None:
                del self.launches[name]
                self.tell(name, launch.status)
                # What hid itself from all we look for is told only when no command is left that it might belong to.
                self.stray = bool(self.launches)
        if not self.launches and self.stray:
            for pid in family:
                kill(pid)
            self.stray = bool(family)
        return any(one.unwanted or one.status is not None for one in self.launches.values()) or (
            self.stray and not self.launches
        )

    def members(self, launch: Launch, family: dict[int, tuple[int, int]]) -> list[int]:
        if len(self.launches) == 1:
            return sorted(family)
        found: set[int] = set()
        for pid, (parent, session) in family.items():
            if pid == launch.pid or parent in found or session == launch.pid or carries(pid, launch.mark):
                found.add(pid)
        return sorted(found)

    def tell(self, name: bytes, status: int) -> None:
        try:
            self.agent.send(name + b" %d" % status)
        except OSError:  # it is gone
            return

    def end_all(self) -> None:
        while family := descendants(os.getpid()):
            for pid in family:
                kill(pid)
            self.reap()
            select.select([], [], [], KILL_AGAIN_MS / 1000)

    def run(self) -> None:
        wakeup, wakeup_write = os.pipe()
        for handle in (wakeup, wakeup_write):
            os.set_blocking(handle, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends with the agent, whose end closes the socket
        poll = select.poll()
        poll.register(self.agent, select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        while True:
            self.reap()
            more = self.end_leftovers()
            for handle, _ in poll.poll(KILL_AGAIN_MS if more else None):
                if handle == wakeup:
                    os.read(wakeup, 512)
                elif not self.take():
                    self.end_all()
                    return


if __name__ == "__main__":
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        ours.set_inheritable(False)
        Launcher(ours).run()
