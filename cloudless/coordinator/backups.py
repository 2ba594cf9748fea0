"""Make backups: take a snapshot of the own member, prove it, write it where backups go; the leader does so on time.

::

    snapshot of the own etcd  ──►  revision (etcdutl)  ──►  digest at that revision (own state's memory)
                              ──►  proof: a member made from it, started, gives the same digest
    other parts (identity)    ──►  manifest  ──►  one file, encrypted  ──►  target  ──►  prune

The digest is remembered by the state machine, which watches; the snapshot comes from etcd's database. That both
agree is the point. When the next one is due decides `core.backup.plan_backup`, from the replicated status, so a new
leader goes on where the old one was. Only the leader writes that status; a backup made on request leaves it alone.

One at a time on each coordinator. What a killed one left behind is cleared away by the next.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from loguru import logger

from cloudless.adapters.backup.container import write_backup
from cloudless.adapters.backup.parts import collect_parts
from cloudless.adapters.backup.sealing import clean_secret
from cloudless.adapters.backup.target import Target, open_target
from cloudless.adapters.etcd.store import EtcdStore
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.membership import Members
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.backup import (
    STATE,
    BackupMember,
    Keep,
    Manifest,
    Part,
    build_name,
    plan_backup,
    plan_prune,
    settings_of,
    status_of,
)
from cloudless.core.model import BackupSettings, BackupStatus, EventRecord, Severity
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import Applied
from cloudless.errors import BackupError, CloudlessError, Fenced, LeaseLost, Unavailable
from cloudless.offline.etcdutl import read_snapshot_status
from cloudless.offline.proof import check_appended_hash, prove_snapshot, require_room
from cloudless.ports import Clock, Ids
from cloudless.settings import CoordinatorSettings
from etcd.find import Found
from etcd.tools import find_etcdutl

WRITE_BYTES = 1 << 20
CATCH_UP_TIMEOUT_S = 30.0
DIGESTS_MAX = 500_000
LOOK_PERIOD_S = 5.0


@dataclass(frozen=True, slots=True)
class Collected:
    """The parts of a backup, lying in files, and what is said of them."""

    manifest: Manifest
    files: dict[str, Path]

    def content(self) -> Iterator[bytes]:
        """Yield the parts' bytes in the manifest's order. Blocks."""
        for part in self.manifest.parts:
            with self.files[part.name].open("rb") as file:
                while piece := file.read(WRITE_BYTES):
                    yield piece


@dataclass(frozen=True, slots=True)
class Made:
    """One backup that was put into the target, and which others were deleted then."""

    name: str
    location: str
    size_bytes: int
    manifest: Manifest
    encrypted: bool
    took_ms: int
    pruned: tuple[str, ...]


class BackupMaker:
    """Makes backups of one coordinator's member."""

    def __init__(
        self, settings: CoordinatorSettings, store: EtcdStore, replica: Replica, members: Members, clock: Clock,
        binary: Found, version: str, key_names: Callable[[], Collection[str]] = tuple,
    ) -> None:  # fmt: skip
        """`key_names` are those of the cluster keys on disk."""
        self._key_names = key_names
        self._settings, self._store, self._replica, self._members = settings, store, replica, members
        self._clock, self._binary, self._version = clock, binary, version
        self._spool = settings.data_dir / "backups"
        self._one_at_a_time = asyncio.Lock()

    def target(self) -> Target:
        """Return where backups go by the settings of now."""
        settings = settings_of(self._replica.machine)
        return open_target(settings.target, self._settings.data_dir)

    async def store(self, settings: BackupSettings) -> Made:
        """Make a backup, put it into the target and prune there. Raises BackupError, Unavailable, OSError."""
        began_s = self._clock.monotonic_s()
        target = open_target(settings.target, self._settings.data_dir)
        secret = await asyncio.to_thread(self._read_secret, settings)
        async with self.collect(prove=settings.verify) as collected:
            manifest = collected.manifest
            name = build_name(manifest.cluster_id, manifest.created_at_ms, manifest.revision)
            path = next(iter(collected.files.values())).with_name(name)
            size_bytes = await asyncio.to_thread(write_backup, path, manifest, collected.content(), secret)
            await asyncio.to_thread(target.put, path)
        pruned = await self.prune(settings, target)
        took_ms = round(1000 * (self._clock.monotonic_s() - began_s))
        return Made(name, target.location, size_bytes, manifest, secret is not None, took_ms, pruned)

    async def prune(self, settings: BackupSettings, target: Target, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete what the keep numbers do not keep of this cluster's backups; return the names."""
        keep = Keep(last=settings.keep_last, daily=settings.keep_daily, weekly=settings.keep_weekly)
        doomed = plan_prune([kept.named for kept in await asyncio.to_thread(target.list)], keep)
        for name in () if dry_run else doomed:
            await asyncio.to_thread(target.delete, name)
        return doomed

    @contextlib.asynccontextmanager
    async def collect(self, *, prove: bool) -> AsyncIterator[Collected]:
        """Yield all parts of a backup of now; their files are gone when the block is left."""
        async with self._one_at_a_time:
            place = await asyncio.to_thread(self._new_place)
            try:
                yield await self._collect(place, prove)
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, True))

    async def _collect(self, place: Path, prove: bool) -> Collected:
        tool = await asyncio.to_thread(find_etcdutl, self._binary)
        status = self._members.status
        if status is not None:
            require_room(place, (4 if prove else 2) * status.db_size_bytes)
        held = self._key_names()
        extra = await asyncio.to_thread(collect_parts, self._settings.identity_dir)
        snapshot = place / "snapshot"
        created_at_ms = self._clock.wall_ms()
        with DigestTape(self._replica) as tape:
            await self._take_snapshot(snapshot)
            sha256 = await asyncio.to_thread(check_appended_hash, snapshot)
            # An idle store's last writes may be deletions that were compacted: then no key bears the newest revision.
            revision = max(tape.begins_at, (await read_snapshot_status(tool, snapshot)).revision)
            await self._replica.wait_for(revision, timeout_s=CATCH_UP_TIMEOUT_S)
            digest = tape.find(revision)
        files = {STATE: snapshot}
        parts = [Part(name=STATE, size_bytes=snapshot.stat().st_size, sha256=sha256)]
        self._require_keys(held)
        for name, content in extra.items():
            files[name] = place / f"part-{len(files)}"
            files[name].touch(mode=0o600)
            files[name].write_bytes(content)
            parts.append(Part(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
        manifest = self._manifest(created_at_ms, revision, digest, tuple(parts))
        if prove:
            await prove_snapshot(snapshot, manifest, self._binary, tool)
            manifest = replace(manifest, proven=True)
        return Collected(manifest, files)

    def _require_keys(self, held: Collection[str]) -> None:
        """Raise Unavailable unless the cluster keys held before the snapshot was taken open its authorities.

        A new key is held before anything is sealed with it, and an old one for long after; but who was away while it
        was replaced may have the state and not the key yet.
        """
        authorities = self._replica.machine.authorities.values()
        missing = {authority.record.sealed_with for authority in authorities} - set(held)
        if missing:
            raise Unavailable(
                f"a backup made here could not be used: it lacks the cluster key {', '.join(sorted(missing))}",
                hint="this coordinator asks the others for it: try again in a moment, or ask another one",
            )

    async def _take_snapshot(self, path: Path) -> None:
        waiting = bytearray()
        path.touch(mode=0o600)
        with path.open("wb") as file:
            async for piece in self._store.snapshot():
                waiting += piece
                if len(waiting) >= WRITE_BYTES:
                    await asyncio.to_thread(file.write, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(file.write, bytes(waiting))

    def _manifest(self, created_at_ms: int, revision: int, digest: int, parts: tuple[Part, ...]) -> Manifest:
        cluster, status = self._replica.machine.cluster, self._members.status
        return Manifest(
            cluster_id=cluster.id if cluster else "",
            etcd_cluster_id=f"{status.cluster_id:x}" if status else "",
            revision=revision,
            state_digest=f"{digest:032x}",
            created_at_ms=created_at_ms,
            created_by=self._settings.node_id,
            cloudless_version=self._version,
            etcd_version=str(self._binary.version),
            members=tuple(
                BackupMember(name=member.name, peer_urls=member.peer_urls, learner=member.is_learner)
                for member in self._members.list
            ),
            parts=parts,
        )

    def _new_place(self) -> Path:
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._spool.glob(".spool-*"):  # of one that was killed: the data directory is locked by us
            shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=".spool-", dir=self._spool))

    def _read_secret(self, settings: BackupSettings) -> bytes | None:
        path = self._settings.backup_key_file
        if path is None:
            if settings.target:  # in our own data directory the same secrets lie beside it
                raise BackupError(
                    f"what leaves this host for {settings.target} is encrypted: it holds every secret of the cluster",
                    hint="set CLOUDLESS_BACKUP_KEY_FILE on every coordinator",
                )
            return None
        try:
            return clean_secret(path.read_bytes())
        except OSError as error:
            raise BackupError(
                f"the key file {path} cannot be read: {error.strerror}", hint="see CLOUDLESS_BACKUP_KEY_FILE"
            ) from error


class Maker(Protocol):
    """What the controller has made."""

    async def store(self, settings: BackupSettings) -> Made: ...


class BackupController:
    """The leader's: makes backups when they are due and writes down how it went."""

    def __init__(
        self, own_id: str, maker: Maker, replica: Replica, events: RollingLease, clock: Clock, ids: Ids
    ) -> None:
        self._own_id, self._maker, self._replica = own_id, maker, replica
        self._events, self._clock, self._ids = events, clock, ids

    async def run(self, term: int, committer: Committer) -> None:
        while True:
            decision = plan_backup(self._replica.machine, self._clock.wall_ms())
            if decision.due:
                logger.info("making a backup: {}", decision.reason)
                await self._make(term, committer)
            await self._clock.sleep(LOOK_PERIOD_S if decision.wait_s is None else min(decision.wait_s, LOOK_PERIOD_S))

    async def _make(self, term: int, committer: Committer) -> None:
        settings = settings_of(self._replica.machine)
        before = status_of(self._replica.machine)
        try:
            made = await self._maker.store(settings)
        except (CloudlessError, OSError) as error:
            said = str(error) if isinstance(error, CloudlessError) else f"{error.strerror or error}"
            logger.warning("no backup was made: {}", said)
            status = replace(
                before,
                last_failure_at_ms=self._clock.wall_ms(),
                last_error=said,
                failures_in_a_row=before.failures_in_a_row + 1,
            )
            return await self._record(term, committer, status, "BackupFailed", said, Severity.WARNING)
        message = f"{made.name} ({made.size_bytes >> 10} KiB, revision {made.manifest.revision}) in {made.location}"
        logger.info("backup made: {}", message)
        status = replace(
            before,
            last_success_at_ms=self._clock.wall_ms(),
            last_name=made.name,
            last_revision=made.manifest.revision,
            last_size_bytes=made.size_bytes,
            last_took_ms=made.took_ms,
            last_target=made.location,
            last_coordinator_id=self._own_id,
            verified=made.manifest.proven,
            encrypted=made.encrypted,
            last_error="",
            failures_in_a_row=0,
        )
        await self._record(term, committer, status, "BackupSaved", message, Severity.INFO)

    async def _record(
        self, term: int, committer: Committer, status: BackupStatus, kind: str, message: str, severity: Severity
    ) -> None:
        """Write the status and an event. What cannot be written is tried again with the next backup, soon."""
        key, at_ms = keys.backup_status(), self._clock.wall_ms()
        event = EventRecord(
            id=f"{at_ms:013d}-{self._ids.new()[:8]}", at_ms=at_ms, kind=kind, subject=f"coordinator/{self._own_id}",
            message=message, severity=severity, source=self._own_id, term=term,
        )  # fmt: skip
        try:
            lease_id = await self._events.current()
            change = Change(
                puts=(PutRecord(key, status), PutRecord(keys.event(event.id), event, lease_id)),
                preconditions=(Precondition(key, self._replica.machine.mod_revision(key)),),
                reason=f"{kind}: {message}",
            )
            await commit_changes(committer, self._replica, (change,))
        except (Fenced, LeaseLost):
            raise
        except CloudlessError as error:
            logger.warning("the outcome of a backup could not be written down: {}", error)


class DigestTape:
    """Remembers the state's digest at every revision while a snapshot is taken, whose revision is known only later."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._revisions: list[int] = []
        self._digests: list[int] = []

    def __enter__(self) -> DigestTape:
        self._note(None)
        self._stop = self._replica.listen(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def begins_at(self) -> int:
        """The revision that every snapshot taken since then has at least."""
        return self._revisions[0]

    def _note(self, applied: Applied | None) -> None:
        if len(self._revisions) < DIGESTS_MAX:
            self._revisions.append(self._replica.machine.revision)
            self._digests.append(self._replica.machine.digest)

    def find(self, revision: int) -> int:
        """Return the digest at `revision`, which the state has reached. Raises Unavailable if it is not known."""
        at = bisect.bisect_right(self._revisions, revision) - 1
        if at < 0 or self._revisions[-1] < revision or self._revisions != sorted(self._revisions):
            raise Unavailable(
                f"the state's digest at revision {revision} is not known: it was read afresh meanwhile",
                hint="try again in a moment",
            )
        return self._digests[at]
