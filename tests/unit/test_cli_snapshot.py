"""The backup commands against a coordinator whose answers the test sets; and those that need only a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cloudless.adapters.backup.container import check_file
from cloudless.cli.main import cli
from cloudless.cli.methods import (
    FETCH_BACKUP,
    GET_BACKUP_SCHEDULE,
    LIST_BACKUPS,
    PRUNE_BACKUPS,
    SAVE_BACKUP,
    SET_BACKUP_SCHEDULE,
)
from cloudless.core.backup import Manifest, Part, build_name
from cloudless.errors import BackupError, outcome_of
from cloudless.rpc.v1 import backup_pb2 as pb
from cloudless.rpc.v1.objects_pb2 import BackupSettings, BackupStatus
from tests.unit.cli_coordinator import FakeCoordinator

CONTENT = b"the state " * 100_000
MANIFEST = Manifest(
    cluster_id="c1", etcd_cluster_id="1", revision=5, state_digest="0" * 32, created_at_ms=1_700_000_000_000,
    created_by="coordinator-1", cloudless_version="0", etcd_version="3.5.30", proven=True,
    parts=(Part(name="state", size_bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest()),),
)  # fmt: skip
REFUSED = outcome_of(BackupError).exit_code
NAME = build_name("c1", 1_700_000_000_000, 5)


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    yield made
    made.stop()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "backup.key"
    path.write_text("a passphrase for tests\n")
    return path


def run(coordinator: FakeCoordinator | None, *words: str | Path) -> Result:
    asked = ["-c", coordinator.address] if coordinator else []
    return CliRunner().invoke(cli, [*asked, "cluster", "snapshot", *map(str, words)], env={})


def sends(content: bytes = CONTENT) -> list[pb.SaveBackupResponse]:
    head = pb.SaveBackupResponse(manifest=json.dumps(MANIFEST.to_document()).encode())
    return [head, *(pb.SaveBackupResponse(content=content[at : at + 99_999]) for at in range(0, len(content), 99_999))]


def test_save_writes_what_was_sent_encrypted(coordinator: FakeCoordinator, tmp_path: Path, key_file: Path) -> None:
    coordinator.answer(SAVE_BACKUP, lambda _: sends())
    file = tmp_path / "new" / "all.backup"
    run(coordinator, "save", file, "--key-file", key_file)
    assert check_file(file, b"a passphrase for tests").manifest == MANIFEST
    assert coordinator.requests == [pb.SaveBackupRequest()]


def test_save_writes_it_readable_only_if_told_so(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    coordinator.answer(SAVE_BACKUP, lambda _: sends())
    run(coordinator, "save", tmp_path / "a", "--unencrypted", "--quick")
    assert check_file(tmp_path / "a", None).manifest == MANIFEST
    assert coordinator.requests == [pb.SaveBackupRequest(skip_proof=True)]


@pytest.mark.parametrize("sent", [CONTENT[:-1], CONTENT + b"x", b"X" + CONTENT[1:]])
def test_what_arrives_damaged_is_not_kept(coordinator: FakeCoordinator, tmp_path: Path, sent: bytes) -> None:
    coordinator.answer(SAVE_BACKUP, lambda _: sends(sent))
    assert run(coordinator, "save", tmp_path / "dir" / "a", "--unencrypted").exit_code != 0
    assert list((tmp_path / "dir").iterdir()) == []


def test_without_a_key_nothing_is_asked_or_written(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    result = run(coordinator, "save", tmp_path / "a")
    assert result.exit_code != 0
    assert coordinator.requests == []


def test_inspect_needs_no_key_and_verify_does(coordinator: FakeCoordinator, tmp_path: Path, key_file: Path) -> None:
    coordinator.answer(SAVE_BACKUP, lambda _: sends())
    file = tmp_path / "all.backup"
    run(coordinator, "save", file, "--key-file", key_file)
    shown = json.loads(run(None, "inspect", file, "-o", "json").output)
    assert (shown["revision"], shown["encrypted"]) == (5, True)
    assert "coordinator-1" in run(None, "inspect", file).output
    assert "whole" in run(None, "verify", "--quick", file, "--key-file", key_file).output
    assert run(None, "verify", "--quick", file).exit_code == REFUSED
    file.write_bytes(file.read_bytes()[:-1])
    assert run(None, "verify", "--quick", file, "--key-file", key_file).exit_code == REFUSED


def test_fetch_takes_only_what_is_a_backup(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    coordinator.answer(FETCH_BACKUP, lambda _: [pb.FetchBackupResponse(content=b"an error page")])
    assert run(coordinator, "fetch", NAME, tmp_path / "dir").exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_list_and_prune_name_places(coordinator: FakeCoordinator) -> None:
    kept = pb.StoredBackup(name=NAME, location="c1:/data/backups", size_bytes=5 << 20, created_at_ms=1, revision=5)
    coordinator.answer(LIST_BACKUPS, pb.ListBackupsResponse(backups=[kept]))
    coordinator.answer(PRUNE_BACKUPS, pb.PruneBackupsResponse(deleted=[NAME], location="c1:/data/backups"))
    told = run(coordinator, "list").output
    assert NAME in told
    assert "5.0 MiB" in told
    assert f"{NAME}: would go (c1:/data/backups)" in run(coordinator, "prune", "--dry-run").output
    assert coordinator.requests[-1] == pb.PruneBackupsRequest(dry_run=True)


def test_schedule_changes_what_is_given_and_leaves_the_rest(coordinator: FakeCoordinator) -> None:
    now = BackupSettings(enabled=True, interval_s=3600, keep_last=12, keep_daily=7, keep_weekly=4, verify=True)
    status = BackupStatus(failures_in_a_row=2, last_error="no room")
    coordinator.answer(GET_BACKUP_SCHEDULE, pb.GetBackupScheduleResponse(settings=now, status=status, due_at_ms=1))
    coordinator.answer(SET_BACKUP_SCHEDULE, pb.SetBackupScheduleResponse())
    told = run(coordinator, "schedule", "--every", "2d", "--keep-last", "3", "--target", "/there", "--off").output
    sent = next(request for request in coordinator.requests if isinstance(request, pb.SetBackupScheduleRequest))
    assert (sent.settings.interval_s, sent.settings.keep_last, sent.settings.keep_daily) == (172_800, 3, 7)
    assert (sent.settings.target, sent.settings.enabled, sent.settings.verify) == ("/there", False, True)
    assert "2 times since: no room" in told
    before = len(coordinator.requests)
    run(coordinator, "schedule")
    assert len(coordinator.requests) == before + 1, "showing changes nothing"


@pytest.mark.parametrize("every", ["", "1", "h", "-1h", "1.5h", "1y"])
def test_a_duration_that_is_none_is_refused_by_name(coordinator: FakeCoordinator, every: str) -> None:
    assert run(coordinator, "schedule", "--every", every).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--node-id", "UPPER", "--raft-address", "h:3000"),
        ("--node-id", "c1", "--raft-address", "h"),
        ("--node-id", "c1", "--raft-address", "0.0.0.0:3000"),
    ],
)
def test_a_home_that_cannot_be_is_refused_and_not_touched(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    assert run(None, "restore", tmp_path / "none", "--data-dir", home, *arguments).exit_code == 2
    assert not home.exists()
