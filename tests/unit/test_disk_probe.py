"""A slow disk is said to be slow, with the profile to set, and never keeps a coordinator away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from cloudless.adapters.host.disk import FsyncTimes
from cloudless.coordinator import disk_probe
from cloudless.coordinator.disk_probe import probe_disk


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("cloudless")  # a simulation in this process may have silenced it
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize(
    ("median_ms", "worst_ms", "profile", "warned"),
    [
        (2.0, 9.0, "default", False),
        (40.0, 60.0, "default", True),  # slower than half a heartbeat
        (40.0, 60.0, "slow-disk", False),
        (5.0, 400.0, "default", True),  # one in a while would cost the leadership
        (15.0, 20.0, "lan", True),
        (300.0, 1500.0, "slow-disk", True),
    ],
)
async def test_it_is_the_profile_that_says_how_slow_is_too_slow(
    monkeypatch: pytest.MonkeyPatch, said: list[str], median_ms: float, worst_ms: float, profile: str, warned: bool
) -> None:
    monkeypatch.setattr(disk_probe, "measure_fsync", lambda _: FsyncTimes(median_ms, worst_ms, 24))
    assert await probe_disk(Path("/"), profile) == FsyncTimes(median_ms, worst_ms, 24)
    assert bool(said) is warned
    assert any("CLOUDLESS_PROFILE=slow-disk" in line for line in said) is (warned and profile != "slow-disk")


async def test_a_disk_that_cannot_be_measured_keeps_nobody_away(tmp_path: Path, said: list[str]) -> None:
    assert await probe_disk(tmp_path / "nowhere", "default") is None
    assert "could not be measured" in said[0]
