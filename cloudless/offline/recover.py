"""Rebuild a cluster from one surviving data directory, after the majority was lost for good.

    survey    read what is there: the marker, where the log ends, who else belonged to it        (changes nothing)
    rebuild   1  copy the directory; on the copy, commit everything that stands in the log
              2  start etcd on the copy as a cluster of this member alone, and take a snapshot of it
              3  make a new member from the snapshot: new ids, revisions raised, the old living forgotten
              4  put the old directory aside and the new one in its place (`rebuild.finish`)

Why not simply `--force-new-cluster` on the directory: it throws away what the log holds beyond the last known commit,
and that can be a write whose client was answered; it keeps the ids, so a lost member that comes back would be taken for
one of ours; and it keeps the revisions, so agents that saw more than the survivor would refuse it, and two different
histories would share their numbers. Why not the snapshot of the database alone: it lags behind the log.

What cannot be brought back: writes that the lost majority acknowledged and this survivor never received.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import DataState, Marker, judge_data
from cloudless.adapters.member.pidfile import find_orphan
from cloudless.adapters.member.process import end_orphan
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.wal_end import LogEnd, commit_all, find_log_end
from cloudless.core.recovery import Survivor
from cloudless.errors import DataDirInUse, RecoveryRefused
from cloudless.offline.proof import check_appended_hash, require_room
from cloudless.offline.rebuild import Rebuilt, build_member, clear_workplace, find_ready, finish, new_token
from cloudless.offline.throwaway import throwaway_member
from etcd.find import Found
from etcd.gate import Version, check_against_last_writer
from etcd.tools import find_etcdutl


@dataclass(frozen=True, slots=True)
class Survey:
    """What a surviving directory tells of itself. `addresses` are the others' API addresses by node id."""

    node_id: str
    cluster_id: str
    peer_url: str
    log: LogEnd
    data_bytes: int
    voters: tuple[str, ...]
    addresses: Mapping[str, str]

    @property
    def survivor(self) -> Survivor:
        return Survivor(self.log.term, self.log.index, self.node_id)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done. `aside` is where the old data lie; `committed_more` entries were in the log but not yet known to
    be committed."""

    aside: Path | None
    revision: int
    committed_more: int


def survey(datadir: DataDir) -> Survey:
    """Return what this directory could be rebuilt from. Raises RecoveryRefused with the cure, DataLost."""
    marker, state = Marker.read(datadir.marker), judge_data(datadir)
    if state is not DataState.PRESENT:
        raise RecoveryRefused(_WHY_NOT[state].format(path=datadir.path), hint=_CURES[state])
    log = find_log_end(datadir.etcd_dir)
    assert log is not None  # PRESENT means that there is a log
    noted = Progress.read(datadir.progress)
    others = {*noted.heard, *noted.addresses} | {name for name, _ in marker.initial_cluster}
    return Survey(
        node_id=marker.node_id,
        cluster_id=marker.cluster_id,
        peer_url=noted.peer_url,
        log=log,
        data_bytes=_size_bytes(datadir.etcd_dir),
        voters=tuple(sorted({marker.node_id, *others})),
        addresses=noted.addresses,
    )


async def rebuild_from_survivor(datadir: DataDir, found: Survey, peer_url: str, binary: Found) -> Recovered:
    """Make a cluster of one from the directory surveyed, at `peer_url`. The caller holds the directory's lock.

    Raises RecoveryRefused, ToolMissing, NoRoom, BackupError; then the directory is as it was.
    """
    marker = Marker.read(datadir.marker)
    if marker.last_etcd_version:
        check_against_last_writer(binary.version, Version.parse(marker.last_etcd_version))
    tool = find_etcdutl(binary)
    await end_orphan(datadir.pidfile, str(datadir.etcd_dir))
    if find_orphan(datadir.pidfile, str(datadir.etcd_dir)):
        raise DataDirInUse(f"an etcd still runs on {datadir.etcd_dir}", hint="end it, then try again")
    require_room(datadir.path, 3 * found.data_bytes)
    place = clear_workplace(datadir)
    try:
        log, revision, snapshot = await _snapshot_of_all(datadir, place, found.node_id, binary)
        rebuilt = Rebuilt(
            node_id=found.node_id,
            peer_url=peer_url,
            token=new_token(),
            etcd_version=str(binary.version),
            aside=f"etcd.before-recovery-{secrets.token_hex(4)}",
            supersedes=(*marker.supersedes, marker.cluster_id),
            addresses=dict(found.addresses),
        )
        await build_member(datadir, snapshot, rebuilt, binary, tool)
    except BaseException:
        if find_ready(datadir) is None:
            shutil.rmtree(place, ignore_errors=True)
        raise
    return Recovered(finish(datadir, rebuilt), revision, max(0, log.index - log.commit))


async def _snapshot_of_all(datadir: DataDir, place: Path, node_id: str, binary: Found) -> tuple[LogEnd, int, Path]:
    """Return the end of the log, the revision reached, and a snapshot of everything that stands in the log."""
    copy, snapshot = place / "copy", place / "snapshot"
    await asyncio.to_thread(shutil.copytree, datadir.etcd_dir, copy)
    log = await asyncio.to_thread(find_log_end, copy)
    assert log is not None
    if log.commit < log.index:
        await asyncio.to_thread(commit_all, log)
    async with throwaway_member(binary, copy, name=node_id, forget_others=True) as store:
        # Linearizable: everything that was committed is applied now.
        revision = await store.current_revision(timeout_s=30.0)
        with snapshot.open("wb") as file:
            async for piece in store.snapshot():
                await asyncio.to_thread(file.write, piece)
    await asyncio.to_thread(check_appended_hash, snapshot)
    await asyncio.to_thread(shutil.rmtree, copy)
    return replace(log, segment=datadir.etcd_dir), revision, snapshot


def _size_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


_WHY_NOT = {
    DataState.FRESH: "{path} holds no data of a member",
    DataState.LOST: "{path} belonged to a member, but its data are gone",
    DataState.FORMING: "the member of {path} has not finished joining: it never voted, and may lack anything",
    DataState.FOREIGN: "{path} holds data of a member that this coordinator did not make",
}
_CURES = {
    DataState.FRESH: "give the data directory of a survivor with --data-dir, or restore a backup with "
    "`cloudless cluster snapshot restore`",
    DataState.LOST: "recover on a host whose data are there, or restore a backup with "
    "`cloudless cluster snapshot restore`",
    DataState.FORMING: "recover on a host that was a voter",
    DataState.FOREIGN: "bring back the data's own member.json",
}
