"""What of a workload's specification makes its tasks: the template.

The template is what an agent needs to know, or what a task could not take on while it runs: what runs and with
what (image, command, ports, volumes), within which bounds (requests, limits, security), and how the agent watches
and ends it (probes, restart policy, stop_grace_s, stop_after_s). Changing any of it replaces tasks.

The rest is the leader's business and touches no task that runs: how many and where (mode, replicas, placement,
priority), how a change is carried out (rollout), what becomes of tasks of an unreachable node (lost_after_s,
reconcile).

A field that a stored record of before does not have is read as its default, so an upgrade changes no template.
"""

from __future__ import annotations

from dataclasses import fields, replace

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
        liveness_probe=spec.liveness_probe,
        readiness_probe=spec.readiness_probe,
        volumes=spec.volumes,
        limits=spec.limits,
        security_context=spec.security_context,
        image_pull_policy=spec.image_pull_policy,
        stop_after_s=spec.stop_after_s,
    )


def same_task_template(before: WorkloadSpec, after: WorkloadSpec) -> bool:
    """Return whether tasks of `before` may go on as tasks of `after`."""
    return build_task_spec(before) == build_task_spec(after)


def with_template(spec: WorkloadSpec, template: WorkloadSpec) -> WorkloadSpec:
    """Return `spec` with the template of the other one: what makes its tasks is put back, all else stays."""
    names = (field.name for field in fields(TaskSpec) if field.name != "unknown_fields")
    return replace(spec, **{name: getattr(template, name) for name in names})
