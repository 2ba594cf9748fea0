"""BackupService: take a backup, look at those there are, and set the schedule.

What `SaveBackup` sends and `FetchBackup` fetches is the whole state, secrets of workloads included: for admins only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from cloudless.adapters.backup.target import Kept, Target
from cloudless.coordinator.api.access import Access, Decided
from cloudless.coordinator.backups import BackupMaker
from cloudless.core import keys
from cloudless.core.backup import check_settings, find_settings, plan_backup, settings_of, status_of
from cloudless.core.model import BackupSettings
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import View
from cloudless.errors import InvalidSpec
from cloudless.rpc import codec
from cloudless.rpc.v1 import backup_pb2 as pb
from cloudless.rpc.v1 import objects_pb2


class Backups:
    """BackupService."""

    def __init__(self, access: Access, maker: BackupMaker) -> None:
        self._access, self._maker = access, maker

    async def SaveBackup(self, request: pb.SaveBackupRequest, context: Any) -> AsyncIterator[pb.SaveBackupResponse]:
        async with self._maker.collect(prove=not request.skip_proof) as collected:
            yield pb.SaveBackupResponse(manifest=json.dumps(collected.manifest.to_document()).encode())
            async for piece in _from_thread(collected.content()):
                yield pb.SaveBackupResponse(content=piece)

    async def StoreBackup(self, request: pb.StoreBackupRequest, context: Any) -> pb.StoreBackupResponse:
        made = await self._maker.store(settings_of(self._access.view))
        return pb.StoreBackupResponse(
            header=self._access.header(),
            backup=pb.StoredBackup(
                name=made.name,
                location=self._place(self._maker.target()),
                size_bytes=made.size_bytes,
                created_at_ms=made.manifest.created_at_ms,
                revision=made.manifest.revision,
            ),
            pruned=made.pruned,
        )

    async def ListBackups(self, request: pb.ListBackupsRequest, context: Any) -> pb.ListBackupsResponse:
        target = self._maker.target()
        kept = await asyncio.to_thread(target.list)
        return pb.ListBackupsResponse(
            header=self._access.header(),
            backups=[_to_message(entry, self._place(target)) for entry in kept],
            location=self._place(target),
            shared=target.shared,
        )

    async def FetchBackup(self, request: pb.FetchBackupRequest, context: Any) -> AsyncIterator[pb.FetchBackupResponse]:
        async for piece in _from_thread(self._maker.target().read(request.name)):
            yield pb.FetchBackupResponse(content=piece)

    async def PruneBackups(self, request: pb.PruneBackupsRequest, context: Any) -> pb.PruneBackupsResponse:
        target = self._maker.target()
        deleted = await self._maker.prune(settings_of(self._access.view), target, dry_run=request.dry_run)
        return pb.PruneBackupsResponse(header=self._access.header(), deleted=deleted, location=self._place(target))

    async def GetBackupSchedule(
        self, request: pb.GetBackupScheduleRequest, context: Any
    ) -> pb.GetBackupScheduleResponse:
        view = await self._access.settle(request.read, context)
        now_ms = self._access.clock.wall_ms()
        decision = plan_backup(view, now_ms)
        due_at_ms = 0 if decision.wait_s is None else now_ms + round(1000 * decision.wait_s)
        return pb.GetBackupScheduleResponse(
            header=self._access.header(),
            settings=codec.to_message(settings_of(view), objects_pb2.BackupSettings),
            status=codec.to_message(status_of(view), objects_pb2.BackupStatus),
            due_at_ms=due_at_ms,
            reason=decision.reason,
        )

    async def SetBackupSchedule(
        self, request: pb.SetBackupScheduleRequest, context: Any
    ) -> pb.SetBackupScheduleResponse:
        settings = codec.from_message(request.settings, BackupSettings)
        problems = check_settings(settings)
        if problems:
            raise InvalidSpec(problems)
        key = keys.backup_settings()

        def decide(view: View) -> Decided:
            if find_settings(view) == settings:
                return Decided(None, {})
            state = "on" if settings.enabled else "off"
            event = self._access.event("BackupScheduleChanged", "cluster/backups", f"{state}: {settings}")
            change = Change(
                puts=(PutRecord(key, settings), event),
                preconditions=(Precondition(key, self._access.replica.machine.mod_revision(key)),),
                reason="the schedule of backups",
            )
            return Decided(change, {})

        written = await self._access.write(
            request.options, request.settings.SerializeToString(deterministic=True), decide, context
        )
        return pb.SetBackupScheduleResponse(
            header=self._access.header(written.revision),
            settings=codec.to_message(settings, objects_pb2.BackupSettings),
        )

    def _place(self, target: Target) -> str:
        return target.location if target.shared else f"{self._access.own_id}:{target.location}"


def _to_message(kept: Kept, location: str) -> pb.StoredBackup:
    return pb.StoredBackup(
        name=kept.named.name,
        location=location,
        size_bytes=kept.size_bytes,
        created_at_ms=kept.named.created_at_ms,
        revision=kept.named.revision,
    )


async def _from_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what a blocking iterator gives, each piece awaited in a thread."""
    try:
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
