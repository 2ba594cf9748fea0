"""The leader's controllers over a store in memory: they bring about what is wanted, and survive what goes wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import ClusterNamer, LivenessController, commit_changes
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.orchestrator import Orchestrator, OrchestratorSettings
from cloudless.coordinator.reaper import Reaper
from cloudless.coordinator.reliability import ReliabilityKeeper
from cloudless.core import keys
from cloudless.core.model import NodeSpec, Placement, Resources, SchedulerRecord, TaskState, WorkloadTerm
from cloudless.core.orchestration import OrchestrationPlan, plan_workloads
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.errors import CloudlessError, Fenced, InvariantBroken, LeaseLost, NoSpace, TooLarge, Unavailable
from cloudless.testing.builders import build_workload
from cloudless.testing.faulty_store import ANSWER_LOST, REQUEST_LOST, Fault, script
from cloudless.testing.virtual_time import eventually, freeze, running, virtually
from tests.unit.leading import CLOCK, Cluster, leading, report

TERM = 1
NODE_TIMEOUT_S = 3.0
NEVER_HEARD_S = NODE_TIMEOUT_S + LivenessController.RETURN_GRACE_S


class Numbered:
    """The `Ids` port, counting."""

    def __init__(self) -> None:
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"{self.count:016x}"


# --- orchestrator ---


async def three_nodes(cluster: Cluster) -> None:
    for node_id in ("n1", "n2", "n3"):
        await cluster.add_node(node_id)


async def placed_on(cluster: Cluster) -> str:
    """Wait until three tasks are wanted; return a node that has one."""
    await eventually(lambda: len(cluster.wanted()) == 3)
    return sorted(cluster.wanted().values())[0]


@virtually
async def test_replicas_are_placed_when_asked_for_and_when_room_appears() -> None:
    async with leading() as cluster:
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(TERM, cluster.committer)):
            await cluster.add_workload(build_workload(replicas=3))
            await asyncio.sleep(1)
            assert not cluster.wanted()
            await three_nodes(cluster)
            assert await eventually(lambda: len(cluster.wanted()) == 3) < 1
            assert {task.desired.term for task in cluster.replica.machine.tasks.values()} == {TERM}


@virtually
async def test_what_waits_is_planned_again_only_when_something_can_unblock_it() -> None:
    async with leading() as cluster:
        orchestrator = Orchestrator(cluster.replica, CLOCK, OrchestratorSettings(resync_period_s=1_000))
        near = Placement(workload_affinity=(WorkloadTerm(workload="db"),))
        async with running(orchestrator.run(TERM, cluster.committer)):
            await cluster.add_node("n1")
            await cluster.add_workload(build_workload("vast", uid="v", requests=Resources(cpu_millicores=64_000)))
            await cluster.add_workload(build_workload("shop", uid="s", placement=near))
            await asyncio.sleep(1)
            blocked, vast = orchestrator._blocked, ("default", "vast")
            since = blocked[vast]
            await cluster.add_workload(build_workload("db", uid="d"))
            await eventually(lambda: len(cluster.wanted()) == 2, within_s=1)
            assert blocked[vast] is since, "neither a workload nor a task gives it room: it was not looked at again"
            await cluster.set_reachable("n1", False)
            await eventually(lambda: vast in blocked and blocked[vast] is not since, within_s=1)


@virtually
async def test_a_higher_priority_displaces_a_lower_one_once_the_settings_allow_it() -> None:
    async with leading() as cluster:
        await cluster.add_node("n1")
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        large = Resources(cpu_millicores=4_000, memory_mb=64)
        async with running(orchestrator.run(TERM, cluster.committer)):
            await cluster.add_workload(build_workload("low", uid="l", requests=large))
            await eventually(lambda: len(cluster.wanted()) == 1, within_s=1)
            (low,) = cluster.wanted()
            await cluster.add_workload(build_workload("high", uid="h", requests=large, priority=1))
            await asyncio.sleep(1)
            assert list(cluster.wanted()) == [low]
            await cluster.put(keys.SCHEDULER, SchedulerRecord(preemption=True))
            await eventually(lambda: not cluster.wanted(), within_s=1)
            await cluster.put(keys.task_observed(low), report(low, 1, TaskState.STOPPED))
            await eventually(lambda: [name.partition("-")[0] for name in cluster.wanted()] == ["high"], within_s=1)
            await asyncio.sleep(1)
            assert len(cluster.wanted()) == 1


@virtually
async def test_tasks_of_a_lost_node_are_replaced_after_the_time_the_workload_gives_it() -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(TERM, cluster.committer)):
            await cluster.add_workload(build_workload(replicas=3, lost_after_s=10.0))
            lost = await placed_on(cluster)
            await cluster.set_reachable(lost, False)
            await asyncio.sleep(9)
            assert lost in cluster.wanted().values()
            assert await eventually(lambda: lost not in cluster.wanted().values()) < 2
            assert len(cluster.wanted()) == 3


@virtually
async def test_absence_is_not_counted_from_an_earlier_term_of_the_same_coordinator() -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        await cluster.add_workload(build_workload(replicas=3, lost_after_s=10.0))
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(TERM, cluster.committer)):
            lost = await placed_on(cluster)
            await cluster.set_reachable(lost, False)
            await asyncio.sleep(1)
        await cluster.set_reachable(lost, True)
        await asyncio.sleep(60)
        await cluster.set_reachable(lost, False)
        await asyncio.sleep(1)
        async with running(orchestrator.run(TERM + 1, cluster.committer)):
            await asyncio.sleep(9)
            assert lost in cluster.wanted().values()
            await eventually(lambda: lost not in cluster.wanted().values(), within_s=2)


@virtually
async def test_plans_made_from_an_old_view_are_refused_and_made_again() -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        rivals = [Orchestrator(cluster.replica, CLOCK) for _ in range(2)]
        async with running(*(rival.run(TERM, cluster.committer) for rival in rivals)):
            for replicas in (3, 9, 1, 6):
                await cluster.add_workload(build_workload(replicas=replicas))
                cluster.store.choose = script(Fault(request_delay_s=0.3), ANSWER_LOST, REQUEST_LOST)
                for _ in range(40):
                    for task in list(cluster.replica.machine.tasks.values()):
                        if not task.wanted and not task.ended:
                            await cluster.put(
                                keys.task_observed(task.id),
                                replace(report(task.id, 1, TaskState.STOPPED), node_id=task.desired.node_id),
                            )
                    await asyncio.sleep(0.5)
                assert len(cluster.wanted()) == replicas


@virtually
async def test_many_reports_of_a_workload_that_takes_long_to_plan_cost_few_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds: list[float] = []

    def slowly(*arguments: Any) -> OrchestrationPlan:
        rounds.append(CLOCK.monotonic_s())
        freeze(0.05)
        return plan_workloads(*arguments)

    monkeypatch.setattr("cloudless.coordinator.orchestrator.plan_workloads", slowly)
    async with leading() as cluster:
        await three_nodes(cluster)
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(TERM, cluster.committer)):
            await cluster.add_workload(build_workload(replicas=30))
            await eventually(lambda: len(cluster.wanted()) == 30)
            await asyncio.sleep(2)
            before = len(rounds)
            for task_id, node_id in cluster.wanted().items():
                await cluster.put(keys.task_observed(task_id), report(task_id, 1, node_id=node_id))
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            assert 1 <= len(rounds) - before <= 5, "thirty reports within 0.3 s"
            ended = sorted(cluster.wanted())[0]
            gone = replace(report(ended, 2, TaskState.FAILED), node_id=cluster.wanted()[ended])
            await cluster.put(keys.task_observed(ended), gone)
            before, ended_s = len(rounds), CLOCK.monotonic_s()
            await eventually(lambda: len(rounds) > before)
            assert rounds[before] - ended_s < 0.05, "an end is acted on at once"


@virtually
async def test_an_event_missed_is_made_good_by_planning_everything_again() -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        orchestrator = Orchestrator(cluster.replica, CLOCK)
        async with running(orchestrator.run(TERM, cluster.committer)):
            await asyncio.sleep(1)
            listeners, cluster.replica._listeners = cluster.replica._listeners, []
            await cluster.add_workload(build_workload(replicas=2))
            await eventually(lambda: len(cluster.wanted()) == 2, within_s=31)
            cluster.replica._listeners = listeners


# --- committing ---


class Scripted(Committer):
    """A committer whose answers are given."""

    def __init__(self, cluster: Cluster, *answers: CloudlessError) -> None:
        super().__init__(cluster.store, CLOCK)
        self.answers = list(answers)

    async def commit_all(self, changes, **kwargs):
        return [self.answers.pop(0) for _ in changes]


CHANGE = Change(puts=(PutRecord("k", NodeSpec()),), preconditions=(Precondition("k", 0),))


@virtually
async def test_a_refused_change_costs_itself_an_ended_term_everything() -> None:
    async with leading() as cluster:
        refusals = (NoSpace("full"), TooLarge("large"), Unavailable("away"), InvariantBroken("twice"))
        assert await commit_changes(Scripted(cluster, *refusals), cluster.replica, [CHANGE] * 4) == 4
        for error in (Fenced("over"), LeaseLost("gone")):
            with pytest.raises(type(error)):
                await commit_changes(Scripted(cluster, NoSpace("full"), error), cluster.replica, [CHANGE] * 2)


@virtually
async def test_the_cluster_is_named_once_by_whoever_is_first() -> None:
    async with leading() as cluster:
        cluster.store.choose = script(ANSWER_LOST)
        namers = [ClusterNamer(f"c{i}", cluster.replica, CLOCK, Numbered()) for i in range(2)]
        await asyncio.gather(*(namer.run(TERM, cluster.committer) for namer in namers))
        written = [event for event in cluster.memory._log if event.kv.key == keys.CLUSTER]
        assert len(written) == 1
        assert cluster.replica.machine.cluster is not None


@virtually
async def test_ended_tasks_of_workloads_that_are_gone_are_forgotten() -> None:
    async with leading() as cluster:
        await cluster.add_task("t1", "n1")
        await cluster.put(keys.task_observed("t1"), report("t1", 1, TaskState.COMPLETED))
        async with running(Reaper(cluster.replica, CLOCK).run(TERM, cluster.committer)):
            await eventually(lambda: not cluster.replica.machine.tasks, within_s=3600)


@virtually
async def test_what_is_over_is_forgotten_soon_after_it_was_looked_at_and_what_runs_never() -> None:
    async with leading() as cluster:
        await cluster.put(keys.workload("default", "web"), build_workload("web", uid="web", replicas=1))
        async with running(Reaper(cluster.replica, CLOCK).run(TERM, cluster.committer)):
            await CLOCK.sleep(Reaper.PERIOD_S + 1)  # the look at everything is over
            for number in range(3):
                await cluster.add_task(f"gone-{number}", "n1")
            await CLOCK.sleep(2 * Reaper.PERIOD_S)
            assert len(cluster.replica.machine.tasks) == 3
            for number in range(2):
                await cluster.put(
                    keys.task_observed(f"gone-{number}"), report(f"gone-{number}", 1, TaskState.COMPLETED)
                )
            await eventually(lambda: len(cluster.replica.machine.tasks) == 1, within_s=2 * Reaper.PERIOD_S)


# --- liveness ---


async def beat(heard: HeardTable, *node_ids: str) -> None:
    while True:
        for node_id in node_ids:
            heard.hear(node_id, own=True)
        await CLOCK.sleep(0.5)


@virtually
async def test_only_who_falls_silent_is_unreachable_and_is_reachable_again_when_heard() -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        heard = HeardTable(CLOCK)
        controller = LivenessController(cluster.replica, heard, CLOCK, NODE_TIMEOUT_S)
        async with running(controller.run(TERM, cluster.committer), beat(heard, "n1", "n2")):
            async with running(beat(heard, "n3")):
                await asyncio.sleep(10)
                assert not cluster.unreachable()
            assert await eventually(lambda: cluster.unreachable() == {"n3"}) < NODE_TIMEOUT_S + 0.6
            writes = await cluster.memory.current_revision(timeout_s=1)
            await asyncio.sleep(20)
            assert await cluster.memory.current_revision(timeout_s=1) == writes, "only changes are written"
            heard.hear("n3", own=False)
            await eventually(lambda: not cluster.unreachable(), within_s=1)


@virtually
async def test_a_new_leader_gives_everybody_a_whole_timeout() -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        controller = LivenessController(cluster.replica, HeardTable(CLOCK), CLOCK, NODE_TIMEOUT_S)
        async with running(controller.run(TERM, cluster.committer)):
            await asyncio.sleep(NEVER_HEARD_S - 0.3)
            assert not cluster.unreachable()
            await eventually(lambda: len(cluster.unreachable()) == 3, within_s=1)


@pytest.mark.parametrize("during_a_commit", [False, True])
@virtually
async def test_a_leader_that_was_frozen_does_not_take_its_own_sleep_for_everybodys_death(during_a_commit: bool) -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        heard = HeardTable(CLOCK)
        controller = LivenessController(cluster.replica, heard, CLOCK, NODE_TIMEOUT_S)
        async with running(controller.run(TERM, cluster.committer)):
            async with running(beat(heard, "n1", "n2", "n3")):
                await asyncio.sleep(5)
                if during_a_commit:
                    await cluster.add_node("n4")
                    heard.hear("n4", own=True)
                    cluster.store.choose = script(Fault(answer_delay_s=0.3))
                    await cluster.set_reachable("n4", False)
                    await asyncio.sleep(0.25)
            freeze(60)
            await asyncio.sleep(1)
            assert cluster.unreachable() <= {"n4"}
            async with running(beat(heard, "n1", "n2")):
                await eventually(lambda: {"n3"} <= cluster.unreachable(), within_s=NEVER_HEARD_S + 1)
                assert not cluster.unreachable() & {"n1", "n2"}


@virtually
async def test_the_leader_writes_how_far_a_node_can_be_relied_on_and_seldom() -> None:
    async with leading() as cluster:
        await three_nodes(cluster)
        for node_id in ("n1", "n2", "n3"):
            await cluster.set_reachable(node_id, True)

        def reliability() -> list[float]:
            return [node.status.reliability for node in cluster.replica.machine.nodes.values() if node.status]

        async with running(ReliabilityKeeper(cluster.replica, CLOCK).run(TERM, cluster.committer)):
            await asyncio.sleep(1)
            await cluster.set_reachable("n2", False)
            await eventually(lambda: reliability() == [1.0, 0.7, 1.0], within_s=6)
            writes = await cluster.memory.current_revision(timeout_s=1)
            await asyncio.sleep(600)
            assert await cluster.memory.current_revision(timeout_s=1) - writes <= 2
