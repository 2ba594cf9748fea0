"""Put a member made from a snapshot into a data directory, so that a crash at any moment leaves either the old or the
new, and doing it again finishes it.

    <data dir>/rebuilding/etcd         the new member's directory, being made
    <data dir>/rebuilding/ready.json   written last: from here on the new member is what counts
    then, each step done only if it was not yet:
      etcd        -> etcd.before-…     what was there is put aside, never deleted
      rebuilding/etcd -> etcd
      member.json, progress.json       the new membership: a voter, of a cluster of one
      rebuilding                       removed

The new member begins without the living of the old cluster: who was there and who led goes by leases that nobody
renews any more, and is deleted instead of waited for. Members of the cluster it was made from are told, when they
come back with their old data, that this one takes its place (`supersedes`).
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.durable import write_durably
from cloudless.adapters.member.marker import Marker, MarkerState
from cloudless.adapters.member.progress import Progress
from cloudless.core import keys
from cloudless.errors import BackupError
from cloudless.offline.etcdutl import NewMember, restore_snapshot
from cloudless.offline.throwaway import throwaway_member
from cloudless.ports import Delete, Txn
from etcd.find import Found

_FORMAT = 1
_STALE = (keys.COORDINATORS, keys.ELECTION, keys.SUSPICIONS)
_DELETES_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What is to become of a data directory. `aside` is where the old data go, "" if there are none."""

    node_id: str
    peer_url: str
    token: str
    etcd_version: str
    aside: str = ""
    supersedes: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)


def new_token() -> str:
    """Return a token from which etcd derives ids that no cluster ever had."""
    return f"cloudless-{secrets.token_hex(8)}"


def workplace(datadir: DataDir) -> Path:
    return datadir.path / "rebuilding"


def clear_workplace(datadir: DataDir) -> Path:
    """Return an empty place to work in; what an interrupted try left there is deleted."""
    place = workplace(datadir)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    return place


async def build_member(datadir: DataDir, snapshot: Path, rebuilt: Rebuilt, binary: Found, tool: Path) -> None:
    """Make the new member from a snapshot and write down that it is ready; `finish` does the rest."""
    etcd_dir = workplace(datadir) / "etcd"
    member = NewMember(name=rebuilt.node_id, peer_url=rebuilt.peer_url, token=rebuilt.token)
    await restore_snapshot(tool, snapshot, etcd_dir, member, raise_revisions=True)
    async with throwaway_member(binary, etcd_dir, name=rebuilt.node_id, keep=True) as store:
        await _forget_the_living(store)
    write_ready(datadir, rebuilt)


def write_ready(datadir: DataDir, rebuilt: Rebuilt) -> None:
    """Write down that the new member is complete and what is to become of the directory."""
    write_durably(_ready(datadir), json.dumps({"format": _FORMAT, **asdict(rebuilt)}, indent=1))


def find_ready(datadir: DataDir) -> Rebuilt | None:
    """Return what an interrupted rebuilding is about to put in place, None if it had not got so far."""
    try:
        document = json.loads(_ready(datadir).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if document.pop("format") != _FORMAT:
        raise BackupError(f"{_ready(datadir)} is of another version", hint="finish with the version that began")
    document["supersedes"] = tuple(document["supersedes"])
    return Rebuilt(**document)


def finish(datadir: DataDir, rebuilt: Rebuilt) -> Path | None:
    """Put the new member in place; return where the old data went. Safe to repeat. The caller holds the lock."""
    made, aside = workplace(datadir) / "etcd", None
    if rebuilt.aside:
        aside = datadir.path / rebuilt.aside
        if not aside.exists() and datadir.etcd_dir.exists():
            datadir.etcd_dir.rename(aside)
    if made.exists():
        made.rename(datadir.etcd_dir)
    Marker(
        state=MarkerState.BOOTSTRAPPED,
        node_id=rebuilt.node_id,
        cluster_token=rebuilt.token,
        initial_cluster=((rebuilt.node_id, rebuilt.peer_url),),
        last_etcd_version=rebuilt.etcd_version,
        supersedes=rebuilt.supersedes,
    ).write(datadir.marker)
    Progress(peer_url=rebuilt.peer_url, addresses=rebuilt.addresses).write(datadir.progress)
    shutil.rmtree(workplace(datadir))
    return aside


async def _forget_the_living(store: EtcdStore) -> None:
    for prefix in _STALE:
        page = await store.read_page(prefix, limit=_DELETES_AT_ONCE)
        while page.kvs:
            await store.txn(Txn(then=tuple(Delete(kv.key) for kv in page.kvs)), timeout_s=10.0)
            page = await store.read_page(prefix, limit=_DELETES_AT_ONCE)


def _ready(datadir: DataDir) -> Path:
    return workplace(datadir) / "ready.json"
