"""The agent's two clocks: seconds since boot decide, wall milliseconds are shown."""

from __future__ import annotations

import time

from cloudless.core.localtask import Moment


def now() -> Moment:
    """Return now; the seconds never jump and count while the machine sleeps."""
    return Moment(time.clock_gettime(time.CLOCK_BOOTTIME), time.time_ns() // 1_000_000)
