"""What the backup commands do with coordinators and files: receive, list, fetch, prune, schedule."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cloudless.adapters.backup.container import Header, check_file, read_header, sync_directory, write_backup
from cloudless.cli.ages import format_age
from cloudless.cli.client import Client
from cloudless.cli.methods import (
    FETCH_BACKUP,
    GET_BACKUP_SCHEDULE,
    LIST_BACKUPS,
    PRUNE_BACKUPS,
    SAVE_BACKUP,
    SET_BACKUP_SCHEDULE,
)
from cloudless.cli.options import Options
from cloudless.cli.views import now_ms
from cloudless.core.backup import Manifest, parse_manifest
from cloudless.core.setting_values import parse_address
from cloudless.errors import BackupError, CloudlessError, CorruptBackup, InvalidSpec, NotFound, Problem
from cloudless.offline.restore import NewHome
from cloudless.rpc.v1 import backup_pb2 as pb

T = TypeVar("T")

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONG_S = 900.0


def receive(client: Client, file: Path, secret: bytes | None, *, prove: bool) -> tuple[int, Manifest]:
    """Have a coordinator take a backup and write it to `file`; return its size and manifest.

    What arrives is checked against the manifest's hashes while it is written, and read once more afterwards.
    """
    request = pb.SaveBackupRequest(skip_proof=not prove)
    answers = client.stream(SAVE_BACKUP, request, timeout_s=None)
    first = next(answers, None)
    if first is None:
        raise BackupError("the coordinator sent no backup")
    manifest = parse_manifest(json.loads(first.manifest))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        size_bytes = write_backup(file, manifest, (answer.content for answer in answers), secret)
    except OSError as error:
        raise BackupError(f"{file} cannot be written: {error.strerror}") from error
    check_file(file, secret)
    return size_bytes, manifest


def header_of(file: Path) -> Header:
    """Return the header of a backup's file. Raises CorruptBackup, NotFound."""
    try:
        with file.open("rb") as opened:
            return read_header(opened)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {file}") from error
    except OSError as error:
        raise CorruptBackup(f"{file} cannot be read: {error.strerror}") from error


def home_of(data_dir: Path, node_id: str, raft_address: str, scheme: str, identity_dir: Path | None) -> NewHome:
    """Return where to restore to. Raises InvalidSpec with every fault of what was given."""
    from cloudless.core.keys import NAME_PATTERN

    problems = []
    if not NAME_PATTERN.fullmatch(node_id):
        problems.append(Problem("--node-id", "must be 1 to 63 of a-z, 0-9, '-' and '.'"))
    peer_url = peer_url_of(raft_address, "--raft-address", scheme, problems)
    return NewHome(data_dir=data_dir, node_id=node_id, peer_url=peer_url, identity_dir=identity_dir)


def peer_url_of(raft_address: str, field: str, scheme: str, problems: list[Problem] | None = None) -> str:
    """Return the URL at which a member is reached. Raises InvalidSpec, with `problems` found before."""
    found = list(problems or ())
    try:
        address = parse_address(raft_address)
        if address.startswith("0.0.0.0:"):
            raise ValueError("must be an address that the other hosts reach, such as 10.0.0.5:3000")
    except ValueError as error:
        found.append(Problem(field, str(error)))
        address = ""
    if found:
        raise InvalidSpec(found)
    return f"{scheme}://{address}"


def list_everywhere(options: Options) -> tuple[list[pb.StoredBackup], dict[str, str]]:
    """Return the backups that all coordinators see, each once, and why some could not be asked."""
    answers, silent = _ask_each(options, lambda client: client.call(LIST_BACKUPS, pb.ListBackupsRequest()))
    found = {(backup.location, backup.name): backup for answer in answers for backup in answer.backups}
    return sorted(found.values(), key=lambda backup: (backup.name, backup.location)), silent


def prune_everywhere(options: Options, dry_run: bool) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Prune at every coordinator; return by place what was deleted, and why some could not be asked."""
    request = pb.PruneBackupsRequest(dry_run=dry_run)
    answers, silent = _ask_each(options, lambda client: client.call(PRUNE_BACKUPS, request))
    deleted: dict[str, list[str]] = {}
    for answer in answers:
        deleted.setdefault(answer.location, []).extend(answer.deleted)
    return deleted, silent


def fetch_from_any(options: Options, name: str, file: Path) -> int:
    """Copy a backup from whichever coordinator has it; return its size. Raises NotFound, BackupError."""
    missing: CloudlessError | None = None
    credentials = options.credentials()
    for address in options.addresses():
        with Client((address,), options.timeout_s, credentials) as client:
            try:
                return _write(file, client.stream(FETCH_BACKUP, pb.FetchBackupRequest(name=name), timeout_s=_LONG_S))
            except NotFound as error:
                missing = error
            except CloudlessError as error:
                missing = missing or error
    raise missing or NotFound(f"there is no backup {name}")


def _write(file: Path, answers: Iterator[pb.FetchBackupResponse]) -> int:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as target:
            for answer in answers:
                target.write(answer.content)
            target.flush()
            os.fsync(target.fileno())
            size_bytes = target.tell()
        header_of(temporary)
        temporary.replace(file)
        sync_directory(file.parent)
        return size_bytes
    except OSError as error:
        raise BackupError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def change_schedule(client: Client, changes: dict[str, Any]) -> None:
    """Set what was given of the schedule and leave the rest as it is; nothing if nothing was given."""
    if not changes:
        return
    settings = client.call(GET_BACKUP_SCHEDULE, pb.GetBackupScheduleRequest()).settings
    for name, value in changes.items():
        setattr(settings, name, value)
    client.call(SET_BACKUP_SCHEDULE, pb.SetBackupScheduleRequest(settings=settings))


def describe_schedule(answer: pb.GetBackupScheduleResponse) -> list[tuple[str, str]]:
    """Return the schedule and how the last backups went, for people."""
    settings, status, now = answer.settings, answer.status, now_ms()
    rows = [
        ("scheduled", f"every {_duration(settings.interval_s)}" if settings.enabled else "no"),
        ("target", settings.target or "directory `backups` of the leader's data directory"),
        ("keep", f"{settings.keep_last} last, {settings.keep_daily} daily, {settings.keep_weekly} weekly"),
        ("verify", "each one is proven" if settings.verify else "NO"),
        ("next", f"in {_duration(max(0, answer.due_at_ms - now) // 1000)}" if answer.due_at_ms else answer.reason),
        ("last", "none yet"),
    ]
    if status.last_success_at_ms:
        told = f"{status.last_name}, {format_age(status.last_success_at_ms, now)} ago by {status.last_coordinator_id}"
        kind = f"{'proven' if status.verified else 'not proven'}, {'' if status.encrypted else 'NOT '}encrypted"
        rows[-1] = ("last", f"{told} ({kind})")
    if status.failures_in_a_row:
        rows.append(("failed", f"{status.failures_in_a_row} times since: {status.last_error}"))
    return rows


def parse_duration_s(text: str) -> int:
    """Return the seconds of `90s`, `30m`, `1h`, `1d`, `2w`. Raises InvalidSpec."""
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if match is None:
        raise InvalidSpec([Problem("--every", f"must be a number with s, m, h, d or w, such as 1h, not {text!r}")])
    return int(match[1]) * _UNITS_S[match[2]]


def _duration(seconds: int) -> str:
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _UNITS_S[unit] == 0:
            return f"{seconds // _UNITS_S[unit]}{unit}"
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m"


def _ask_each(options: Options, ask: Callable[[Client], T]) -> tuple[list[T], dict[str, str]]:
    answers, silent, credentials = [], {}, options.credentials()
    for address in options.addresses():
        with Client((address,), options.timeout_s, credentials) as client:
            try:
                answers.append(ask(client))
            except CloudlessError as error:
                silent[address] = error.message
    if not answers:
        raise BackupError(f"no coordinator answered: {'; '.join(f'{a}: {why}' for a, why in silent.items())}")
    return answers, silent
