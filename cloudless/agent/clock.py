"""The agent's two clocks: seconds since boot decide, wall milliseconds are shown."""

from __future__ import annotations

from cloudless.core.localtask import Moment
from cloudless.ports import Clock


def read_clock(clock: Clock) -> Moment:
    """Return now on both clocks; the seconds never jump and count while the machine sleeps."""
    return Moment(clock.monotonic_s(), clock.wall_ms())
