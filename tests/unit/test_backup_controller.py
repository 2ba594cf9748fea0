"""The leader makes backups when they are due, writes down how it went, and a new leader goes on from there."""

from __future__ import annotations

import asyncio

import pytest

from cloudless.coordinator.backups import BackupController, DigestTape, Made
from cloudless.coordinator.leases import RollingLease
from cloudless.core import keys
from cloudless.core.backup import Manifest, Part, find_status
from cloudless.core.model import BackupSettings, BackupStatus, ClusterRecord, NodeSpec
from cloudless.errors import CorruptBackup, Unavailable
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.leading import CLOCK, Cluster, leading
from tests.unit.test_controllers import Numbered

TERM = 1
EVERY_S = 100
MANIFEST = Manifest(
    cluster_id="c1", etcd_cluster_id="1", revision=5, state_digest="0" * 32, created_at_ms=0, created_by="own",
    cloudless_version="0", etcd_version="3.5.30", proven=True,
    parts=(Part(name="state", size_bytes=1, sha256="0" * 64),),
)  # fmt: skip


class FakeMaker:
    """Makes a backup in no time, or fails as told."""

    def __init__(self) -> None:
        self.made_at_s: list[float] = []
        self.tried = 0
        self.fails_with: Exception | None = None

    async def store(self, settings: BackupSettings) -> Made:
        self.tried += 1
        if self.fails_with is not None:
            raise self.fails_with
        self.made_at_s.append(CLOCK.monotonic_s())
        return Made(f"backup-{self.tried}", "/there", 1000, MANIFEST, True, 10, ())


def controller_of(cluster: Cluster, maker: FakeMaker, own_id: str = "own") -> BackupController:
    events = RollingLease(cluster.store, CLOCK, kept_s=3600)
    return BackupController(own_id, maker, cluster.replica, events, CLOCK, Numbered())


async def named_cluster(cluster: Cluster) -> None:
    await cluster.put(keys.CLUSTER, ClusterRecord(id="c1", created_at_ms=CLOCK.wall_ms()))
    await cluster.put(keys.backup_settings(), BackupSettings(interval_s=EVERY_S))


def status_of(cluster: Cluster) -> BackupStatus:
    return find_status(cluster.replica.machine) or BackupStatus()


def kinds(cluster: Cluster) -> list[str]:
    return [event.kind for event in cluster.replica.machine.events.values()]


@virtually
async def test_one_is_made_each_interval_and_told() -> None:
    async with leading() as cluster:
        maker = FakeMaker()
        await named_cluster(cluster)
        async with running(controller_of(cluster, maker).run(TERM, cluster.committer)):
            await asyncio.sleep(3.5 * EVERY_S)
            assert len(maker.made_at_s) == 3
            status = status_of(cluster)
            assert (status.last_name, status.last_revision, status.verified, status.encrypted) == (
                "backup-3",
                5,
                True,
                True,
            )
            assert (status.last_coordinator_id, status.failures_in_a_row) == ("own", 0)
            assert set(kinds(cluster)) == {"BackupSaved"}


@virtually
async def test_a_new_leader_goes_on_where_the_old_one_was() -> None:
    async with leading() as cluster:
        maker = FakeMaker()
        await named_cluster(cluster)
        async with running(controller_of(cluster, maker).run(TERM, cluster.committer)):
            await eventually(lambda: status_of(cluster).last_name == "backup-1", within_s=2 * EVERY_S)
        async with running(controller_of(cluster, maker, "other").run(TERM, cluster.committer)):
            await asyncio.sleep(0.9 * EVERY_S)
            assert maker.tried == 1
            await eventually(lambda: status_of(cluster).last_coordinator_id == "other", within_s=EVERY_S)


@pytest.mark.parametrize("error", [CorruptBackup("damaged"), Unavailable("not now"), OSError(28, "No space left")])
@virtually
async def test_failures_are_told_and_tried_again_ever_more_seldom(error: Exception) -> None:
    async with leading() as cluster:
        maker = FakeMaker()
        maker.fails_with = error
        await named_cluster(cluster)
        await cluster.put(keys.backup_settings(), BackupSettings(interval_s=3600))
        async with running(controller_of(cluster, maker).run(TERM, cluster.committer)):
            await asyncio.sleep(600 + 60 + 120 + 240 + 10)
            assert status_of(cluster).failures_in_a_row == maker.tried == 4
            assert str(error.args[-1]) in status_of(cluster).last_error
            assert set(kinds(cluster)) == {"BackupFailed"}
            maker.fails_with = None
            await eventually(lambda: status_of(cluster).failures_in_a_row == 0, within_s=3600)
            assert status_of(cluster).last_success_at_ms > status_of(cluster).last_failure_at_ms


@virtually
async def test_settings_changed_meanwhile_count_at_once() -> None:
    async with leading() as cluster:
        maker = FakeMaker()
        await named_cluster(cluster)
        await cluster.put(keys.backup_settings(), BackupSettings(enabled=False))
        async with running(controller_of(cluster, maker).run(TERM, cluster.committer)):
            await asyncio.sleep(7200)
            assert maker.tried == 0
            await cluster.put(keys.backup_settings(), BackupSettings(interval_s=3600))
            await eventually(lambda: maker.tried == 1, within_s=10)


@virtually
async def test_the_tape_knows_the_digest_of_each_revision_it_saw() -> None:
    async with leading() as cluster:
        await cluster.put(keys.node_spec("n0"), NodeSpec())
        with DigestTape(cluster.replica) as tape:
            seen = {}
            for number in range(5):
                revision = await cluster.put(keys.node_spec(f"n{number}"), NodeSpec(cordoned=bool(number)))
                await cluster.replica.wait_for(revision, timeout_s=1)
                seen[revision] = cluster.replica.machine.digest
            assert {revision: tape.find(revision) for revision in seen} == seen
            for unknown in (0, max(seen) + 1):
                with pytest.raises(Unavailable):
                    tape.find(unknown)
