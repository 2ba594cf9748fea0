"""What the launcher is told of a command that is to run beside a task."""

from __future__ import annotations

from typing import Any

from cloudless.adapters.subprocess import procfs
from cloudless.adapters.subprocess.attempt import Attempt
from cloudless.adapters.subprocess.command import build_environment, build_exec_argv
from cloudless.adapters.subprocess.launches import MARK_VARIABLE
from cloudless.errors import NotFound
from cloudless.ports import ExecRequest


def build_exec_order(attempt: Attempt, request: ExecRequest, mark: str) -> dict[str, Any]:
    """Return the launcher's order. Raises NotFound if the attempt does not run, Permanent for what is no command."""
    state = attempt.read_state()
    if state is None or not state.lives() or procfs.start_ticks(state.pid) != state.start_ticks:
        raise NotFound(f"attempt {attempt.number} of task {attempt.task_id} does not run")
    environment = build_environment(request.attempt, attempt.path.parent)
    if request.terminal is not None:
        environment.setdefault("TERM", "xterm")
    return {
        "argv": build_exec_argv(request),
        "env": {**environment, MARK_VARIABLE: mark},
        "mark": f"{MARK_VARIABLE}={mark}",
        "cwd": str(attempt.path.parent / "home"),
        "pid": state.pid,
        "start_ticks": state.start_ticks,
        "terminal": request.terminal is not None,
    }
