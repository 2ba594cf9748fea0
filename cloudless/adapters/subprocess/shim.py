"""Watch over one attempt at a task: a small process of its own between the agent and the task's command.

It outlives the agent, so that the command goes on while the agent restarts and its exit code is kept
while nobody is there to ask. It runs in a bare interpreter (`python -I -S`), knows nothing of cloudless,
and imports only what is compiled into the interpreter, because every task on a node pays for its memory:
the agent compiles this file and `shim_output` once and sends the code along, which saves each shim 1.3 MB.

::

    agent ──memfd (stdin): what to run──► shim ──fork, exec──► command and whatever it starts
          ◄──pipe (stdout): "started"───       ◄── its output ──► stdout.log, stderr.log (rotated)
          ──SIGTERM: end it─────────────►      ──► state.json, then exit.json

The shim is the subreaper of everything the command starts, so nothing escapes by forking twice; the
command gets SIGKILL if the shim dies (PR_SET_PDEATHSIG; the kernel drops that for a setuid program).
The end: SIGTERM to the command's process group, after the grace SIGKILL to the group and to every
descendant that had left it. When the command ends by itself, what it left behind is ended the same way.
The command enters its task's control group and is confined (`confine.py`) between fork and exec; the shim is not.
`exit.json` is written when nothing is left, into space set aside at the start: a full disk does not cost
the exit code. A full disk costs output, never progress: what cannot be written is dropped.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # `signal` imports enum, and with it half a megabyte
import errno
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # Run before this, in the same scope.
    from cloudless.adapters.subprocess.shim_output import Output, write_all

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
EXIT_FILE_BYTES = 512
EXIT_WRITE_TRIES_MAX = 600
DRAIN_CHUNKS_MAX = 64
LEFTOVER_POLL_S = 0.05


def prctl(option: int, argument: int) -> None:
    """Call prctl(2) through the C half of ctypes: its Python half costs every shim 0.4 MB."""
    try:
        import _ctypes

        library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
        result = _ctypes.call_function(_ctypes.dlsym(library, "prctl"), (option, argument, 0, 0, 0))
    except (ImportError, AttributeError):
        import ctypes

        result = ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)
    if result != 0:
        raise OSError("prctl failed")


def stat_fields(pid: int | str) -> list[bytes] | None:
    """Return the fields of /proc/<pid>/stat after the program's name (state, ppid, pgrp, …), or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def start_ticks(pid: int) -> int:
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            found = [int(word) for word in file.read().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN, or the process is gone.
        found = [int(name) for name in os.listdir("/proc") if name.isdigit() and parent(name) == pid]
    except OSError:
        found = []
    return found


def parent(pid: int | str) -> int:
    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0


def group(pid: int) -> int:
    fields = stat_fields(pid)
    return int(fields[2]) if fields else 0


def descendants(pid: int) -> list[int]:
    """Return everything below `pid`, parents before their children."""
    found, unseen = [], children(pid)
    while unseen:
        child = unseen.pop()
        found.append(child)
        unseen.extend(children(child))
    return found


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return


def replace_durably(directory: str, name: str, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one: temporary file, sync, rename."""
    temporary = f"{directory}/.{name}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(handle, text.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(temporary, f"{directory}/{name}")


class Shim:
    """The attempt, from fork to the last descendant's end."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.directory = order["directory"]
        self.child = 0
        self.status: int | None = None
        self.kill_at_s: float | None = None
        self.stop_asked = False
        self.outputs: list[Output] = []
        self.exit_handle = -1
        self.stage = ""
        self.deaths_before = 0
        self.started_at_s = 0.0
        self.started_at_ms = 0

    # --- begin ---

    def start(self) -> None:
        """Start the command; raise OSError if that fails, with `stage` naming the step if it is not the exec."""
        self.deaths_before = self.count_memory_deaths()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.reserve_exit_file()
        for name in ("stdout", "stderr"):
            read_end, write_end = os.pipe()
            path = f"{self.directory}/{name}.log"
            self.outputs.append(Output(read_end, write_end, path, self.order["log_bytes_max"]))
        go_read, go_write = os.pipe()
        fault_read, fault_write = os.pipe()
        self.started_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.started_at_ms = time.time_ns() // 1_000_000
        shim = os.getpid()
        self.child = os.fork()
        if self.child == 0:
            os.close(go_write)
            os.close(fault_read)
            self.become_command(shim, go_read, fault_write)
        for handle in (go_read, fault_write, *(output.write_end for output in self.outputs)):
            os.close(handle)
        try:
            self.write_state()
            os.write(go_write, b"g")
        finally:
            # Closed without a word: the child ends by itself.
            os.close(go_write)
        fault = os.read(fault_read, 256).decode()
        os.close(fault_read)
        if fault:
            os.waitpid(self.child, 0)
            number, self.stage = fault.split(" ", 1)
            raise OSError(int(number), os.strerror(int(number)))

    def become_command(self, shim: int, go_read: int, fault_write: int) -> None:
        """In the child: turn into the command once the parent has written down who we are. Never returns."""
        try:
            os.setpgid(0, 0)
            prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
            if os.getppid() != shim or os.read(go_read, 1) != b"g":
                os._exit(127)
            null = os.open("/dev/null", os.O_RDONLY)
            for target, handle in enumerate((null, self.outputs[0].write_end, self.outputs[1].write_end)):
                os.dup2(handle, target, inheritable=True)
            # Python ignores these two; an ignored signal stays ignored across exec.
            _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
            _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
            os.umask(0o022)
            self.confine()
            # Once more: a change of user or capabilities has cleared it.
            prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
            if os.getppid() != shim:
                os._exit(127)
            os.execve(self.order["executable"], self.order["argv"], self.order["env"])
        except OSError as error:
            self.tell_fault(fault_write, error.errno or errno.EIO)
        except ValueError:  # a NUL byte in an argument
            self.tell_fault(fault_write, errno.EINVAL)
        except MemoryError:  # a limit of its own, too low even to get there
            self.tell_fault(fault_write, errno.ENOMEM)
        except Exception:  # whatever it is, the command does not run: an end without a word would mean that it did
            self.tell_fault(fault_write, errno.EIO)
            raise
        finally:
            os._exit(127)

    def confine(self) -> None:
        """In the child: enter the task's control group, change to its directory, be confined."""
        order = self.order["confinement"]
        scope: dict[str, Any] = {"__name__": "cloudless_confine"}
        if order:
            self.stage = "its confinement"
            # Before the group is entered: what this takes is not the command's.
            exec(order["code"], scope)
        self.stage = "its control group"
        for entrance in self.order["entrances"]:
            handle = os.open(entrance, os.O_WRONLY)
            os.write(handle, b"0")
            os.close(handle)
        self.stage = "its directory"
        if order:
            scope["confine"](order, self.order["work"], self.enter)
        else:
            os.chdir(self.order["work"])
        self.stage = ""

    def enter(self, stage: str) -> None:
        """Note what is being done, for the word of its failure."""
        self.stage = stage

    def tell_fault(self, handle: int, number: int) -> None:
        os.write(handle, f"{number} {self.stage}".encode())

    def count_memory_deaths(self) -> int:
        """Return how many processes of the task's group the kernel has killed for want of memory."""
        try:
            with open(self.order["deaths_file"]) as file:
                return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except (OSError, ValueError):
            return 0

    def reserve_exit_file(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self.exit_handle = os.open(f"{self.directory}/.exit.json.tmp", flags, 0o600)
        write_all(self.exit_handle, b" " * EXIT_FILE_BYTES)
        os.fsync(self.exit_handle)

    def write_state(self) -> None:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot_id = file.read().strip()
        text = (
            f'{{{self.order["identity"]}, "boot_id": "{boot_id}", "shim_pid": {os.getpid()}, '
            f'"shim_start_ticks": {start_ticks(os.getpid())}, "pid": {self.child}, '
            f'"start_ticks": {start_ticks(self.child)}, "started_at_ms": {self.started_at_ms}, '
            f'"started_boottime_s": {self.started_at_s:.3f}}}\n'
        )
        replace_durably(self.directory, "state.json", text)

    # --- while it runs, and its end ---

    def run(self, wakeup: int) -> None:
        """Copy output and answer signals until the command and everything it started are gone."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for output in self.outputs:
            poll.register(output.pipe, select.POLLIN)
        while True:
            self.reap()
            if self.status is not None and not self.end_leftovers():
                return
            for handle, _ in poll.poll(self.wait_ms()):
                if handle == wakeup:
                    os.read(wakeup, 512)
                    continue
                output = next(output for output in self.outputs if output.pipe == handle)
                output.copy()
                if output.pipe < 0:
                    poll.unregister(handle)
            if self.stop_asked:
                self.stop_asked = False
                self.begin_stop()
            if self.kill_at_s is not None and time.monotonic() >= self.kill_at_s:
                self.kill_all()

    def wait_ms(self) -> int | None:
        if self.status is not None:
            return int(LEFTOVER_POLL_S * 1000)
        if self.kill_at_s is None:
            return None
        return max(1, int((self.kill_at_s - time.monotonic()) * 1000))

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.status = status

    def begin_stop(self) -> None:
        """Ask the group to end and set the hour of the kill; asked again, the earlier hour counts."""
        kill_at_s = time.monotonic() + self.grace_s()
        self.kill_at_s = kill_at_s if self.kill_at_s is None else min(self.kill_at_s, kill_at_s)
        self.signal_group(_signal.SIGTERM)

    def grace_s(self) -> float:
        """Return the grace the agent wrote down before it signalled, else the one it started us with."""
        try:
            with open(f"{self.directory}/grace") as file:
                return float(file.read())
        except (OSError, ValueError):
            return float(self.order["grace_s"])

    def signal_group(self, number: int) -> None:
        """Signal the command's group. Once the command is reaped its number may belong to a stranger's group."""
        if self.status is None:
            try:
                os.killpg(self.child, number)
            except OSError:
                kill(self.child, number)
            return
        for pid in descendants(os.getpid()):
            if group(pid) == self.child:
                kill(pid, number)

    def end_leftovers(self) -> bool:
        """The command has ended: end what it left behind; return whether something is still there."""
        left = descendants(os.getpid())
        if not left:
            return False
        if self.kill_at_s is None:
            self.begin_stop()
        if not any(group(pid) == self.child for pid in left):
            self.kill_all()
        return True

    def kill_all(self) -> None:
        """Kill the group and every descendant; orphans become ours, so that nothing hides behind its parent."""
        self.signal_group(_signal.SIGKILL)
        for pid in descendants(os.getpid()):
            kill(pid, _signal.SIGKILL)
        # Again soon, should one have forked meanwhile.
        self.kill_at_s = time.monotonic() + LEFTOVER_POLL_S

    def describe_end(self, number: int) -> str:
        """Return what is unusual about the end by signal `number`, "" if nothing is."""
        if self.count_memory_deaths() <= self.deaths_before:
            return ""
        limit_mb = self.order["memory_limit_mb"]
        limit = f" (limit {limit_mb} MB)" if limit_mb else ""
        if number == _signal.SIGKILL:
            return f"killed: out of memory{limit}"
        return f"ended after a process of it was killed: out of memory{limit}"

    def write_exit(self, status: int) -> None:
        """Keep how it ended. A disk that refuses is asked again for a while: the agent may be away for long."""
        for output in self.outputs:
            for _ in range(DRAIN_CHUNKS_MAX):
                if output.pipe < 0 or not output.copy():
                    break
        signaled = os.WIFSIGNALED(status)
        code = -1 if signaled else os.WEXITSTATUS(status)
        number = os.WTERMSIG(status) if signaled else 0
        ran_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_at_s
        text = (
            f'{{"exit_code": {code}, "signal": {number}, "message": "{self.describe_end(number)}", '
            f'"finished_at_ms": {time.time_ns() // 1_000_000}, "ran_s": {ran_s:.3f}}}'
        )
        for _ in range(EXIT_WRITE_TRIES_MAX):
            try:
                os.pwrite(self.exit_handle, text.encode().ljust(EXIT_FILE_BYTES), 0)
                os.fsync(self.exit_handle)
                os.rename(f"{self.directory}/.exit.json.tmp", f"{self.directory}/exit.json")
                return
            except FileNotFoundError:
                # The task was removed with us still here.
                return
            except OSError:
                self.tell_end(code, number)
                time.sleep(1)

    def tell_end(self, code: int, number: int) -> None:
        """Tell how it ended by our own name, for an agent that would otherwise take it for running: see `Attempt`."""
        try:
            with open("/proc/self/comm", "w") as file:
                file.write(f"ended {code} {number}")
        except OSError:
            return


def answer(text: str) -> None:
    """Tell the agent, if it is still there, how the start went."""
    try:  # noqa: SIM105 (contextlib is not worth its memory here)
        os.write(1, text.encode())
    except OSError:
        pass
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 0)
    os.close(null)


def main(order: dict[str, Any]) -> None:
    """Run the order to its end, leave exit.json."""
    # The lock says that this attempt has a living shim; the command must not hold it too.
    os.set_inheritable(order["lock"], False)
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    os.set_blocking(wakeup, False)
    _signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    shim = Shim(order)

    def on_stop(number: int, frame: object) -> None:
        shim.stop_asked = True

    _signal.signal(_signal.SIGTERM, on_stop)
    _signal.signal(_signal.SIGCHLD, lambda number, frame: None)
    for ignored in (_signal.SIGHUP, _signal.SIGINT):
        _signal.signal(ignored, on_stop)
    try:
        shim.start()
    except OSError as error:
        answer(f"failed {error.errno or errno.EIO} {shim.stage}\n")
        return
    answer(f"started {shim.child}\n")
    # The order holds the task's environment: secrets have no business here any longer.
    order["env"] = order["argv"] = order["confinement"] = None
    shim.run(wakeup)
    if shim.status is not None:
        shim.write_exit(shim.status)
