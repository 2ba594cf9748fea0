"""What one survivor's log holds is all there after a rebuilding, also what it did not know to be committed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import DataState, Marker, MarkerState, judge_data
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.supervisor import MemberSupervisor
from cloudless.adapters.member.wal import last_index
from cloudless.adapters.member.wal_end import crc32c, find_log_end
from cloudless.core import keys
from cloudless.errors import CommitUncertain, RecoveryRefused
from cloudless.offline.etcdutl import REVISION_RAISE
from cloudless.offline.rebuild import Rebuilt, find_ready, finish, workplace, write_ready
from cloudless.offline.recover import rebuild_from_survivor, survey
from cloudless.offline.throwaway import throwaway_member
from cloudless.ports import Get, Got, Put, Txn
from etcd.find import Found
from tests.integration.etcd_fixture import binary, build_config, datadirs, free_ports

__all__ = ["binary", "datadirs"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

NAMES = ("c1", "c2", "c3")


def key(number: int | str) -> str:
    return f"{keys.PREFIX}nodes/n{number}/spec"


async def put(store: EtcdStore, number: int | str, timeout_s: float = 5.0) -> int:
    return (await store.txn(Txn(then=(Put(key(number), b"value"),)), timeout_s=timeout_s)).revision


async def held(store: EtcdStore, *names: str) -> list[bool]:
    result = await store.txn(Txn(then=tuple(Get(name) for name in names)), timeout_s=5.0)
    return [isinstance(got, Got) and got.kv is not None for got in result.results]


def mark(datadir: DataDir, name: str, cluster_id: str = "beef") -> None:
    """Write the marker of a voter, as its coordinator would have."""
    Marker(
        state=MarkerState.BOOTSTRAPPED, node_id=name, member_id="1", cluster_id=cluster_id,
        initial_cluster=tuple((other, f"http://{other}") for other in NAMES),
    ).write(datadir.marker)  # fmt: skip
    Progress(peer_url="http://127.0.0.1:1", addresses={"c2": "c2:8080"}).write(datadir.progress)


async def three_members(
    binary: Found, datadirs: Callable[[str], DataDir]
) -> dict[str, tuple[DataDir, MemberSupervisor, str]]:
    # Patient, so that the leader leads on for a while after its followers are gone.
    patience = {"heartbeat_ms": 100, "election_ms": 3000}
    configs = {name: build_config(datadirs(name), name, **patience) for name in NAMES}
    peers = tuple((name, config.peer_advertise_url) for name, config in configs.items())
    made = {}
    for name, config in configs.items():
        datadir = datadirs(name)
        supervisor = MemberSupervisor(binary, replace(config, initial_cluster=peers), datadir)
        await supervisor.start()
        made[name] = (datadir, supervisor, config.client_url.removeprefix("http://"))
    for _, supervisor, _ in made.values():
        await supervisor.wait_ready(20.0)
    return made


async def test_an_entry_that_the_survivor_alone_still_has_is_kept(
    binary: Found, datadirs: Callable[[str], DataDir]
) -> None:
    """The leader alone appends it, its followers are dead. In an election won by this log it would be committed."""
    members = await three_members(binary, datadirs)
    stores = {name: EtcdStore(address) for name, (_, _, address) in members.items()}
    revisions = [await put(stores["c1"], number) for number in range(20)]
    (leader,) = [name for name in NAMES if await leads(members[name][2])]
    for name in NAMES:
        pid = members[name][1].state.pid
        if name != leader and pid is not None:
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(CommitUncertain):
        await put(stores[leader], "uncommitted", timeout_s=0.5)
    datadir, supervisor, _ = members[leader]
    log = datadir.etcd_dir
    end = find_log_end(log)
    assert end is not None
    assert end.index > end.commit, "what is to be kept is not known to be committed"
    assert end.index == last_index(log)
    await supervisor.stop(grace_s=0.0)
    for store in stores.values():
        await store.close()
    mark(datadir, leader)

    peer_url = f"http://127.0.0.1:{free_ports(1)[0]}"
    found = survey(datadir)
    assert found.voters == NAMES
    done = await rebuild_from_survivor(datadir, found, peer_url, binary)
    assert done.committed_more >= 1
    assert done.aside is not None
    assert last_index(done.aside) == end.index, "the old data are as they were"
    async with throwaway_member(binary, datadir.etcd_dir, name=leader) as store:
        assert await store.current_revision(timeout_s=5.0) > REVISION_RAISE + revisions[-1]
        assert all(await held(store, *(key(number) for number in range(20)), key("uncommitted")))
    marker = Marker.read(datadir.marker)
    assert (marker.supersedes, judge_data(datadir)) == (("beef",), DataState.PRESENT)
    assert not workplace(datadir).exists()


async def leads(address: str) -> bool:
    admin = EtcdAdmin(f"http://{address}")
    try:
        status = await admin.status()
        return status.leader_id == status.member_id
    finally:
        admin.close()


async def test_the_living_of_the_old_cluster_are_forgotten_and_the_rest_keeps_its_revisions(
    binary: Found, datadirs: Callable[[str], DataDir]
) -> None:
    datadir = datadirs("c1")
    config = build_config(datadir)
    supervisor = MemberSupervisor(binary, config, datadir)
    await supervisor.start()
    await supervisor.wait_ready(20.0)
    store = EtcdStore(config.client_url.removeprefix("http://"))
    lease = await store.grant(60, timeout_s=5.0)
    living = (keys.coordinator("c2"), keys.election(7), keys.suspicion(3, "c1"))
    for name in living:
        await store.txn(Txn(then=(Put(name, b"x", lease.id),)), timeout_s=5.0)
    revision = await put(store, 1)
    await store.close()
    await supervisor.stop(grace_s=0.0)
    mark(datadir, "c1")
    await rebuild_from_survivor(datadir, survey(datadir), "http://127.0.0.1:1", binary)
    async with throwaway_member(binary, datadir.etcd_dir, name="c1") as store:
        assert await held(store, *living, key(1)) == [False, False, False, True]
        page = await store.read_page(keys.NODES)
        assert [kv.mod_revision for kv in page.kvs] == [revision]


@pytest.mark.parametrize("cut_off_after", ["ready", "aside", "moved", "marked"])
async def test_a_crash_at_any_step_is_finished_by_doing_it_again(tmp_path: Path, cut_off_after: str) -> None:
    """Steps of `finish`, done by hand up to one of them; the directories here only bear names."""
    datadir = DataDir(tmp_path / "data")
    (datadir.etcd_dir / "old").mkdir(parents=True)
    (workplace(datadir) / "etcd" / "new").mkdir(parents=True)
    mark(datadir, "c1")
    rebuilt = Rebuilt(
        node_id="c1",
        peer_url="http://h:1",
        token="t",
        etcd_version="3.5.30",
        aside="etcd.before-1",
        supersedes=("beef",),
    )
    write_ready(datadir, rebuilt)
    if cut_off_after in ("aside", "moved", "marked"):
        datadir.etcd_dir.rename(datadir.path / rebuilt.aside)
    if cut_off_after in ("moved", "marked"):
        (workplace(datadir) / "etcd").rename(datadir.etcd_dir)
    if cut_off_after == "marked":
        finish(datadir, rebuilt)
        return
    ready = find_ready(datadir)
    assert ready == rebuilt
    finish(datadir, ready)
    assert (datadir.etcd_dir / "new").exists()
    assert (datadir.path / "etcd.before-1" / "old").exists()
    assert Marker.read(datadir.marker).supersedes == ("beef",)
    assert find_ready(datadir) is None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "holds no data"),
        (MarkerState.BOOTSTRAPPED, "its data are gone"),
        (MarkerState.FORMING, "never voted"),
    ],
)
def test_a_directory_that_is_no_survivor_is_refused_with_the_cure(
    tmp_path: Path, state: MarkerState | None, words: str
) -> None:
    datadir = DataDir(tmp_path / "data")
    if state is not None:
        Marker(state=state, node_id="c1").write(datadir.marker)
    with pytest.raises(RecoveryRefused, match=words) as refused:
        survey(datadir)
    assert refused.value.hint


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


def test_no_log_has_no_end(tmp_path: Path) -> None:
    assert find_log_end(tmp_path) is None
