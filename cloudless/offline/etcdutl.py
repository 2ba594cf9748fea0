"""Call etcd's own program for snapshots: what one holds, and a new member's directory made from one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from cloudless.adapters.member.process import build_environment
from cloudless.errors import BackupError, CorruptBackup

REVISION_RAISE = 1_000_000_000
"""How far a rebuilt store's revisions begin above those of its snapshot: more than the old store can have gone on by
after it. Terms and revisions then only rise, for agents and for every cache."""

_STATUS_TIMEOUT_S = 120.0
_RESTORE_TIMEOUT_S = 900.0
_MEMORY_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """What etcdutl says of a snapshot."""

    revision: int
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMember:
    """The one member of a cluster made from a snapshot. The token makes the ids of cluster and member new ones."""

    name: str
    peer_url: str
    token: str


async def read_snapshot_status(tool: Path, snapshot: Path) -> SnapshotStatus:
    """Return what a snapshot holds. Raises CorruptBackup if it is none."""
    said = await _run(tool, "snapshot", "status", str(snapshot), "--write-out=json", timeout_s=_STATUS_TIMEOUT_S)
    try:
        document = json.loads(said)
        return SnapshotStatus(int(document["revision"]), int(document["totalKey"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptBackup(f"etcdutl does not say what the snapshot holds: {said[-200:]!r}") from error


async def restore_snapshot(
    tool: Path, snapshot: Path, etcd_dir: Path, member: NewMember, *, raise_revisions: bool
) -> None:
    """Make the data directory of a one-member cluster from a snapshot; `etcd_dir` must not exist.

    With `raise_revisions` everything before is marked as compacted, so that whoever watched reads afresh.
    """
    raising = [f"--bump-revision={REVISION_RAISE}", "--mark-compacted"] if raise_revisions else []
    await _run(
        tool, "snapshot", "restore", str(snapshot), f"--data-dir={etcd_dir}", f"--name={member.name}",
        f"--initial-cluster={member.name}={member.peer_url}", f"--initial-advertise-peer-urls={member.peer_url}",
        f"--initial-cluster-token={member.token}", *raising, timeout_s=_RESTORE_TIMEOUT_S,
    )  # fmt: skip


async def _run(tool: Path, *arguments: str, timeout_s: float) -> str:
    process = await asyncio.create_subprocess_exec(
        str(tool), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=build_environment(_MEMORY_BYTES),
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            said, complaint = await process.communicate()
    except TimeoutError as error:
        raise BackupError(f"`etcdutl {' '.join(arguments[:2])}` took longer than {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        words = (complaint or said).decode(errors="replace").strip().splitlines()
        raise CorruptBackup(f"`etcdutl {' '.join(arguments[:2])}` failed: {words[-1] if words else process.returncode}")
    return said.decode(errors="replace")
