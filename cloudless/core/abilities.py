"""What a task needs its node's agent to be able to do, beside having the executor; what an operator says of a node.

A process is bounded and confined by its agent, which may lack the privileges for it; a container's engine has them. A
node names its abilities among its capabilities. A task is placed only where all that it needs can be kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudless.core.keys import NAME_PATTERN
from cloudless.core.model import ExecutorKind, TaskSpec, WorkloadSpec

LABEL_LENGTH_MAX = 253
LIMIT_CPU, LIMIT_MEMORY, LIMIT_PIDS = "limit-cpu", "limit-memory", "limit-pids"
RUN_AS_USER = "run-as-user"
MOUNTS = "mounts"
START = "start-tasks"
"""Had by every node that does not say that it cannot."""

WORDS: Mapping[str, str] = {
    LIMIT_CPU: "limit cpu",
    LIMIT_MEMORY: "limit memory",
    LIMIT_PIDS: "limit pids",
    RUN_AS_USER: "run tasks as other users",
    MOUNTS: "give tasks mounts of their own",
    START: "start tasks",
}
"""Every ability, as it goes on after "cannot"."""


def needed_abilities(spec: TaskSpec | WorkloadSpec) -> tuple[str, ...]:
    """Return what a task with this specification needs, sorted."""
    if spec.executor is not ExecutorKind.PROCESS:
        return ()
    limits, security = spec.limits, spec.security_context
    wanted = {
        LIMIT_CPU: limits.cpu_millicores > 0,
        LIMIT_MEMORY: limits.memory_mb > 0,
        LIMIT_PIDS: limits.pids > 0,
        RUN_AS_USER: security.run_as_user is not None or security.run_as_group is not None,
        MOUNTS: security.private_tmp or security.read_only_root or bool(spec.volumes),
    }
    return tuple(sorted(name for name, is_wanted in wanted.items() if is_wanted))


def parse_labels(text: str) -> dict[str, str]:
    """Return the labels of `KEY=VALUE,…`. Raises ValueError."""
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if not all(key and sign and len(key) <= LABEL_LENGTH_MAX >= len(value) for key, sign, value in pairs):
        raise ValueError("must be KEY=VALUE,…")
    return {key: value for key, _, value in pairs}


def parse_capabilities(text: str) -> tuple[str, ...]:
    """Return an operator's own names of what a node can do, sorted. Raises ValueError."""
    names = sorted({part.strip() for part in text.split(",") if part.strip()})
    if own := [name for name in names if name in WORDS]:
        raise ValueError(f"must not name {', '.join(own)}: that the agent finds out itself")
    if not all(NAME_PATTERN.fullmatch(name) for name in names):
        raise ValueError("must be names of a-z, 0-9, '-' and '.', separated by commas")
    return tuple(names)
