"""A backup taken from a running cluster is proven, and a new cluster is made from the file alone; tasks run on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudless.adapters.member.marker import Marker
from cloudless.cli.methods import GET_BACKUP_SCHEDULE, GET_DIGEST, LIST_EVENTS, SET_BACKUP_SCHEDULE
from cloudless.errors import BackupError, InvalidSpec, NotFound, outcome_of
from cloudless.offline.etcdutl import REVISION_RAISE
from cloudless.rpc.v1.backup_pb2 import GetBackupScheduleRequest, SetBackupScheduleRequest
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.objects_pb2 import BackupSettings, BackupStatus
from etcd.find import Found
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ONE, AGENT = "coordinator-1", "agent-1"
REFUSED = outcome_of(BackupError).exit_code


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found, key_file: Path) -> Iterator[LocalCluster]:
    """One coordinator and one agent that runs two tasks."""
    made = LocalCluster(tmp_path_factory.mktemp("backups"), binary.path)
    made.add_coordinators([ONE])
    made.processes[ONE].settings["BACKUP_KEY_FILE"] = str(key_file)
    made.bootstrap_with(ONE)
    made.add_agent(AGENT)
    made.start(ONE, AGENT)
    try:
        made.wait_ready()
        made.apply(manifest_of("steady", replicas=2))
        made.until(lambda: len(running(made)) == 2, "two tasks run")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "backup.key"
    path.write_text("a passphrase for tests\n")
    return path


def running(cluster: LocalCluster) -> dict[str, tuple[int, int]]:
    """Return pid and attempt of each task that runs."""
    return {
        task.desired.id: (task.observed.pid, task.observed.attempt)
        for task in cluster.tasks("steady")
        if task.state == "RUNNING"
    }


def told(cluster: LocalCluster) -> BackupStatus:
    return cluster.call(GET_BACKUP_SCHEDULE, GetBackupScheduleRequest()).status


def schedule(cluster: LocalCluster, **changes: object) -> None:
    settings = cluster.call(GET_BACKUP_SCHEDULE, GetBackupScheduleRequest()).settings
    for name, value in changes.items():
        setattr(settings, name, value)
    cluster.call(SET_BACKUP_SCHEDULE, SetBackupScheduleRequest(settings=settings))


def test_a_backup_is_encrypted_proven_and_says_what_it_is(
    cluster: LocalCluster, key_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "all.backup"
    refused = run_cli(cluster, "cluster", "snapshot", "save", file)
    assert (refused.code, file.exists()) == (REFUSED, False), "without a key nothing is written unencrypted"
    assert "--key-file" in refused.text
    must(run_cli(cluster, "cluster", "snapshot", "save", file, "--key-file", key_file))
    shown = json.loads(must(run_cli(cluster, "cluster", "snapshot", "inspect", file, "-o", "json")))
    assert shown["encrypted"] is True
    assert shown["proven"] is True
    assert [member["name"] for member in shown["members"]] == [ONE]
    said = must(run_cli(cluster, "cluster", "snapshot", "verify", file, BACKUP_KEY_FILE=key_file))
    assert "has the state it should have" in said


def test_the_leader_makes_backups_by_schedule_and_tells_of_them(cluster: LocalCluster, tmp_path: Path) -> None:
    schedule(cluster, interval_s=10, target=str(tmp_path / "there"), keep_last=1, keep_daily=0, keep_weekly=0)
    cluster.until(lambda: told(cluster).last_name, "a backup")
    status = told(cluster)
    assert status.verified
    assert status.encrypted
    assert status.last_coordinator_id == ONE
    assert [path.name for path in (tmp_path / "there").iterdir()] == [status.last_name]
    kinds = {event.kind for event in cluster.call(LIST_EVENTS, ListEventsRequest()).events}
    assert {"BackupSaved", "BackupScheduleChanged"} <= kinds
    assert 0 <= cluster.metric(ONE, "backup_age_seconds") < 60
    assert status.last_name in must(run_cli(cluster, "cluster", "snapshot", "list"))
    copy = tmp_path / "copy.backup"
    must(run_cli(cluster, "cluster", "snapshot", "fetch", status.last_name, copy))
    assert copy.read_bytes() == (tmp_path / "there" / status.last_name).read_bytes()
    must(run_cli(cluster, "cluster", "snapshot", "save"))
    assert len(list((tmp_path / "there").iterdir())) == 1, "the older one was pruned"
    schedule(cluster, target="/proc/nowhere", enabled=False)
    failed = run_cli(cluster, "cluster", "snapshot", "save")
    assert failed.code == REFUSED
    assert "/proc/nowhere cannot be used" in failed.text
    schedule(cluster, target="")


def test_what_makes_no_sense_is_refused_by_name(cluster: LocalCluster) -> None:
    with pytest.raises(InvalidSpec, match=r"settings\.interval_s"):
        cluster.call(SET_BACKUP_SCHEDULE, SetBackupScheduleRequest(settings=BackupSettings(enabled=True, keep_last=1)))
    healthy = run_cli(cluster, "cluster", "recover", "--yes", of=ONE)
    assert (healthy.code, "has a leader" in healthy.text) == (REFUSED, True), healthy.text
    missing = run_cli(cluster, "cluster", "snapshot", "fetch", "../../etc/passwd", "/tmp/x")
    assert missing.code == outcome_of(NotFound).exit_code


def test_a_new_cluster_from_the_file_alone_and_tasks_run_on(
    cluster: LocalCluster, key_file: Path, tmp_path: Path
) -> None:
    file, process = tmp_path / "all.backup", cluster.processes[ONE]
    must(run_cli(cluster, "cluster", "snapshot", "save", file, "--key-file", key_file))
    before, cluster_id = running(cluster), cluster.status().header.cluster_id
    old = Marker.read(cluster.datadir(ONE).marker)
    cluster.kill(ONE, etcd=True)

    restore = ("cluster", "snapshot", "restore", file, "--key-file", key_file)
    full = run_cli(cluster, *restore, of=ONE)
    assert full.code == REFUSED
    assert "not empty" in full.text
    shutil.rmtree(process.data_dir)
    for damaged in (file.read_bytes()[:-100], b"".join((file.read_bytes()[:-90], b"\1", file.read_bytes()[-89:]))):
        broken = tmp_path / "broken.backup"
        broken.write_bytes(damaged)
        assert run_cli(cluster, *restore[:3], broken, *restore[4:], of=ONE).code == REFUSED
    (tmp_path / "other.key").write_text("not the passphrase")
    wrong = run_cli(cluster, *restore[:4], "--key-file", tmp_path / "other.key", of=ONE)
    assert wrong.code == REFUSED
    assert "not the key" in wrong.text
    assert [path.name for path in process.data_dir.iterdir()] in ([], ["lock"]), "nothing was left there"

    must(run_cli(cluster, *restore, of=ONE))
    cluster.start(ONE)
    cluster.wait_ready()
    assert cluster.status().header.cluster_id == cluster_id
    marker = Marker.read(cluster.datadir(ONE).marker)
    assert marker.supersedes == (old.cluster_id,)
    assert marker.cluster_id != old.cluster_id
    assert cluster.call(GET_DIGEST, GetDigestRequest()).revision > REVISION_RAISE
    cluster.until(lambda: running(cluster) == before, "the tasks are told to run as they did")
    cluster.apply(manifest_of("steady", replicas=3))
    cluster.until(lambda: len(running(cluster)) == 3, "a third task runs")
    assert before.items() <= running(cluster).items(), "the tasks of before run on in their processes"
