"""What happens when the store is full: users are refused by name, the doctor names the cure, and the cure works."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from cloudless.cli.doctor.coordinators import gather_cluster
from cloudless.cli.methods import DELETE_WORKLOAD, LIST_TASKS, LIST_WORKLOADS
from cloudless.core.diagnosis import Facts, Finding, diagnose
from cloudless.errors import CommitUncertain, NoSpace, Unavailable
from cloudless.ports import Delete, Put
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest, ListTasksRequest, ListWorkloadsRequest
from tests.faults.rig.leading import leader_and_term
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import Trial
from tests.integration.cloudless_cli import run_cli
from tests.integration.cluster import LocalCluster, manifest_of

QUOTA_MB = 32
FOREIGN_SHARE = 0.6
# Random text: nothing on the way may make it smaller. A variable may have 32 KiB, a workload 64.
FILLING_BYTES = 30_000
FILLER_MB = 2 * FILLING_BYTES / 1e6
FOREIGN_BYTES = 1_000_000
FILL_MAX = 600
RECORD_PERIOD_S = 0.05
CURE = "cloudless cluster hygiene run"
SHORT = {"nospace", "writes-refused", "near-quota"}
TOLD_S = 5.0
READ_S = 2.0
REFUSED_S = 3.0
CURE_S = 90.0


@scenario(22)
def test_a_full_store_is_read_on_refuses_writes_by_name_and_the_cure_the_doctor_names_works(trial: Trial) -> None:
    cluster = trial.start(prepare=give_little_room)
    for _ in trial.rounds():
        trial.load_up()
        with record_followed(trial):
            fill_name_and_cure(trial, cluster)
        assert forget_refusals(trial), "the load has felt it"
        trial.settle()


def fill_name_and_cure(trial: Trial, cluster: LocalCluster) -> None:
    foreign = list(itertools.islice(fill_past_cloudless(cluster), int(FOREIGN_SHARE * QUOTA_MB)))
    began_s = trial.note("users fill the rest of the store until they are refused")
    names = fill(trial, cluster.coordinators[0].name)
    trial.figure("refused_after_mb", len(names) * FILLER_MB)
    cluster.until(lambda: told_when_refilled(trial, names), "the doctor says why writes are refused")
    trial.note("somebody else fills the rest: every member raises its alarm")
    foreign += fill_past_cloudless(cluster)
    for process in cluster.coordinators:
        names += fill(trial, process.name)
    assert_reads_work(cluster)
    assert leader_and_term(trial), "the leader stays in office"
    found = {finding.code: finding for finding in examine(cluster)}
    trial.figure("told_s", time.monotonic() - began_s)
    assert f"`{CURE}`" in found["nospace"].cure
    assert "delete workloads" in found["nospace"].cure
    # Either all of it is in use, then no alarm is disarmed and it is said what to do; or it was history.
    code, said = run_cure(cluster)
    assert (code == 1 and "delete workloads" in said) or (code == 0 and "disarm" in said), said
    trial.note("what is not needed is deleted, and the cure is run")
    make_deletions(cluster, names, foreign)
    cured_s = time.monotonic()
    cluster.until(lambda: run_cure(cluster)[0] == 0, "the cure works", CURE_S)
    trial.figure("cure_s", time.monotonic() - cured_s)
    cluster.until(lambda: not SHORT & {finding.code for finding in examine(cluster)}, "all know it", TOLD_S)
    assert_all_small(cluster)


@contextmanager
def record_followed(trial: Trial) -> Iterator[None]:
    """Read the store's record all the while: history is given up here sooner than a record at leisure would read it."""
    record, member = trial.evidence.record, trial.cluster.coordinators[0].name

    async def follow() -> None:
        while True:
            with suppress(TimeoutError, Unavailable, CommitUncertain):  # the member may be busy with itself
                await record.follow(partial(trial.cluster.store, member))
            await asyncio.sleep(RECORD_PERIOD_S)

    following = trial.load.begin(follow())
    try:
        yield
    finally:
        following.cancel()
        trial.read_record()


def give_little_room(cluster: LocalCluster) -> None:
    for process in cluster.coordinators:
        process.settings["ETCD_QUOTA_MB"] = str(QUOTA_MB)


def fill(trial: Trial, via: str) -> list[str]:
    """Apply large workloads through one coordinator until they are refused by name, at once and with a hint.

    Returns the names of those that were taken: a coordinator learns within a second that there is no room any more.
    """
    names: list[str] = []
    while len(names) < FILL_MAX:
        name, began_s = f"filler-{secrets.token_hex(4)}", time.monotonic()
        filling = {f"FILLING_{half}": secrets.token_hex(FILLING_BYTES // 2) for half in (1, 2)}
        refusal: NoSpace | None = None
        try:
            trial.cluster.apply(manifest_of(name, replicas=0, env=filling), via)
        except NoSpace as error:
            refusal = error
        if refusal is not None:
            assert "cloudless cluster doctor" in refusal.hint, "a refusal says where the cure is"
            assert time.monotonic() - began_s < REFUSED_S
            return names
        names.append(name)
    raise AssertionError("nobody was refused")


def told_when_refilled(trial: Trial, names: list[str]) -> bool:
    """History that is given up meanwhile makes a little room again: fill that, too, and ask the doctor."""
    names += fill(trial, trial.cluster.coordinators[0].name)
    return "writes-refused" in {finding.code for finding in examine(trial.cluster)}


def fill_past_cloudless(cluster: LocalCluster) -> Iterator[str]:
    """Write past cloudless until etcd itself refuses; yield the keys written."""
    for number in range(FILL_MAX):
        key = f"/foreign/{number:04d}-{secrets.token_hex(4)}"
        try:
            cluster.write_raw(cluster.coordinators[number % 3].name, Put(key, os.urandom(FOREIGN_BYTES)))
        except NoSpace:
            return
        yield key
    raise AssertionError("etcd never refused")


def assert_reads_work(cluster: LocalCluster) -> None:
    for process in cluster.coordinators:
        began_s = time.monotonic()
        cluster.call(LIST_WORKLOADS, ListWorkloadsRequest(namespace="default"), process.name)
        cluster.call(LIST_TASKS, ListTasksRequest(), process.name)
        assert time.monotonic() - began_s < READ_S
        assert any("writes are refused" in problem for problem in cluster.status(process.name).problems)


def examine(cluster: LocalCluster) -> tuple[Finding, ...]:
    return diagnose(Facts(cluster=gather_cluster(cluster.api_addresses(), 4.0, cluster.credentials())))


def run_cure(cluster: LocalCluster) -> tuple[int, str]:
    """Run the command that the doctor names, as a person would."""
    done = run_cli(cluster, *CURE.split()[1:])
    return done.code, done.text


def make_deletions(cluster: LocalCluster, names: list[str], foreign: list[str]) -> None:
    """Delete what filled the store, as users can even now, and what somebody else put there."""
    for name in names:
        cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(namespace="default", name=name))
    for key in foreign:
        cluster.write_raw(cluster.coordinators[0].name, Delete(key))


def assert_all_small(cluster: LocalCluster) -> None:
    """Every member's file has been given back, not only the one that was asked."""
    for one in gather_cluster(cluster.api_addresses(), 4.0, cluster.credentials()).answering:
        assert one.store is not None
        assert one.store.size_bytes < 0.5 * (QUOTA_MB << 20), json.dumps([one.id, one.store.size_bytes])
        assert one.store.alarms == ()


def forget_refusals(trial: Trial) -> int:
    """Take out of the load's complaints those that were promised; return how many."""
    refusals = trial.load.writer.refusals
    promised = [text for text in refusals if NoSpace.code in text]
    refusals[:] = [text for text in refusals if NoSpace.code not in text]
    return len(promised)
