"""Which tasks' output a caller gets, and when there is no more to come."""

from __future__ import annotations

from typing import Any

from cloudless.coordinator.api.log_choice import Choice, find_readings, is_over
from cloudless.core.model import RestartCondition, RestartPolicy, TaskState
from cloudless.core.orchestration import plan_workload
from cloudless.testing.builders import TestCluster, build_workload

S = TaskState


class World:
    """A workload's tasks, and a caller who follows them; a reader ends when a test says so."""

    def __init__(self, replicas: int = 2, **spec: Any) -> None:
        self.cluster = TestCluster()
        self.cluster.add_node("n0")
        record = self.cluster.add_workload(build_workload(replicas=replicas, **spec))
        self.choice = Choice("default", "web", uid=record.uid)
        self.read: dict[str, int] = {}
        self.reading: set[str] = set()
        self.first = True
        self.plan()

    def plan(self) -> None:
        for _ in range(2):  # of an update the leader first takes note
            plan = plan_workload(self.cluster.machine, "default", "web", 1_000_000, 1, {})
            assert not self.cluster.commit(plan.changes)

    @property
    def ids(self) -> list[str]:
        return sorted(self.cluster.machine.tasks)

    def report(self, task_id: str, state: TaskState, attempt: int = 1) -> None:
        self.cluster.report(task_id, state, attempt=attempt)

    def look(self) -> list[tuple[str, bool]]:
        found = find_readings(self.cluster.machine, self.choice, self.read, self.reading, first=self.first)
        self.first = False
        for reading in found:
            self.reading.add(reading.task.id)
            self.read[reading.task.id] = reading.attempt
        return [(reading.task.id, reading.whole) for reading in found]

    @property
    def over(self) -> bool:
        return not self.reading and is_over(self.cluster.machine, self.choice, self.read)


def test_living_tasks_are_read_first_and_new_ones_from_their_beginning() -> None:
    world = World()
    one, two = world.ids
    world.report(one, S.RUNNING)
    assert world.look() == [(one, False)]
    assert world.look() == []
    world.report(two, S.STARTING)
    assert world.look() == [], "it has said nothing yet"
    world.report(two, S.RUNNING)
    assert world.look() == [(two, True)]
    assert not world.over


def test_an_update_is_followed_and_old_tasks_are_not_read_twice() -> None:
    world = World(replicas=1)
    (old,) = world.ids
    world.report(old, S.RUNNING)
    assert world.look() == [(old, False)]
    world.cluster.update_workload(command=("new",))
    world.plan()
    (new,) = [task_id for task_id in world.ids if task_id != old]
    world.report(new, S.RUNNING)
    assert world.look() == [(new, True)]
    world.report(old, S.STOPPED)
    world.reading = {new}
    assert world.look() == []
    assert not world.over


def test_a_new_attempt_is_read_when_the_reader_of_the_last_one_has_ended() -> None:
    world = World(replicas=1)
    (task,) = world.ids
    world.report(task, S.RUNNING)
    world.look()
    world.report(task, S.BACKOFF)
    world.reading.clear()
    assert world.look() == []
    assert not world.over
    world.report(task, S.RUNNING, attempt=2)
    assert world.look() == [(task, True)]


def test_what_had_ended_before_is_read_only_if_nothing_lives() -> None:
    world = World(restart_policy=RestartPolicy(condition=RestartCondition.NEVER))
    one, two = world.ids
    world.report(one, S.COMPLETED)
    world.report(two, S.RUNNING)
    assert world.look() == [(two, False)]
    assert world.look() == []
    ended = World(replicas=1, restart_policy=RestartPolicy(condition=RestartCondition.NEVER))
    ended.report(ended.ids[0], S.COMPLETED)
    assert ended.look() == [(ended.ids[0], False)]


def test_it_is_over_when_the_job_is_done_or_the_workload_is_gone_or_is_another() -> None:
    world = World(replicas=1, restart_policy=RestartPolicy(condition=RestartCondition.NEVER))
    world.report(world.ids[0], S.RUNNING)
    world.look()
    world.reading.clear()
    assert not world.over
    world.report(world.ids[0], S.COMPLETED)
    assert world.over
    gone = World(replicas=1)
    gone.choice = Choice("default", "web", uid="an earlier one")
    assert gone.look() == []
    assert gone.over


def test_one_task_is_followed_to_its_end() -> None:
    world = World(replicas=2)
    one, two = world.ids
    world.choice = Choice("default", "web", task_id=one)
    for task_id in (one, two):
        world.report(task_id, S.RUNNING)
    assert world.look() == [(one, False)]
    world.reading.clear()
    assert not world.over
    world.report(one, S.BACKOFF)
    assert not world.over
    world.report(one, S.FAILED)
    assert world.over
