"""The majority or all of it is lost for good: a cluster is made anew from what one survivor or one backup has."""

from __future__ import annotations

import asyncio
import random
import re
import time
from pathlib import Path

from cloudless.adapters.member.marker import Marker
from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev.proof import final_reads_lost
from cloudless.cli.dev.report import Ack
from cloudless.cli.methods import GET_BACKUP_SCHEDULE, GET_DIGEST, SET_BACKUP_SCHEDULE
from cloudless.core.backup import parse_name
from cloudless.errors import BackupError, outcome_of
from cloudless.offline.etcdutl import REVISION_RAISE
from cloudless.rpc.v1.backup_pb2 import GetBackupScheduleRequest, SetBackupScheduleRequest
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import Trial
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import LocalCluster

REFUSED = outcome_of(BackupError).exit_code
RECOVERED_S = 60.0
DAMAGES = 6


@scenario(24)
def test_damaged_backups_are_refused_and_a_good_one_brings_the_cluster_back_on_empty_hosts(trial: Trial) -> None:
    """The leader made it by schedule; that file and the agents are all that is left of the cluster."""
    cluster = trial.start()
    key_file = cluster.root / "backup.key"
    key_file.write_text("the passphrase of this trial\n")
    for number in trial.rounds():
        trial.load_up()
        backup = scheduled_backup(cluster, cluster.root / f"backups-{number}", key_file)
        named = parse_name(backup.name)
        assert named is not None
        trial.load_up()
        trial.end_history()
        trial.note("all hosts of coordinators are lost")
        cluster.kill(*(one.name for one in cluster.coordinators), etcd=True)
        acks = trial.load_off()
        for process in cluster.coordinators:
            cluster.empty(process.name)
        first = cluster.coordinators[0].name
        restore = ("cluster", "snapshot", "restore")
        for damaged in damaged_copies(backup, cluster.root):
            refused = run_cli(cluster, *restore, damaged, "--key-file", key_file, of=first)
            assert refused.code == REFUSED, refused.text
            assert "hint:" in refused.text, "the cure is named"
            assert not cluster.has_formed(first)
        began_s = trial.note("restore from the file alone")
        must(run_cli(cluster, *restore, backup, "--key-file", key_file, of=first))
        trial.figure("restored_s", time.monotonic() - began_s)
        cluster.start(*(one.name for one in cluster.coordinators))
        cluster.wait_ready()
        trial.figure("whole_s", time.monotonic() - began_s)
        assert_rebuilt(trial, acks, named.revision)
        trial.load_anew()
        trial.settle()


@scenario(32, rounds=2, budget_s=240)
def test_a_cluster_is_recovered_from_one_survivor_with_every_write_it_had(trial: Trial) -> None:
    """Once the survivor runs on without a quorum, once it is stopped with the others; one command in either case."""
    cluster = trial.start()
    for number in trial.rounds():
        survivor, *lost = random.sample([process.name for process in cluster.coordinators], 3)
        trial.load_up()
        refused = run_cli(cluster, "cluster", "recover", "--yes", of=survivor)
        assert (refused.code, "has a leader" in refused.text) == (REFUSED, True), refused.text
        trial.end_history()
        old = Marker.read(cluster.datadir(survivor).marker)
        runs_on = number % 2 == 1
        trial.note(f"{lost} are lost with their data; {survivor} {'runs on' if runs_on else 'is killed, too'}")
        cluster.kill(*lost, *([] if runs_on else [survivor]), etcd=True)
        for name in lost:
            cluster.empty(name)
        acks = trial.load_off()
        began_s = trial.note("recover")
        told = must(run_cli(cluster, "cluster", "recover", "--yes", of=survivor))
        trial.figure("recovered_s", time.monotonic() - began_s)
        if runs_on:
            assert cluster.exit_of(survivor)[0] == 0, "it was asked to end, and did"
        cluster.start(survivor, *lost)
        cluster.until(lambda: cluster.status(survivor).header.leader_id, "a leader", RECOVERED_S)
        trial.figure("led_s", time.monotonic() - began_s)
        assert time.monotonic() - began_s < RECOVERED_S
        cluster.wait_ready()
        trial.figure("whole_s", time.monotonic() - began_s)
        match = re.search(r"everything up to revision (\d+)", told)
        assert match is not None, told
        assert_rebuilt(trial, acks, int(match[1]))
        assert old.cluster_id in Marker.read(cluster.datadir(lost[0]).marker).supersedes, "all know what it replaced"
        trial.load_anew()
        trial.settle()


@scenario(32, budget_s=240)
def test_a_member_of_before_a_recovery_puts_its_data_aside_and_joins(trial: Trial) -> None:
    """Its data were thought lost and come back, on a host that still runs an etcd on them."""
    cluster = trial.start()
    for _ in trial.rounds():
        survivor, returning, lost = random.sample([process.name for process in cluster.coordinators], 3)
        trial.load_up()
        trial.end_history()
        trial.note(f"{lost} is lost with its data; {returning} is cut off and thought lost")
        cluster.kill(survivor, lost, etcd=True)
        cluster.kill(returning)
        assert cluster.etcd_of(returning) is not None
        cluster.empty(lost)
        acks = trial.load_off()
        refused = run_cli(cluster, "cluster", "recover", "--yes", "--plan", of=survivor)
        assert refused.code == 0, "nobody answers: it cannot know better"
        told = must(run_cli(cluster, "cluster", "recover", "--yes", of=survivor))
        cluster.start(survivor)
        cluster.until(lambda: cluster.status(survivor).header.leader_id, "a leader")
        trial.note(f"{returning} comes back with its old data")
        cluster.start(returning, lost)
        cluster.wait_ready()
        match = re.search(r"everything up to revision (\d+)", told)
        assert match is not None, told
        assert_rebuilt(trial, acks, int(match[1]))
        assert list(cluster.processes[returning].data_dir.glob("etcd.outdated-*")), "its old data are kept aside"
        trial.load_anew()
        trial.settle()


# --- what the scenarios do ---


def scheduled_backup(cluster: LocalCluster, place: Path, key_file: Path) -> Path:
    """Have the leader make a backup by schedule, encrypted, in a directory that outlives the coordinators."""
    for process in cluster.coordinators:
        if "BACKUP_KEY_FILE" not in process.settings:
            process.settings["BACKUP_KEY_FILE"] = str(key_file)
            cluster.stop(process.name)
            cluster.start(process.name)
            cluster.wait_ready()
    settings = cluster.call(GET_BACKUP_SCHEDULE, GetBackupScheduleRequest()).settings
    settings.interval_s, settings.target, settings.enabled = 10, str(place), True
    cluster.call(SET_BACKUP_SCHEDULE, SetBackupScheduleRequest(settings=settings))

    def made() -> Path | None:
        status = cluster.call(GET_BACKUP_SCHEDULE, GetBackupScheduleRequest()).status
        assert not status.failures_in_a_row, status.last_error
        return place / status.last_name if status.last_target == str(place) else None

    return cluster.until(made, "a backup made by schedule")


def damaged_copies(backup: Path, root: Path) -> list[Path]:
    """Return copies of a backup with a bit flipped, cut off, and with bytes added."""
    content, copies = backup.read_bytes(), []
    places = [random.randrange(len(content)) for _ in range(DAMAGES)]
    flipped = [content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :] for at in places]
    cut = [content[: random.randrange(len(content))], content[:-1], b""]
    for number, damaged in enumerate([*flipped, *cut, content + b"\0"]):
        copies.append(root / f"damaged-{number}.backup")
        copies[-1].write_bytes(damaged)
    return copies


def assert_rebuilt(trial: Trial, acks: list[Ack], revision: int) -> None:
    """Everything acknowledged up to `revision` is there, at every coordinator; revisions only rose."""
    cluster = trial.cluster
    kept: dict[str, Ack] = {}
    for ack in acks:
        if ack.revision <= revision and ack.number >= kept.get(ack.name, ack).number:
            kept[ack.name] = ack
    trial.figure("acks_beyond", sum(ack.revision > revision for ack in acks))
    assert kept, "nothing was acknowledged before"
    for process in cluster.coordinators:
        assert cluster.call(GET_DIGEST, GetDigestRequest(), process.name).revision > REVISION_RAISE
    lost = asyncio.run(read_back(cluster, kept))
    assert not lost, "\n".join(lost)


async def read_back(cluster: LocalCluster, kept: dict[str, Ack]) -> list[str]:
    clients = {
        process.name: AsyncClient([process.address()], dialler=cluster.dialler) for process in cluster.coordinators
    }
    try:
        return await final_reads_lost(clients, kept)
    finally:
        for client in clients.values():
            await client.close()
