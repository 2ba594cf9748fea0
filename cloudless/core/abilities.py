"""What a task needs its node's agent to be able to do, beside having the executor.

A process is bounded and confined by its agent, which may lack the privileges for it; a container's engine has them. A
node names its abilities among its capabilities. A task is placed only where all that it needs can be kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudless.core.model import ExecutorKind, TaskSpec, WorkloadSpec

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
