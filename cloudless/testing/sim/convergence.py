"""Whether a healed cluster is as it should be: one leader, one state, all that is wanted runs and nothing else."""

from __future__ import annotations

from cloudless.core.model import TaskState
from cloudless.testing.sim.world import World, instances


def find_trouble(world: World) -> str:
    """Return what is not yet as it should be, "" if all is."""
    return _leaders(world) or _copies(world) or _workloads(world) or _tasks(world)


def _leaders(world: World) -> str:
    leaders = [life.id for life in world.coordinators.values() if life.leadership.leading_term]
    return "" if len(leaders) == 1 else f"leaders: {leaders}"


def _copies(world: World) -> str:
    for life in world.coordinators.values():
        machine = life.replica.machine
        if machine.digest != world.truth.digest:
            return f"{life.id} holds another state at r{machine.revision} than the store at r{world.truth.revision}"
    return ""


def _workloads(world: World) -> str:
    truth = world.truth
    for (namespace, name), workload in truth.workloads.items():
        if workload.record.deleted_at_ms:
            return f"workload {name} is still being deleted"
        tasks = [truth.tasks[task_id] for task_id in truth.tasks_of(namespace, name)]
        active = [task for task in tasks if task.active]
        running = [task for task in active if task.state is TaskState.RUNNING]
        if len(running) != workload.record.spec.replicas or len(active) != len(running):
            return f"workload {name}: {len(running)} of {len(active)} run, {workload.record.spec.replicas} are wanted"
        if any(task.desired.task_generation != workload.record.task_generation for task in active):
            return f"workload {name} runs an old generation"
    return ""


def _tasks(world: World) -> str:
    truth = world.truth
    for node_id, running in instances(world).items():
        wanted = sorted(task_id for task_id in truth.tasks_on(node_id) if truth.tasks[task_id].active)
        if [task_id for task_id, _ in running] != wanted:
            return f"node {node_id} runs {running}, wanted are {wanted}"
        remembered = sorted(world.hosts[node_id].disk.entries)
        if remembered != sorted(truth.tasks_on(node_id)):
            return f"the journal of {node_id} holds {remembered}, assigned are {sorted(truth.tasks_on(node_id))}"
    for task in truth.tasks.values():
        if task.desired.node_id not in truth.nodes:
            return f"task {task.id} is on no node"
    return ""
