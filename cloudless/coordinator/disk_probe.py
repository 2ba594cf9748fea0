"""Ask the disk how long a durable write takes, before etcd has to live with the answer.

A slow disk is no reason to stay away: one member more, even a slow one, is one more to lose. But its cluster must know,
for with heartbeats quicker than the disk it changes leaders for nothing. So it is said, with the profile to set on all.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from loguru import logger

from cloudless.adapters.host.disk import FsyncTimes, measure_fsync
from etcd.profiles import PROFILES

PROBE_TIMEOUT_S = 10.0
SLOW_DISK = "slow-disk"


async def probe_disk(data_dir: Path, profile: str) -> FsyncTimes | None:
    """Return how fast the disk under `data_dir` is, None if it cannot be told; warn if it is too slow for `profile`."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            times = await asyncio.to_thread(measure_fsync, data_dir)
    except TimeoutError:
        logger.warning("the disk under {} took longer than {:g} s for one durable write", data_dir, PROBE_TIMEOUT_S)
        return None
    except OSError as error:
        logger.warning("the disk under {} could not be measured: {}", data_dir, error)
        return None
    heartbeat_ms = PROFILES[profile].heartbeat_ms
    if times.median_ms > heartbeat_ms / 2 or times.worst_ms > PROFILES[profile].election_ms / 2:
        logger.warning(
            "slow disk: a durable write takes {:.0f} ms (worst of {}: {:.0f} ms), the profile {} beats every {} ms{}",
            times.median_ms, times.writes, times.worst_ms, profile, heartbeat_ms,
            "" if profile == SLOW_DISK else f"; set CLOUDLESS_PROFILE={SLOW_DISK} on all coordinators",
        )  # fmt: skip
    return times
