"""What a task's process is given: its command with ports filled in, the executable found, a clean environment."""

from __future__ import annotations

import os
from pathlib import Path

from cloudless.core.task_environment import build_variables, fill_ports, port_variables
from cloudless.errors import Permanent
from cloudless.ports import ExecRequest, StartRequest

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_argv(request: StartRequest) -> list[str]:
    """Return command and arguments with port references replaced. Raises Permanent."""
    ports = port_variables(request.ports)
    argv = [fill_ports(word, ports) for word in (*request.spec.command, *request.spec.args)]
    if not request.spec.command:
        raise Permanent("the task has no command", hint="the process executor runs spec.command, not an image")
    return argv


def build_exec_argv(request: ExecRequest) -> list[str]:
    """Return the words of a command beside the task, with port references replaced. Raises Permanent."""
    ports = port_variables(request.attempt.ports)
    argv = [fill_ports(word, ports) for word in request.command]
    if not argv or not argv[0] or any("\0" in word for word in argv):
        raise Permanent(f"{' '.join(argv)!r} cannot be a command")
    return argv


def build_environment(request: StartRequest, task_dir: Path) -> dict[str, str]:
    """Return the whole environment of the task: nothing of the agent's own but PATH and LANG. Raises Permanent."""
    minimal = {
        "PATH": os.environ.get("PATH", _DEFAULT_PATH),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": str(task_dir / "home"),
        "TMPDIR": "/tmp" if request.spec.security_context.private_tmp else str(task_dir / "tmp"),
    }
    return {**minimal, **build_variables(request.task_id, request.spec.env, request.env, request.ports)}


def find_executable(name: str, *, path: str, work: Path) -> str:
    """Return where `name` is, as a shell would find it. Raises Permanent if it is not there or not executable."""
    if "\0" in name or not name:
        raise Permanent(f"{name!r} cannot be a command")
    if "/" in name:
        found = work / name
        if not os.path.exists(found):
            raise Permanent(f"command not found: {name}")
        if not _is_executable(found):
            raise Permanent(f"not executable: {name}", hint="it is a directory, or lacks the x permission")
        return str(found)
    present = [Path(directory or ".") / name for directory in path.split(":")]
    for candidate in present:
        if _is_executable(candidate):
            return str(candidate)
    if any(os.path.isfile(candidate) for candidate in present):
        raise Permanent(f"not executable: {name}", hint="it lacks the x permission")
    raise Permanent(f"command not found: {name}", hint="install it on this node, or give its full path")


def _is_executable(path: Path) -> bool:
    # Unlike Path.is_file, this takes a directory that may not be looked into for one that holds nothing.
    return os.path.isfile(path) and os.access(path, os.X_OK)
