"""What a task's process is given: its command with ports filled in, the executable found, a clean environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cloudless.adapters.subprocess.attempt import TASK_ID_VARIABLE
from cloudless.errors import Permanent
from cloudless.ports import StartRequest

_REFERENCE = re.compile(r"\$\((CLOUDLESS_PORT_[A-Za-z0-9_]+)\)")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def port_variable(name: str) -> str:
    """Return the variable that carries the port called `name`."""
    return "CLOUDLESS_PORT_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def build_argv(request: StartRequest) -> list[str]:
    """Return command and arguments with port references replaced. Raises Permanent."""
    ports = _port_variables(request.ports)
    argv = [_fill(word, ports) for word in (*request.spec.command, *request.spec.args)]
    if not request.spec.command:
        raise Permanent("the task has no command", hint="the process executor runs spec.command, not an image")
    return argv


def build_environment(request: StartRequest, task_dir: Path) -> dict[str, str]:
    """Return the whole environment of the task: nothing of the agent's own but PATH and LANG.

    The task's own variables come first, so that they cannot pretend another identity. Raises Permanent.
    """
    ports = _port_variables(request.ports)
    minimal = {
        "PATH": os.environ.get("PATH", _DEFAULT_PATH),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": str(task_dir / "home"),
        "TMPDIR": str(task_dir / "tmp"),
    }
    own = {name: _fill(value, ports) for name, value in request.spec.env.items()}
    environment = {**minimal, **own, **request.env, **ports, TASK_ID_VARIABLE: request.task_id}
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise Permanent(f"the environment variable {name!r} cannot be passed to a process")
    return environment


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


def _port_variables(ports: Mapping[str, int]) -> dict[str, str]:
    return {port_variable(name): str(number) for name, number in ports.items()}


def _fill(text: str, ports: Mapping[str, str]) -> str:
    def port_of(match: re.Match[str]) -> str:
        number = ports.get(match[1].upper())
        if number is None:
            known = ", ".join(sorted(ports)) or "none"
            raise Permanent(f"$({match[1]}) names no port of the task", hint=f"its ports: {known}")
        return number

    return _REFERENCE.sub(port_of, text)
