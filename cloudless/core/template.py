"""What of a workload's specification makes its tasks: the template.

Changing anything of the template replaces tasks; changing the rest (replicas, placement, rollout,
lost_after_s) does not touch those that run.
"""

from __future__ import annotations

from cloudless.core.model import TaskSpec, WorkloadSpec


def build_task_spec(spec: WorkloadSpec) -> TaskSpec:
    """Return what an agent needs to run one task of the workload."""
    return TaskSpec(
        executor=spec.executor,
        image=spec.image,
        command=spec.command,
        args=spec.args,
        env=spec.env,
        ports=spec.ports,
        requests=spec.requests,
        restart_policy=spec.restart_policy,
        stop_grace_s=spec.stop_grace_s,
    )


def same_task_template(before: WorkloadSpec, after: WorkloadSpec) -> bool:
    """Return whether tasks of `before` may go on as tasks of `after`."""
    return build_task_spec(before) == build_task_spec(after)
