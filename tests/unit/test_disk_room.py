"""Whether an agent's disk has room: told with its reason, and told anew only when that changes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from cloudless.adapters.host.disk import Room
from cloudless.agent import room
from cloudless.agent.room import DiskRoom

_Statvfs = namedtuple("_Statvfs", "f_flag")
MIB = 1024**2


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    """What the file system says, at the process's edge."""
    said = [Room(100 * MIB, 200 * MIB, 50_000, 100_000)]
    monkeypatch.setattr(room, "measure_room", lambda path: said[0])
    return said


async def test_a_change_is_told_once_and_its_reason_follows_the_disk(disk: list[Room]) -> None:
    told: list[str] = []
    watched = DiskRoom(Path("/"), 64, lambda: told.append(watched.fault))
    assert await watched.look() == ""
    disk[0] = Room(12 * MIB, 200 * MIB, 50_000, 100_000)
    assert await watched.look() == "12Mi are left on the disk of /, 64Mi are kept free"
    disk[0] = Room(11 * MIB, 200 * MIB, 50_000, 100_000)
    assert (await watched.look()).startswith("11Mi are left")
    disk[0] = Room(100 * MIB, 200 * MIB, 50_000, 100_000)
    assert await watched.look() == ""
    assert told == ["12Mi are left on the disk of /, 64Mi are kept free", ""]


async def test_inodes_run_out_too_and_a_file_system_without_a_count_of_them_has_enough(disk: list[Room]) -> None:
    watched = DiskRoom(Path("/"), 64, lambda: None)
    disk[0] = Room(100 * MIB, 200 * MIB, 7, 100_000)
    assert await watched.look() == "7 inodes are left on the disk of /"
    disk[0] = Room(100 * MIB, 200 * MIB, 0, 0)
    assert await watched.look() == ""


async def test_a_disk_that_is_not_there_or_read_only_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = DiskRoom(Path("/nowhere"), 64, lambda: None)
    assert await watched.look() == "the disk of /nowhere cannot be looked at: No such file or directory"
    monkeypatch.setattr(os, "statvfs", lambda path: _Statvfs(os.ST_RDONLY))
    assert await watched.look() == "the disk of /nowhere is read-only"


async def test_a_disk_that_hangs_is_a_fault_and_is_asked_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = [], threading.Event()

    def hang(path: Path) -> Room:
        asked.append(path)
        assert go_on.wait(10)
        return Room(100 * MIB, 200 * MIB, 50_000, 100_000)

    monkeypatch.setattr(room, "measure_room", hang)
    monkeypatch.setattr(room, "LOOK_TIMEOUT_S", 0.05)
    watched = DiskRoom(Path("/"), 64, lambda: None)
    try:
        assert await asyncio.gather(watched.look(), watched.look()) == ["the disk of / does not answer"] * 2
        assert await watched.look() == "the disk of / does not answer"
        assert len(asked) == 1
        go_on.set()
        async with asyncio.timeout(10):
            while await watched.look():
                await asyncio.sleep(0.01)
    finally:
        go_on.set()
        watched.close()
