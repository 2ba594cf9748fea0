"""What a running cluster promises its users, asked of real processes: what was acknowledged stays, tasks run on.

One cluster serves the whole file. Each test begins with it whole and without workloads; what a test breaks, the
next one's fixture mends.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc.aio
import pytest

from cloudless.adapters.member import procfs
from cloudless.cli.dev.table import send
from cloudless.cli.methods import (
    APPLY_WORKLOAD,
    DELETE_WORKLOAD,
    EXPLAIN_WORKLOAD,
    GET_DIGEST,
    GET_WORKLOAD,
    LIST_EVENTS,
    LIST_WORKLOADS,
    REMOVE_MEMBER,
    SCALE_WORKLOAD,
    UPDATE_NODE,
    WATCH,
)
from cloudless.core import keys
from cloudless.errors import CloudlessError, Conflict, MemberRemoved, NotFound, outcome_of
from cloudless.ports import Delete, Put
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest, RemoveMemberRequest
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_LINEARIZABLE, ReadOptions, WriteOptions
from cloudless.rpc.v1.event_pb2 import Change, ListEventsRequest, WatchRequest
from cloudless.rpc.v1.node_pb2 import UpdateNodeRequest
from cloudless.rpc.v1.objects_pb2 import DESIRED_RUNNING, TASK_STATE_RUNNING, TaskDesired, TaskObserved
from cloudless.rpc.v1.workload_pb2 import (
    ApplyWorkloadRequest,
    DeleteWorkloadRequest,
    ExplainWorkloadRequest,
    GetWorkloadRequest,
    ListWorkloadsRequest,
    ScaleWorkloadRequest,
    Workload,
)
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of, stale
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIRST, SECOND, THIRD = COORDINATORS
AGENTS = {"agent-1": "zone-a", "agent-2": "zone-b", "agent-3": "zone-a"}
READY_AFTER_STOP_S = 10.0
REPLACED_S = 10.0
HANDED_OVER_S = 3.0
FROZEN_S = 6.0
WRITES_MIN = 50
SPREAD = {"placement": {"spreadTopology": "node"}}

Running = dict[str, tuple[int, int]]
"""Task id → (pid, attempt)."""


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("life"), binary.path)
    made.add_coordinators()
    made.found_together()
    for name, zone in AGENTS.items():
        made.add_agent(name, zone=zone)
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(living: LocalCluster) -> LocalCluster:
    """The cluster, whole again: every process runs, every node is ready, no workload is left."""
    living.start(*(name for name, process in living.processes.items() if not process.lives))
    living.wait_formed()
    for agent in AGENTS:
        living.call(UPDATE_NODE, UpdateNodeRequest(node_id=agent, cordoned=False, draining=False))
    living.wait_ready()
    for workload in workloads(living):
        if not workload.record.deleted_at_ms:
            living.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=workload.record.name))
    living.until(lambda: not workloads(living), "no workload left")
    return living


# --- what is asked again and again ---


def workloads(cluster: LocalCluster) -> list[Workload]:
    return list(cluster.call(LIST_WORKLOADS, ListWorkloadsRequest()).workloads)


def workload(cluster: LocalCluster, name: str, *via: str) -> Workload:
    return cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=name), *via).workload


def running(cluster: LocalCluster, name: str) -> Running:
    return {
        task.desired.id: (task.observed.pid, task.observed.attempt)
        for task in cluster.tasks(name)
        if task.state == "RUNNING" and task.desired.desired == DESIRED_RUNNING
    }


def run_workload(cluster: LocalCluster, name: str, replicas: int, **spec: object) -> Running:
    """Apply a workload and return its tasks once all run."""
    cluster.apply(manifest_of(name, replicas=replicas, **spec))  # type: ignore[arg-type]
    return wait_running(cluster, name, replicas)


def wait_running(cluster: LocalCluster, name: str, replicas: int, timeout_s: float = 30.0) -> Running:
    def look() -> Running | None:
        seen = workload(cluster, name).summary
        done = (seen.running, seen.active, seen.updated) == (replicas,) * 3
        return running(cluster, name) if done else None

    return cluster.until(look, f"{replicas} tasks of {name} run", timeout_s)


def nodes_of(cluster: LocalCluster, name: str) -> set[str]:
    return {task.desired.node_id for task in cluster.tasks(name)}


def watched(cluster: LocalCluster, via: str, from_revision: int, to_revision: int, *kinds: str) -> list[Change]:
    """Return all changes from one revision to another, as one coordinator's watch tells them."""
    changes: list[Change] = []
    request = WatchRequest(from_revision=from_revision, kinds=kinds)
    for answer in cluster.client(via).stream(WATCH, request, timeout_s=20.0):
        changes += [change for change in answer.changes if change.revision <= to_revision]
        if answer.revision >= to_revision:
            return changes
    raise AssertionError(f"the watch ended before revision {to_revision}")


@dataclass
class Load:
    """Writers that count up one value each and remember what was acknowledged."""

    cluster: LocalCluster
    via: tuple[str, ...] = ()
    acknowledged: dict[str, int] = field(default_factory=dict)
    count: int = 0
    refusals: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def write_on(self, name: str) -> None:
        client = self.cluster.new_client(*self.via)
        try:
            for number in itertools.count(1):
                if self._stopping.is_set():
                    return
                request = ApplyWorkloadRequest(
                    options=WriteOptions(request_id=uuid.uuid4().hex),
                    manifest=manifest_of(name, replicas=0, env={"NUMBER": str(number)}),
                )
                try:
                    client.call(APPLY_WORKLOAD, request, timeout_s=30.0)
                except CloudlessError as error:
                    if not error.retryable:
                        self.refusals.append(str(error))
                else:
                    self.acknowledged[name] = number
                    self.count += 1
        finally:
            client.close()

    @contextmanager
    def running(self, writers: int = 3) -> Iterator[Load]:
        threads = [threading.Thread(target=self.write_on, args=(f"load-{n}",)) for n in range(writers)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def assert_kept(self, via: str) -> None:
        """Every writer's workload holds the last number acknowledged, or the one that was under way."""
        assert self.refusals == []
        for name, number in self.acknowledged.items():
            held = int(workload(self.cluster, name, via).record.spec.env["NUMBER"])
            assert held >= number, f"{name}: {number} was acknowledged, {via} holds {held}"


# --- reading and writing ---


def test_a_write_through_one_coordinator_is_read_at_its_revision_on_the_others(cluster: LocalCluster) -> None:
    revision = cluster.apply(manifest_of("read", replicas=0), SECOND).header.revision
    digests = set()
    for name in COORDINATORS:
        answer = cluster.call(GET_WORKLOAD, GetWorkloadRequest(name="read", read=stale(revision)), name)
        assert answer.header.revision >= revision
        assert answer.header.coordinator_id == name
        assert answer.workload.revision == revision
        digests.add(cluster.call(GET_DIGEST, GetDigestRequest(revision=revision), name).digest)
    assert len(digests) == 1
    cluster.assert_equal_states()


def test_a_linearizable_read_sees_what_was_written_anywhere_before(cluster: LocalCluster) -> None:
    read = ReadOptions(consistency=CONSISTENCY_LINEARIZABLE)
    for number in range(30):
        writer, reader = random.sample(COORDINATORS, 2)
        written = cluster.apply(manifest_of("fresh", replicas=0, env={"NUMBER": str(number)}), writer)
        answer = cluster.call(GET_WORKLOAD, GetWorkloadRequest(name="fresh", read=read), reader)
        assert answer.workload.record.spec.env["NUMBER"] == str(number), f"from {writer} to {reader}"
        assert answer.workload.revision == written.header.revision


def test_a_request_id_has_one_effect_and_one_answer_wherever_it_is_sent_again(cluster: LocalCluster) -> None:
    cluster.apply(manifest_of("once", replicas=0))
    request = ScaleWorkloadRequest(options=WriteOptions(request_id=uuid.uuid4().hex), name="once", replicas=1)
    first = cluster.call(SCALE_WORKLOAD, request, FIRST)
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="once", replicas=0), SECOND)
    for name in COORDINATORS:
        again = cluster.call(SCALE_WORKLOAD, request, name)
        assert again.header.revision == first.header.revision
        assert again.workload.record.generation == 3, "the later change must stand"
        assert again.workload.record.spec.replicas == 0
    other = ScaleWorkloadRequest(options=request.options, name="once", replicas=2)
    with pytest.raises(Conflict, match="used for a different request"):
        cluster.call(SCALE_WORKLOAD, other, THIRD)


def test_a_request_id_has_one_effect_across_the_death_of_the_leader(cluster: LocalCluster) -> None:
    leader, (other, _) = cluster.leader(), cluster.followers()
    request = ApplyWorkloadRequest(
        options=WriteOptions(request_id=uuid.uuid4().hex), manifest=manifest_of("across", replicas=0)
    )
    first = cluster.call(APPLY_WORKLOAD, request, leader)
    cluster.kill(leader, etcd=True)
    again = cluster.call(APPLY_WORKLOAD, request, other)
    assert list(again.results) == list(first.results)
    assert again.header.revision == first.header.revision
    assert workload(cluster, "across", other).record.generation == 1


def test_a_write_under_an_old_revision_is_refused(cluster: LocalCluster) -> None:
    seen = cluster.apply(manifest_of("guarded", replicas=0), FIRST).header.revision
    moved = cluster.call(
        SCALE_WORKLOAD,
        ScaleWorkloadRequest(options=WriteOptions(if_revision=seen), name="guarded", replicas=1),
        SECOND,
    )
    late = ScaleWorkloadRequest(options=WriteOptions(if_revision=seen), name="guarded", replicas=2)
    with pytest.raises(Conflict, match=f"is at revision {moved.header.revision}, not {seen}"):
        cluster.call(SCALE_WORKLOAD, late, THIRD)
    assert workload(cluster, "guarded").record.spec.replicas == 1


def test_a_watch_goes_on_at_another_coordinator_without_gap_or_repetition(cluster: LocalCluster) -> None:
    begin = cluster.apply(manifest_of("watched", replicas=0)).header.revision + 1
    with Load(cluster).running() as load:
        cluster.until(lambda: load.count >= WRITES_MIN, "some writes")
        middle = cluster.call(GET_DIGEST, GetDigestRequest(), SECOND).revision
        told = watched(cluster, SECOND, begin, middle)
        # The next coordinator may be behind the one before: it must neither repeat nor skip.
        end = cluster.apply(manifest_of("watched", replicas=0, env={"END": "1"}), FIRST).header.revision
        told += watched(cluster, THIRD, middle + 1, end)
    whole = watched(cluster, FIRST, begin, end)
    assert [(c.key, c.revision, c.deleted) for c in told] == [(c.key, c.revision, c.deleted) for c in whole]
    assert [c.record for c in told] == [c.record for c in whole]
    assert [c.revision for c in told] == sorted(c.revision for c in told)


def test_a_watch_that_reaches_back_tells_all_that_is_written_while_it_catches_up(cluster: LocalCluster) -> None:
    begin = cluster.apply(manifest_of("watched", replicas=0)).header.revision + 1
    with Load(cluster).running() as load:
        cluster.until(lambda: load.count >= WRITES_MIN, "some writes")
        for via in COORDINATORS:
            newest = cluster.call(GET_DIGEST, GetDigestRequest(), via).revision
            told = watched(cluster, via, begin, newest + 20, "workload")
            assert told == watched(cluster, via, begin, newest + 20, "workload")
            assert len(told) == len({(change.key, change.revision) for change in told})
            assert [change.revision for change in told] == sorted(change.revision for change in told)


def test_readers_that_give_up_waiting_do_not_stop_the_coordinator_from_following(cluster: LocalCluster) -> None:
    """Each of them asks etcd for progress on the one watch that they share."""
    future = GetWorkloadRequest(name="followed", read=stale(10**9)).SerializeToString()

    async def wait_in_vain() -> None:
        async with grpc.aio.insecure_channel(cluster.processes[SECOND].address()) as channel:
            get = channel.unary_unary(GET_WORKLOAD.path)
            waits = [get(future, timeout=random.uniform(0.02, 0.2)) for _ in range(300)]
            await asyncio.gather(*waits, return_exceptions=True)

    for number in range(3):
        asyncio.run(wait_in_vain())
        written = cluster.apply(manifest_of("followed", replicas=0, env={"NUMBER": str(number)}), FIRST)
        request = GetWorkloadRequest(name="followed", read=stale(written.header.revision))
        assert cluster.call(GET_WORKLOAD, request, SECOND).workload.revision == written.header.revision


def test_a_value_that_cannot_be_read_is_set_aside_and_shown_until_it_is_gone(cluster: LocalCluster) -> None:
    key = keys.workload("default", "bad")
    cluster.write_raw(FIRST, Put(key, b"\xff\xfe not a record"))
    try:
        for name in COORDINATORS:
            wait_quarantined(cluster, name, 1)
            status = cluster.status(name)
            assert key in status.quarantine
            assert "cannot be read" in " ".join(status.problems)
            with pytest.raises(NotFound, match="cannot be read"):
                workload(cluster, "bad", name)
        run_workload(cluster, "good", 2)
        assert all(process.lives for process in cluster.coordinators)
    finally:
        cluster.write_raw(FIRST, Delete(key))
    for name in COORDINATORS:
        wait_quarantined(cluster, name, 0)
    cluster.assert_equal_states()


def wait_quarantined(cluster: LocalCluster, via: str, count: int) -> None:
    cluster.until(lambda: cluster.status(via).quarantined == count, f"{via} tells of {count} unreadable values")


# --- tasks ---


def test_scaling_adds_and_removes_tasks_and_touches_no_other(cluster: LocalCluster) -> None:
    two = run_workload(cluster, "scaled", 2)
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="scaled", replicas=5))
    five = wait_running(cluster, "scaled", 5)
    assert two.items() <= five.items()
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="scaled", replicas=1))
    one = wait_running(cluster, "scaled", 1)
    assert one.items() <= two.items()
    cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name="scaled"))
    cluster.until(lambda: not workloads(cluster), "the workload is gone")
    assert cluster.tasks("scaled", all=True) == []


def test_an_update_replaces_tasks_one_by_one_and_never_runs_fewer_than_asked(cluster: LocalCluster) -> None:
    rolling = {"strategy": "ROLLING_UPDATE", "maxSurge": 1, "maxUnavailable": 0}
    before = run_workload(cluster, "rolled", 3, rollout=rolling)
    state: dict[str, tuple[int, int]] = {
        task.desired.id: (task.desired.desired, task.observed.state) for task in cluster.tasks("rolled")
    }
    begin = cluster.apply(manifest_of("rolled", replicas=3, rollout=rolling, env={"NEW": "1"})).header.revision
    after = wait_running(cluster, "rolled", 3)
    assert not before.keys() & after.keys()
    end = cluster.call(GET_DIGEST, GetDigestRequest(), FIRST).revision
    up = []
    told = watched(cluster, FIRST, begin, end, "task-desired", "task-observed")
    for _, changes in itertools.groupby(told, key=lambda change: change.revision):
        for change in changes:
            note(state, change)
        wanted = [seen for desired, seen in state.values() if desired == DESIRED_RUNNING]
        up.append(wanted.count(TASK_STATE_RUNNING))
        assert len(wanted) <= 4, "more than replicas + maxSurge"
    assert min(up) >= 3, up
    assert {t.desired.task_generation for t in cluster.tasks("rolled") if t.desired.id in after} == {2}


def note(state: dict[str, tuple[int, int]], change: Change) -> None:
    """Bring (desired, observed) of the task that a change is about up to date."""
    task_id = change.key.split("/")[-2]
    desired, seen = state.get(task_id, (0, 0))
    record: TaskDesired | TaskObserved
    if change.deleted:
        state.pop(task_id, None)
    elif change.kind == "task-desired":
        record = change.record.task_desired
        state[task_id] = record.desired, seen
    else:
        record = change.record.task_observed
        state[task_id] = desired, record.state


def test_a_drained_node_is_emptied_and_a_cordoned_one_takes_nothing_new(cluster: LocalCluster) -> None:
    run_workload(cluster, "moved", 3, **SPREAD)
    assert nodes_of(cluster, "moved") == set(AGENTS)
    cluster.call(UPDATE_NODE, UpdateNodeRequest(node_id="agent-2", draining=True), SECOND)
    cluster.until(lambda: cluster.phases()["agent-2"] == "DRAINED", "agent-2 is empty")
    kept = wait_running(cluster, "moved", 3)
    assert "agent-2" not in nodes_of(cluster, "moved")

    cluster.call(UPDATE_NODE, UpdateNodeRequest(node_id="agent-2", draining=False, cordoned=False))
    cluster.call(UPDATE_NODE, UpdateNodeRequest(node_id="agent-1", cordoned=True))
    cluster.until(lambda: cluster.phases()["agent-1"] == "CORDONED", "agent-1 is cordoned")
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="moved", replicas=6))
    six = wait_running(cluster, "moved", 6)
    assert kept.items() <= six.items(), "cordoning moves nothing"
    new = {task.desired.node_id for task in cluster.tasks("moved") if task.desired.id not in kept}
    assert new <= {"agent-2", "agent-3"}


def test_an_impossible_request_is_explained_with_counts_for_each_reason(cluster: LocalCluster) -> None:
    cluster.call(UPDATE_NODE, UpdateNodeRequest(node_id="agent-3", cordoned=True))
    cluster.apply(manifest_of("vast", replicas=2, resources={"requests": {"cpu": "64", "memory": "8Mi"}}))
    told = cluster.call(EXPLAIN_WORKLOAD, ExplainWorkloadRequest(name="vast"), SECOND)
    assert [slot.slot for slot in told.unplaced] == [0, 1]
    for slot in told.unplaced:
        assert slot.nodes_total == 3
        assert sum(reason.count for reason in slot.reasons) == 3
        assert {reason.count for reason in slot.reasons if "cordoned" in reason.reason} == {1}
        assert {reason.count for reason in slot.reasons if "cpu" in reason.reason} == {2}
    assert "2 tasks have no node: 0 of 3 nodes fit" in told.verdict


def test_a_killed_agent_comes_back_to_its_running_tasks(cluster: LocalCluster) -> None:
    before = run_workload(cluster, "survives", 3, **SPREAD)
    cluster.kill(*AGENTS)
    cluster.until(lambda: sessions(cluster) == 0, "the agents are missed")
    cluster.start(*AGENTS)
    assert_left_alone(cluster, "survives", before)


def test_a_second_agent_of_a_living_nodes_id_is_kept_out(cluster: LocalCluster) -> None:
    before = run_workload(cluster, "alone", 3, **SPREAD)
    cluster.add_agent("namesake")
    taken = min(AGENTS)
    cluster.processes["namesake"].settings["NODE_ID"] = taken
    cluster.start("namesake")
    try:
        log = cluster.processes["namesake"].log
        refusal = f"another agent with the node id {taken} is alive"
        cluster.until(lambda: refusal in log.read_text(encoding="utf-8"), "the second agent is told why")
    finally:
        cluster.stop("namesake")
        del cluster.processes["namesake"]
    assert_left_alone(cluster, "alone", before)


def sessions(cluster: LocalCluster) -> int:
    return int(sum(cluster.metric(name, "agent_sessions") for name in COORDINATORS))


def assert_left_alone(cluster: LocalCluster, name: str, before: Running) -> None:
    """After their agents came back, the tasks are the same processes as before, and the agents take new ones."""
    cluster.until(lambda: sessions(cluster) == 2 * len(AGENTS), "every agent has its two sessions")
    cluster.wait_ready()
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name=name, replicas=2 * len(before)))
    after = wait_running(cluster, name, 2 * len(before))
    assert nodes_of(cluster, name) == set(AGENTS)
    assert before.items() <= after.items()
    assert all(procfs.start_ticks(pid) is not None for pid, _ in after.values())


def test_tasks_of_a_node_that_is_gone_are_replaced_on_others(cluster: LocalCluster) -> None:
    before = run_workload(cluster, "replaced", 3, **SPREAD)
    lost = {task.desired.id for task in cluster.tasks("replaced") if task.desired.node_id == "agent-2"}
    assert len(lost) == 1
    started_s = time.monotonic()
    cluster.kill("agent-2")
    cluster.kill_tasks("agent-2")
    cluster.until(
        lambda: len(running(cluster, "replaced")) == 3 and "agent-2" not in nodes_of_running(cluster, "replaced"),
        "three run on the others", REPLACED_S,
    )  # fmt: skip
    print(f"replaced after {time.monotonic() - started_s:.1f} s")
    after = running(cluster, "replaced")
    assert {id: who for id, who in before.items() if id not in lost}.items() <= after.items()
    cluster.until(lambda: cluster.phases()["agent-2"] == "OFFLINE", "agent-2 is offline")


def nodes_of_running(cluster: LocalCluster, name: str) -> set[str]:
    return {task.desired.node_id for task in cluster.tasks(name) if task.state == "RUNNING"}


# --- the leader, and everyone ---


def test_a_leader_that_is_stopped_hands_over(cluster: LocalCluster) -> None:
    tasks = run_workload(cluster, "handed", 3, **SPREAD)
    leader, term = cluster.leader(), cluster.status().header.term
    other = cluster.followers()[0]
    asked_s = time.monotonic()
    cluster.signal(leader, signal.SIGTERM)
    cluster.until(lambda: new_leader(cluster, other, term), "a new leader", HANDED_OVER_S)
    handed_s = time.monotonic() - asked_s
    code, said = cluster.exit_of(leader)
    print(f"handed over after {handed_s:.2f} s, ended after {time.monotonic() - asked_s:.2f} s")
    assert code == 0, said
    assert running(cluster, "handed") == tasks


def new_leader(cluster: LocalCluster, via: str, old_term: int) -> str:
    """Return who leads a newer term, as `via` sees it; "" if nobody does."""
    header = cluster.status(via).header
    return header.leader_id if header.term > old_term else ""


def test_a_frozen_leader_is_replaced_and_steps_down_when_it_thaws(cluster: LocalCluster) -> None:
    tasks = run_workload(cluster, "frozen", 3, **SPREAD)
    begin = cluster.call(GET_DIGEST, GetDigestRequest(), FIRST).revision + 1
    old, term = cluster.leader(), cluster.status().header.term
    others = tuple(cluster.followers())
    frozen_s = time.monotonic()
    cluster.signal(old, signal.SIGSTOP)
    try:
        new = cluster.until(lambda: new_leader(cluster, others[0], term), "a new leader")
        print(f"new leader after {time.monotonic() - frozen_s:.2f} s")
        with Load(cluster, via=others).running() as load:
            cluster.until(lambda: time.monotonic() - frozen_s > FROZEN_S, "the lease is long over")
            assert load.count >= WRITES_MIN
    finally:
        cluster.signal(old, signal.SIGCONT)
    assert new != old
    cluster.wait_ready()
    cluster.wait_http(old, "/follower", 200)
    assert [cluster.metric(name, "is_leader") for name in COORDINATORS].count(1.0) == 1
    load.assert_kept(old)
    assert running(cluster, "frozen") == tasks
    assert_one_leader_a_term(cluster, begin)


def assert_one_leader_a_term(cluster: LocalCluster, begin: int) -> None:
    """Of each term one coordinator wrote, and no older term wrote after a newer one had begun to."""
    end = cluster.call(GET_DIGEST, GetDigestRequest(), FIRST).revision
    wrote = [
        (change.record.event.term, change.record.event.source)
        for change in watched(cluster, FIRST, begin, end, "event")
        if change.record.event.term
    ]
    assert wrote == sorted(wrote, key=lambda entry: entry[0])
    assert len({term for term, _ in wrote}) == len(set(wrote)), wrote


def test_a_coordinator_whose_etcd_is_frozen_says_so_and_the_others_serve(cluster: LocalCluster) -> None:
    tasks = run_workload(cluster, "calm", 3, **SPREAD)
    for victim in (cluster.leader(), cluster.followers()[0]):
        etcd = cluster.etcd_of(victim)
        assert etcd is not None
        others = tuple(name for name in COORDINATORS if name != victim)
        send(etcd, signal.SIGSTOP)
        try:
            frozen_s = time.monotonic()
            cluster.wait_http(victim, "/readyz", 503, READY_AFTER_STOP_S)
            print(f"unready after {time.monotonic() - frozen_s:.1f} s")
            assert cluster.http(victim, "/livez") == 200
            cluster.until(partial(cluster.apply, manifest_of("go-on", replicas=0), *others), "the others serve")
            assert all(cluster.http(name, "/readyz") == 200 for name in others)
        finally:
            send(etcd, signal.SIGCONT)
        cluster.wait_http(victim, "/readyz", 200)
        cluster.wait_ready()
    assert running(cluster, "calm") == tasks


def test_after_everything_was_killed_all_that_was_acknowledged_is_there_and_tasks_run_on(cluster: LocalCluster) -> None:
    tasks = run_workload(cluster, "lasting", 3, **SPREAD)
    with Load(cluster).running() as load:
        cluster.until(lambda: load.count >= WRITES_MIN, "some writes")
        kill_all(cluster)
        at_kill = dict(load.acknowledged)
        names = random.sample(list(cluster.processes), len(cluster.processes))
        print("started in the order", *names)
        started_s = time.monotonic()
        cluster.start(*names)
        cluster.wait_ready()
        print(f"whole after {time.monotonic() - started_s:.1f} s")
        cluster.until(lambda: all(load.acknowledged[n] > at_kill[n] for n in at_kill), "writes go on")
    for name in COORDINATORS:
        load.assert_kept(name)
    assert_left_alone(cluster, "lasting", tasks)
    cluster.assert_equal_states()


def kill_all(cluster: LocalCluster) -> None:
    """Kill all coordinators, their etcd and all agents at once; tasks run on."""
    etcds = [cluster.etcd_of(name) for name in COORDINATORS]
    for name in cluster.processes:
        cluster.signal(name, signal.SIGKILL)
    for etcd in etcds:
        assert etcd is not None
        send(etcd, signal.SIGKILL)
    for name in cluster.processes:
        cluster.exit_of(name)


def test_a_removed_member_ends_with_a_clear_message_and_can_join_anew(cluster: LocalCluster) -> None:
    victim = cluster.followers()[0]
    others = tuple(name for name in COORDINATORS if name != victim)
    cluster.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=victim), *others)
    code, said = cluster.exit_of(victim)
    assert code == outcome_of(MemberRemoved).exit_code
    assert f"the cluster has removed the member of {victim}" in said
    assert "start with an empty CLOUDLESS_DATA_DIR" in said
    cluster.start(victim)
    again, said = cluster.exit_of(victim)
    assert again == code, said
    assert "removed" in said.splitlines()[-2]
    cluster.empty(victim)
    cluster.start(victim)
    cluster.wait_formed()
    cluster.assert_one_cluster()


def test_events_tell_what_happened_once(cluster: LocalCluster) -> None:
    run_workload(cluster, "told", 2)
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="told", replicas=1))
    wait_running(cluster, "told", 1)
    ids = {task.desired.id for task in cluster.tasks("told", all=True)}

    def created() -> list[str]:
        events = cluster.call(LIST_EVENTS, ListEventsRequest(limit=1000)).events
        return [e.subject for e in events if e.kind == "TaskCreated" and e.subject.removeprefix("task/") in ids]

    cluster.until(lambda: len(created()) >= 2, "both are told")
    assert sorted(created()) == sorted(f"task/{id}" for id in ids)
