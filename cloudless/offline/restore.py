"""Make the first coordinator of a new cluster from a backup file alone.

It begins as a cluster of one with the backup's state, and the other hosts join it by their ordinary join addresses.
Ids of cluster and member are new, so nothing of the old cluster can be taken for a part of it; its revisions begin far
above the old ones, so every coordinator, agent and watcher reads afresh and no term is ever repeated. Tasks that run
go on: their agents find their assignments in the restored state.

Refused, with nothing changed: a corrupt or truncated file, a wrong key, a directory that holds anything.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from cloudless.adapters.backup.container import extract, read_header
from cloudless.adapters.backup.parts import install_part
from cloudless.adapters.member.datadir import DataDir
from cloudless.core.backup import STATE, Manifest
from cloudless.errors import DataDirInUse
from cloudless.offline.etcdutl import REVISION_RAISE
from cloudless.offline.proof import prove_snapshot, require_room
from cloudless.offline.rebuild import Rebuilt, build_member, clear_workplace, find_ready, finish, new_token, workplace
from etcd.find import Found
from etcd.gate import Version, check_against_last_writer
from etcd.tools import find_etcdutl

# What a directory may hold that nothing was ever started in.
IDENTITY_DIR = "identity"
_HARMLESS = frozenset({"lock", "backups", "rebuilding", "lost+found", IDENTITY_DIR})


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `revision_from` is where the new cluster's revisions begin; `parts` beside the state."""

    manifest: Manifest
    revision_from: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHome:
    """Where to restore: the first new coordinator's directory, id and the URL at which its member is reached.

    `identity_dir` is where it keeps what it proves itself by; None: in the data directory.
    """

    data_dir: Path
    node_id: str
    peer_url: str
    identity_dir: Path | None = None


async def restore_backup(
    path: Path, secret: bytes | None, home: NewHome, binary: Found, *, prove: bool = True
) -> Restored:
    """Make the data directory of `home` from the backup at `path`.

    Raises CorruptBackup, WrongKey, UnprovenBackup, DataDirInUse, DataDirLocked, ToolMissing, NoRoom.
    """
    with path.open("rb") as file:
        manifest = read_header(file).manifest
    # The data were written by that version: an older one may not understand them.
    check_against_last_writer(binary.version, Version.parse(manifest.etcd_version))
    tool = find_etcdutl(binary)
    datadir = DataDir(home.data_dir)
    datadir.lock()
    try:
        _require_empty(datadir)
        place = clear_workplace(datadir)
        try:
            size_bytes = sum(part.size_bytes for part in manifest.parts)
            require_room(place, (3 if prove else 2) * size_bytes)
            return await _restore(path, secret, home, binary, tool, prove)
        except BaseException:
            if find_ready(datadir) is None:
                shutil.rmtree(place, ignore_errors=True)
            raise
    finally:
        datadir.unlock()


async def _restore(path: Path, secret: bytes | None, home: NewHome, binary: Found, tool: Path, prove: bool) -> Restored:
    datadir = DataDir(home.data_dir)
    parts_dir = workplace(datadir) / "parts"
    parts_dir.mkdir(mode=0o700)
    manifest, parts = await asyncio.to_thread(extract, path, secret, parts_dir)
    if prove:
        await prove_snapshot(parts[STATE], manifest, binary, tool)
    rebuilt = Rebuilt(
        node_id=home.node_id,
        peer_url=home.peer_url,
        token=new_token(),
        etcd_version=str(binary.version),
        supersedes=(manifest.etcd_cluster_id,) if manifest.etcd_cluster_id else (),
    )
    # Before the member: if this fails, nothing is in place yet that could be started without it.
    for name, content in parts.items():
        if name != STATE:
            install_part(home.identity_dir or datadir.path / IDENTITY_DIR, name, content.read_bytes())
    await build_member(datadir, parts[STATE], rebuilt, binary, tool)
    finish(datadir, rebuilt)
    return Restored(manifest, manifest.revision + REVISION_RAISE, tuple(name for name in parts if name != STATE))


def _require_empty(datadir: DataDir) -> None:
    ready = find_ready(datadir)
    if ready is not None:
        finish(datadir, ready)
        raise DataDirInUse(
            f"an interrupted restore of {datadir.path} was finished just now",
            hint="start the coordinator; to restore something else, use an empty directory",
        )
    held = sorted(entry.name for entry in datadir.path.iterdir() if entry.name not in _HARMLESS)
    if held:
        raise DataDirInUse(
            f"{datadir.path} is not empty: it holds {', '.join(held[:5])}{' …' if len(held) > 5 else ''}",
            hint="restore into an empty directory; move what is there away first, do not delete it",
        )
