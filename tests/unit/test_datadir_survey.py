"""A data directory looked over from outside: real files, planted as a bad day leaves them."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path

import pytest

from cloudless.adapters.host.disk import measure_fsync, measure_room
from cloudless.adapters.host.machine import look_at_machine
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import Marker, MarkerState
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.survey import lock_owner, survey_datadir
from cloudless.core.diagnosis import Facts, diagnose
from cloudless.core.membership.returning import Reached

MEMBER = "8e9e05c52164694d"


def write_wal(datadir: DataDir, last_index: int) -> None:
    """Write a log of one record: an entry (type 2) whose data names its index."""
    entry = b"\x10\x01\x18" + bytes([last_index])
    record = b"\x08\x02\x1a" + bytes([len(entry)]) + entry
    folder = datadir.etcd_dir / "member" / "wal"
    folder.mkdir(parents=True)
    (folder / "0000000000000000-0000000000000000.wal").write_bytes(struct.pack("<q", len(record)) + record)


@pytest.fixture
def datadir(tmp_path: Path) -> DataDir:
    """Return the directory of a member that stopped in good order."""
    made = DataDir(tmp_path / "data")
    Marker(
        state=MarkerState.BOOTSTRAPPED, node_id="c1", member_id=MEMBER, cluster_id="9", last_etcd_version="3.5.30"
    ).write(made.marker)
    Progress(reached=Reached(MEMBER, 90)).write(made.progress)
    write_wal(made, 100)
    return made


def codes(datadir: DataDir, expected_id: str = "c1", etcd_version: str = "3.5.33") -> set[str]:
    return {f.code for f in diagnose(Facts(datadir=survey_datadir(datadir.path, expected_id, etcd_version)))}


def test_a_member_that_stopped_in_good_order_has_nothing_wrong(datadir: DataDir) -> None:
    assert codes(datadir) == set()
    facts = survey_datadir(datadir.path)
    assert (facts.node_id, facts.member_id, facts.state) == ("c1", MEMBER, "present")


def test_looking_changes_nothing(datadir: DataDir, tmp_path: Path) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*"))
    survey_datadir(datadir.path)
    survey_datadir(tmp_path / "nowhere")
    assert sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_a_directory_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    assert {f.code for f in diagnose(Facts(datadir=survey_datadir(tmp_path / "nowhere")))} == {"datadir-missing"}


def test_a_marker_without_data_is_a_lost_member(datadir: DataDir) -> None:
    (datadir.etcd_dir / "member" / "wal" / "0000000000000000-0000000000000000.wal").unlink()
    assert codes(datadir) == {"data-lost"}


def test_data_without_a_marker_are_foreign(datadir: DataDir) -> None:
    datadir.marker.unlink()
    assert codes(datadir) == {"data-foreign"}


def test_another_nodes_directory_is_told_from_ones_own(datadir: DataDir) -> None:
    assert codes(datadir, expected_id="c2") == {"data-of-another"}


def test_a_log_that_ends_too_early_is_outdated(datadir: DataDir) -> None:
    Progress(reached=Reached(MEMBER, 101)).write(datadir.progress)
    assert codes(datadir) == {"data-outdated"}


def test_data_that_a_majority_contradicted_are_in_doubt(datadir: DataDir) -> None:
    Progress(doubt="c2 and c3 agree on another digest").write(datadir.progress)
    assert codes(datadir) == {"data-doubted"}


def test_a_marker_that_cannot_be_read_is_named(datadir: DataDir) -> None:
    datadir.marker.write_text("{}")
    assert codes(datadir) == {"marker-unreadable"}


def test_an_etcd_older_than_the_data_is_named(datadir: DataDir) -> None:
    assert codes(datadir, etcd_version="3.5.16") == {"etcd-older-than-data"}


def test_a_directory_open_to_others_and_a_loose_key_are_named(datadir: DataDir) -> None:
    datadir.path.chmod(0o755)
    assert codes(datadir) == {"permissions"}
    datadir.path.chmod(0o700)
    key = datadir.path / "peer.key"
    key.write_text("x")
    key.chmod(0o644)
    assert codes(datadir) == {"permissions"}
    key.chmod(0o600)
    assert codes(datadir) == set()


def test_what_was_put_aside_and_what_does_not_belong_here_is_listed(datadir: DataDir) -> None:
    aside = datadir.path / "etcd.outdated-0a1b2c3d"
    aside.mkdir()
    (aside / "db").write_bytes(bytes(1000))
    (datadir.path / "holiday.jpg").write_bytes(b"x")
    facts = survey_datadir(datadir.path)
    assert facts.asides == ((str(aside), 1000),)
    assert facts.strays == ("holiday.jpg",)
    assert codes(datadir) == {"put-aside", "strays"}


def test_etcds_last_words_count_when_they_alarm(datadir: DataDir) -> None:
    datadir.log_file.write_text("started\nok\n")
    assert codes(datadir) == set()
    datadir.log_file.write_text("started\nwal: crc mismatch\n")
    assert codes(datadir) == {"etcd-said"}
    datadir.log_file.write_text("the member has been permanently removed from the cluster\n")
    assert codes(datadir) == {"member-removed"}


def test_the_owner_of_the_lock_is_seen_without_touching_it(datadir: DataDir) -> None:
    assert lock_owner(datadir.lock_file) == ""
    handle = os.open(datadir.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(handle, json.dumps({"pid": os.getpid(), "host": "here"}).encode())
    assert lock_owner(datadir.lock_file) == "", "a name in the file is not yet a lock"
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert lock_owner(datadir.lock_file) == f"pid {os.getpid()} on here"
        assert codes(datadir) == {"in-use"}
    finally:
        os.close(handle)


# --- the host beneath ---


def test_a_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    times = measure_fsync(tmp_path, writes=5)
    assert 0 < times.median_ms <= times.worst_ms
    assert times.writes <= 5
    assert list(tmp_path.iterdir()) == []
    assert measure_room(tmp_path / "not" / "yet").total_bytes > 0


def test_the_probe_of_a_disk_ends_when_its_time_is_up(tmp_path: Path) -> None:
    assert measure_fsync(tmp_path, writes=10_000, budget_s=0.0).writes == 1


def test_this_machine_can_be_looked_at() -> None:
    machine = look_at_machine()
    assert machine.memory_bytes > machine.memory_free_bytes > 0
    assert machine.cpus >= 1
