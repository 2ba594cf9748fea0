"""What happens when there is much of something: agents, reports, changes nobody reads."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import grpc.aio

from cloudless.cli.failures import to_failure
from cloudless.cli.methods import APPLY_WORKLOAD, DELETE_WORKLOAD, GET_DIGEST, SCALE_WORKLOAD, WATCH
from cloudless.core import keys
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.agent_pb2 import CoordinatorMessage
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from cloudless.rpc.v1.event_pb2 import WatchRequest, WatchResponse
from cloudless.rpc.v1.objects_pb2 import DESIRED_RUNNING, TASK_STATE_RUNNING, TaskDesired, TaskObserved
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest, DeleteWorkloadRequest, ScaleWorkloadRequest
from tests.faults.rig.agents import NO_READ_AHEAD, RawAgent, Swarm
from tests.faults.rig.scenario import scenario
from tests.faults.rig.swarm import ZONE
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster, manifest_of

AGENTS = 100
SWARM_READY_S = 120.0
RECONNECTED_S = 20.0
TASKS = 600
PLACED_S = 60.0
REPORTS_PER_S = 1000
REPORTS_TOGETHER = 10
FLOOD_S = 10.0
LATENCY_MAX_S = 1.0
CHANGES_UNREAD = 12_000
QUIET_S = 3.0
DOCUMENTS = 64
SLOW_GROWTH_MAX_MB = 150.0
SLEEPY = {"zones": ["sleepy"]}


@scenario(40, budget_s=360)
def test_a_hundred_agents_that_come_back_at_once_cost_no_lease(trial: Trial) -> None:
    cluster = trial.start()
    swarm = gather(trial, cluster, AGENTS)
    for _ in trial.rounds():
        trial.load_up()
        leader, term = cluster.leader(), cluster.status().header.term
        others = cluster.followers()
        leases = sum(logged(cluster, name, "session lease given up") for name in others)
        began_s = trial.note(f"kill {leader} and its etcd, with {cluster.metric(leader, 'agent_sessions'):g} sessions")
        cluster.kill(leader, etcd=True)
        cluster.until(lambda: whole(swarm, AGENTS, began_s), "every agent has a primary and a warm one", RECONNECTED_S)
        trial.figure("reconnected_s", time.monotonic() - began_s)
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        after = cluster.until(lambda: cluster.status(*others).header, "a header")
        assert after.term > term
        assert len(trial.load.terms_since(began_s) - {term}) == 1, "one election is enough"
        assert sum(logged(cluster, name, "session lease given up") for name in others) == leases, "a lease was lost"
        phases = cluster.phases()
        assert {phases[f"swarm-{n}"] for n in range(AGENTS)} == {"READY"}, "agents that live were given up"
        cluster.start(leader)
        trial.settle(within_s=60.0)


@scenario(44, budget_s=240)
def test_hundreds_of_tasks_at_once_are_placed_and_ended_in_several_transactions(trial: Trial) -> None:
    cluster = trial.start()
    swarm = gather(trial, cluster, 20)
    manifest = manifest_of("crowd", replicas=TASKS, command=["run"], placement={"zones": [ZONE]})
    for _ in trial.rounds():
        trial.load_up()
        began_s = trial.note(f"{TASKS} tasks at once")
        cluster.apply(manifest)
        cluster.until(lambda: has_running(swarm, TASKS), f"{TASKS} tasks run", PLACED_S)
        trial.figure("placed_s", time.monotonic() - began_s)
        began_s = trial.note("scaled to none")
        cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="crowd", replicas=0))
        cluster.until(lambda: has_running(swarm, 0), "no task runs", PLACED_S)
        trial.figure("ended_s", time.monotonic() - began_s)
        cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name="crowd"))
        trial.settle()


def gather(trial: Trial, cluster: LocalCluster, count: int) -> Swarm:
    """Start a swarm and wait until every agent has two coordinators and is READY."""
    swarm = Swarm(count, cluster)
    trial.closing(swarm.close)
    cluster.until(lambda: whole(swarm, count, 0.0), "every agent has a primary and a warm one", SWARM_READY_S)
    cluster.until(lambda: list(cluster.phases().values()).count("READY") >= count, "they are READY", SWARM_READY_S)
    trial.note(f"{count} agents have come")
    return swarm


def whole(swarm: Swarm, count: int, since_s: float) -> bool:
    now = swarm.now
    return now is not None and now.at_s > since_s + 1.0 and now.primary == now.warm == count


def has_running(swarm: Swarm, count: int) -> bool:
    return swarm.now is not None and swarm.now.running == count


def logged(cluster: LocalCluster, name: str, words: str) -> int:
    return cluster.processes[name].log.read_text(errors="replace").count(words)


@scenario(45)
def test_a_task_that_changes_a_thousand_times_a_second_delays_nobody(trial: Trial) -> None:
    cluster = trial.start()
    first = cluster.coordinators[0].name
    agent = RawAgent("restless", cluster.processes[first].address(), "restless", cluster.trust.enter("restless"))
    trial.closing(lambda: trial.load.run(agent.close()))
    trial.load.run(agent.open())
    cluster.apply(manifest_of("restless", replicas=1, placement={"zones": ["restless"]}))
    task = trial.load.run(first_task(agent))
    for _ in trial.rounds():
        calm_s = time.monotonic()
        trial.load_up(100)
        quiet = latency_s(trial, calm_s)
        began_s = trial.note(f"{REPORTS_PER_S} changes a second")
        reading = trial.load.begin(read_on(agent))
        told = trial.load.run(flood(agent, task, FLOOD_S), FLOOD_S * 4)
        took_s = time.monotonic() - began_s
        noisy = latency_s(trial, began_s)
        trial.read_record()
        key = keys.task_observed(task.id)
        stored = sum(change.key == key for change in trial.evidence.record.changes)
        trial.figure("reported_per_s", told / took_s)
        trial.figure("stored_per_s", stored / took_s)
        trial.figure("others_p95_before_s", quiet)
        trial.figure("others_p95_s", noisy)
        assert told / took_s > REPORTS_PER_S / 2, "too few reports to prove anything"
        assert stored < told / 4, "not conflated"
        assert noisy < max(LATENCY_MAX_S, 5 * quiet)
        cluster.until(lambda: observed_sequence(cluster, task.id) == told, "the last report is stored")
        reading.cancel()  # and with it the session: grpc ends a call whose read is cancelled
        trial.settle()


async def first_task(agent: RawAgent) -> TaskDesired:
    """Return the first task that is assigned to the agent."""
    async with asyncio.timeout(20.0):
        while True:
            await agent.beat()
            message = await agent.read()
            for task in message.assignments.tasks:
                return task


async def flood(agent: RawAgent, task: TaskDesired, seconds: float) -> int:
    """Report the changes of one task, a thousand a second; return how many."""
    began_s, number = time.monotonic(), 0
    while (passed_s := time.monotonic() - began_s) < seconds:
        if number >= passed_s * REPORTS_PER_S:
            await asyncio.sleep(0.001)
            continue
        number += REPORTS_TOGETHER
        await agent.report(*(report_of(agent, task, n) for n in range(number - REPORTS_TOGETHER + 1, number + 1)))
    return number


async def read_on(agent: RawAgent) -> None:
    while True:
        await agent.read()


def report_of(agent: RawAgent, task: TaskDesired, number: int) -> TaskObserved:
    return TaskObserved(
        task_id=task.id, node_id=agent.name, sequence=number, state=TASK_STATE_RUNNING, attempt=1, pid=1,
        message=f"change {number}",
    )  # fmt: skip


def observed_sequence(cluster: LocalCluster, task_id: str) -> int:
    tasks = cluster.tasks("restless")
    return next((task.observed.sequence for task in tasks if task.desired.id == task_id), 0)


def latency_s(trial: Trial, since_s: float) -> float:
    """Return the 95th percentile of the time from sending a write to its acknowledgement, after `since_s`."""
    took = sorted(ack.acked_s - ack.sent_s for ack in list(trial.load.acks) if ack.sent_s >= since_s)
    assert len(took) >= 20, "too few writes to judge their latency"
    return took[len(took) * 95 // 100]


@scenario(39, budget_s=240)
def test_a_watcher_and_an_agent_that_do_not_read_cost_bounded_memory_and_catch_up(trial: Trial) -> None:
    """The watcher is told to read faster and resumes where it was; the agent gets the newest of each task, once."""
    cluster = trial.start()
    first = cluster.coordinators[0].name
    slow = SlowReaders(cluster, first)
    trial.closing(lambda: trial.load.run(slow.close()))
    trial.load.run(slow.open())
    for number in trial.rounds():
        trial.load_up()
        before_mb = cluster.rss_mb(first)
        trial.note("nobody reads")
        done = trial.load.run(change_much(trial, cluster, f"unread-{number}"), 150.0)
        growth_mb = cluster.rss_mb(first) - before_mb
        trial.figure("changes_unread", done)
        trial.figure("growth_mb", growth_mb)
        assert growth_mb < SLOW_GROWTH_MAX_MB
        trial.note("they read again")
        code, revision = trial.load.run(slow.read_watch(), 60.0)
        assert code == "too-large", f"the watch ended with {code}"
        newest = cluster.call(GET_DIGEST, GetDigestRequest(), first).revision
        began_s = time.monotonic()
        trial.load.run(resume_watch(cluster, first, revision + 1, newest), 60.0)
        trial.figure("caught_up_s", time.monotonic() - began_s)
        messages, wanted = trial.load.run(slow.read_assignments(), 60.0)
        trial.figure("assignments_after", messages)
        assert messages < done // (4 * DOCUMENTS), "an agent that did not read is told every step"
        assert wanted == {
            task.desired.id for task in cluster.tasks("unread") if task.desired.desired == DESIRED_RUNNING
        }
        trial.settle()


class SlowReaders:
    """A watcher and an agent of one coordinator that open their streams, and then do not read."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self._address, self._dialler = cluster.processes[name].address(), cluster.dialler
        self.agent = RawAgent("sleepy", cluster.processes[name].address(), "sleepy", cluster.trust.enter("sleepy"))
        self._channel: Any = None
        self._watch: Any = None

    async def open(self) -> None:
        self._channel = self._dialler.open(self._address, options=NO_READ_AHEAD)
        self._watch = watch(self._channel, 0)
        await self._watch.read()
        await self.agent.open()

    async def read_watch(self) -> tuple[str, int]:
        """Read the watch to its end; return the code it ended with and the last revision it told of."""
        revision = 0
        try:
            while (answer := await self._watch.read()) is not grpc.aio.EOF:
                revision = answer.revision
        except grpc.aio.AioRpcError as error:
            return to_failure(error, "", False).error.code, revision
        return "", revision

    async def read_assignments(self) -> tuple[int, set[str]]:
        """Read what waits for the agent; return how many messages, and which tasks it is to run after them."""
        wanted: set[str] = set()
        read: deque[CoordinatorMessage] = deque()
        quiet_from_s = time.monotonic()
        while time.monotonic() < quiet_from_s + QUIET_S:  # acknowledgements of heartbeats come all the time
            message = await self.agent.read()
            if message.WhichOneof("body") == "assignments":
                read.append(message)
                quiet_from_s = time.monotonic()
        for message in read:
            for task in message.assignments.tasks:
                (wanted.add if task.desired == DESIRED_RUNNING else wanted.discard)(task.id)
            wanted -= set(message.assignments.removed_task_ids)
        return len(read), wanted

    async def close(self) -> None:
        await self.agent.close()
        if self._channel is not None:
            self._watch.cancel()
            await self._channel.close()


async def change_much(trial: Trial, cluster: LocalCluster, prefix: str) -> int:
    """Make more changes than a watcher's queue takes, and many to the sleepy agent's tasks; return how many."""
    client, changes, number = trial.load.client(), 0, 0
    padding = {"PADDING": "x" * 8_000}
    while changes < CHANGES_UNREAD:
        number += 1
        # Not the template: a rollout would write far more than is counted here, and than is kept for watchers.
        documents = [manifest_of(f"{prefix}-{n}", replicas=0, lostAfter=f"{number}s") for n in range(DOCUMENTS - 1)]
        documents.append(manifest_of("unread", replicas=number % 4 + 1, env=padding, placement=SLEEPY, lostAfter="10m"))
        try:
            await client.call(APPLY_WORKLOAD, ApplyWorkloadRequest(manifest="\n---\n".join(documents)))
        except CloudlessError as error:
            if not error.retryable:
                raise
        changes += 2 * len(documents)
    return changes


async def resume_watch(cluster: LocalCluster, name: str, from_revision: int, to_revision: int) -> None:
    async with cluster.dialler.open(cluster.processes[name].address()) as channel:
        async for answer in watch(channel, from_revision):
            if answer.revision >= to_revision:
                return


def watch(channel: Any, from_revision: int) -> Any:
    """Begin to watch all changes from a revision on; 0: from now on."""
    request = WatchRequest(from_revision=from_revision)
    return channel.unary_stream(WATCH.path, WatchRequest.SerializeToString, WatchResponse.FromString)(request)
