"""Whether a healed cluster is as it should be: one leader, one state, all that is wanted runs and nothing else."""

from __future__ import annotations

from cloudless.core.membership.records import joins_of, replacements_of
from cloudless.core.model import AuthorityPurpose, RolloutPhase, TaskState
from cloudless.core.orchestration import find_rollout
from cloudless.testing.sim.checkers.moves import find_uneven
from cloudless.testing.sim.checkers.placement import find_room
from cloudless.testing.sim.handshake import judge_certificate
from cloudless.testing.sim.roster import VOTERS_MAX
from cloudless.testing.sim.world import World, instances


def find_trouble(world: World) -> str:
    """Return what is not yet as it should be, "" if all is."""
    checks = (_members, _papers, _leaders, _copies, _workloads, _tasks, find_uneven)
    return next((trouble for check in checks if (trouble := check(world))), "")


def _members(world: World) -> str:
    """The member list is the one that is wanted, and only who cannot be done without is in it although it is dead."""
    roster = world.roster
    if roster is None:
        return ""
    members = sorted(roster.cluster.members.values(), key=lambda seat: seat.id)
    voters, learners = [m.host for m in members if not m.learner], [m.host for m in members if m.learner]
    said = f"voters {voters}, learners {learners}, wanted {roster.wanted}, dead {roster.dead}"
    if any(not roster.cluster.belongs(host) for host in roster.wanted):
        return f"somebody is missing: {said}"
    dead = [host for host in voters if host not in roster.wanted]
    if any(host not in (*roster.wanted, *roster.dead) for host in (*voters, *learners)):
        return f"somebody is too many: {said}"
    asking = sorted(set(joins_of(world.truth)) - set(learners))
    learners = [host for host in learners if host in roster.wanted]  # a dead one gives way when another asks to join
    if dead and _should_go(len(voters), len(dead), bool(learners), roster.membership.min_quorum):
        return f"the dead stay: {said}"
    if learners and len(voters) % 2 == 0 and len(voters) < VOTERS_MAX:
        return f"a learner does not vote: {said}"
    if idle := [host for host in voters if host in roster.wanted and world.find_serving(host) is None]:
        return f"{idle} do not serve: {said}"
    given_up = [one.record.id for one in replacements_of(world.truth).values() if one.record.id in voters]
    if asking or (given_up and learners):
        return f"{asking} ask to join, {given_up} are given up: {said}"
    return ""


def _should_go(voters: int, dead: int, standby: bool, min_quorum: int) -> bool:
    """Whether one of the dead voters should be removed: a replacement is there, or more losses are survived without."""
    healthy = voters - dead
    if standby:
        return True
    return voters - 1 >= min_quorum and healthy - ((voters - dead) // 2 + 1) > healthy - (voters // 2 + 1)


def _papers(world: World) -> str:
    """Everybody who lives has a certificate that is good, and no CA is being replaced."""
    if world.trust is None:
        return ""
    issuers = [held.record.certificate_pem for held in world.truth.authorities.values()]
    if len(issuers) != len(AuthorityPurpose):
        return f"{len(issuers)} authorities"
    for life in world.living():
        held = world.trust.find_credentials(life.id)
        if held is None:
            return f"{life.id} has no certificate"
        if judge_certificate(held.chain_pem, "".join(issuers).encode(), world.clocks[life.id].wall_ms()):
            return f"the certificate of {life.id} is no good"
    return ""


def _leaders(world: World) -> str:
    leaders = [life.id for life in world.serving() if life.leadership.leading_term]
    return "" if len(leaders) == 1 else f"leaders: {leaders}"


def _copies(world: World) -> str:
    for life in world.serving():
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
        if len(active) == len(running) < workload.record.spec.replicas and not find_room(truth, workload.record):
            continue  # it waits, and rightly so
        if len(running) != workload.record.spec.replicas or len(active) != len(running):
            return f"workload {name}: {len(running)} of {len(active)} run, {workload.record.spec.replicas} are wanted"
        outdated = any(task.desired.task_generation != workload.record.task_generation for task in active)
        if outdated and not find_room(truth, workload.record):
            continue  # its update waits, and rightly so
        if outdated:
            return f"workload {name} runs an old generation"
        notes = find_rollout(truth, workload.record)
        if workload.record.rollout_generation and (notes is None or notes.record.phase is not RolloutPhase.COMPLETED):
            return f"the rollout of workload {name} is not over: {notes.record if notes else 'not noted'}"
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
