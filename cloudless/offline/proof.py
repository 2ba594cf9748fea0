"""Prove that a snapshot is the state it is said to be: make a member from it, start it, read the state, compare.

The digest to compare with comes from a coordinator's own memory of that revision, which it got by watching, not from
the snapshot. So this tells apart what hashes of files cannot: a snapshot that is intact but holds something else.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cloudless.adapters.backup.container import extract
from cloudless.adapters.etcd.store import EtcdStore
from cloudless.core import keys
from cloudless.core.backup import STATE, Manifest
from cloudless.core.state import fingerprint
from cloudless.core.state.digest import MODULUS
from cloudless.errors import CorruptBackup, NoRoom, UnprovenBackup
from cloudless.offline.etcdutl import NewMember, read_snapshot_status, restore_snapshot
from cloudless.offline.throwaway import NAME, NO_PEER_URL, throwaway_member
from etcd.find import Found
from etcd.tools import find_etcdutl

_SHA256_BYTES = 32
_PAGE_SIZE = 2_000
_READ_BYTES = 1 << 20
_ROOM_KEPT_BYTES = 128 * 1024**2
_MEMBER = NewMember(name=NAME, peer_url=NO_PEER_URL, token=NAME)


@dataclass(frozen=True, slots=True)
class StateDigest:
    """The digest of a whole state at one revision, and of how many entries."""

    digest: str
    entries: int


async def prove_backup(path: Path, secret: bytes | None, binary: Found) -> Manifest:
    """Check a backup file from end to end and prove its state; return its manifest.

    Raises CorruptBackup, WrongKey, UnprovenBackup, ToolMissing, NoRoom.
    """
    tool = find_etcdutl(binary)
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=path.parent) as place:
        require_room(Path(place), path.stat().st_size)
        manifest, parts = await asyncio.to_thread(extract, path, secret, Path(place))
        await prove_snapshot(parts[STATE], manifest, binary, tool)
        return manifest


async def prove_snapshot(snapshot: Path, manifest: Manifest, binary: Found, tool: Path) -> None:
    """Make a member from the snapshot beside it, and compare its state with the manifest's digest."""
    await asyncio.to_thread(check_appended_hash, snapshot)
    require_room(snapshot.parent, 2 * snapshot.stat().st_size)
    status = await read_snapshot_status(tool, snapshot)
    if status.revision > manifest.revision:
        raise CorruptBackup(f"the snapshot is of revision {status.revision}, the backup says {manifest.revision}")
    # Less than it says: the last writes were deletions, and compacted since; the newest there is, is what is meant.
    revision = manifest.revision if status.revision == manifest.revision else 0
    etcd_dir = snapshot.with_name(f"{snapshot.name}.member")
    try:
        await restore_snapshot(tool, snapshot, etcd_dir, _MEMBER, raise_revisions=False)
        async with throwaway_member(binary, etcd_dir) as store:
            found = await read_digest(store, revision)
    finally:
        await asyncio.to_thread(shutil.rmtree, etcd_dir, True)
    if found.digest != manifest.state_digest:
        raise UnprovenBackup(
            f"the state in the backup has digest {found.digest} ({found.entries} entries), not {manifest.state_digest} "
            f"as the coordinator that made it had at revision {manifest.revision}",
            hint="use another backup, and compare the coordinators with `cloudless cluster digest`",
        )


async def read_digest(store: EtcdStore, revision: int) -> StateDigest:
    """Return the digest of everything under our prefix as it was at `revision`, 0 for the newest."""
    digest = entries = 0
    after, more = "", True
    while more:
        page = await store.read_page(
            keys.PREFIX, start_after=after, revision=revision, limit=_PAGE_SIZE, timeout_s=30.0
        )
        for kv in page.kvs:
            digest = (digest + fingerprint(kv.key, kv.value, kv.create_revision, kv.mod_revision)) % MODULUS
            entries += 1
        more, revision = page.more, page.revision
        after = page.kvs[-1].key if page.kvs else ""
    return StateDigest(f"{digest:032x}", entries)


def check_appended_hash(snapshot: Path) -> str:
    """Check a snapshot against the SHA-256 that etcd appends to it; return the file's own. Raises CorruptBackup."""
    left = snapshot.stat().st_size - _SHA256_BYTES
    database, whole = hashlib.sha256(), hashlib.sha256()
    with snapshot.open("rb") as file:
        while left > 0:
            piece = file.read(min(left, _READ_BYTES))
            if not piece:
                break
            left -= len(piece)
            database.update(piece)
            whole.update(piece)
        appended = file.read()
    whole.update(appended)
    if appended != database.digest():
        raise CorruptBackup("the snapshot does not match the hash that etcd appended to it")
    return whole.hexdigest()


def require_room(directory: Path, wanted_bytes: int) -> None:
    """Raises NoRoom if writing so much would fill the disk."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < wanted_bytes + _ROOM_KEPT_BYTES:
        raise NoRoom(
            f"{directory} has {free_bytes >> 20} MiB free, {(wanted_bytes + _ROOM_KEPT_BYTES) >> 20} MiB are needed",
            hint="make room there first",
        )
