"""What a task of a workload asks of a node."""

from __future__ import annotations

from cloudless.core.abilities import needed_abilities
from cloudless.core.model import WorkloadRecord
from cloudless.core.orchestration.changes import Template
from cloudless.core.scheduling import Ask, fixed_ports


def build_ask(record: WorkloadRecord, template: Template, task_id: str, avoid: tuple[str, ...] = ()) -> Ask:
    """Return what the new task `task_id` of this template asks; nodes in `avoid` are taken only if no other fits."""
    spec = template.spec
    return Ask(
        namespace=record.namespace,
        workload=record.name,
        generation=template.generation,
        seed=task_id,
        requests=spec.requests,
        executor=spec.executor,
        placement=record.spec.placement,
        host_ports=fixed_ports(spec.ports),
        needs=needed_abilities(spec),
        labels=record.labels,
        priority=record.spec.priority,
        avoid=avoid,
    )
