"""How much room the store has, by this coordinator's own member: sampled, foretold, and the gate for users' writes."""

from __future__ import annotations

from collections import deque

from cloudless.coordinator.membership import Members
from cloudless.core.hygiene import Sample, find_shortage, forecast_hours
from cloudless.core.hygiene.planner import COMPACT_AT, URGENT_AT
from cloudless.core.hygiene.room import CURE, USERS_SHARE
from cloudless.errors import NoSpace
from cloudless.ports import Clock

SAMPLE_PERIOD_S = 60.0
SAMPLES_MAX = 180


class SpaceWatch:
    """What this coordinator's own member uses. `quota_bytes` is that of its settings."""

    def __init__(self, members: Members, clock: Clock, quota_bytes: int) -> None:
        self._members, self._clock, self.quota_bytes = members, clock, quota_bytes
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self.hours_left: float | None = None

    @property
    def nospace(self) -> bool:
        status = self._members.status
        return status is not None and any(alarm.kind == "NOSPACE" for alarm in status.alarms)

    @property
    def in_use_bytes(self) -> int:
        return self._members.status.db_in_use_bytes if self._members.status else 0

    @property
    def pressed(self) -> bool:
        """Whether room is so short that it must be looked after often."""
        size_bytes = self._members.status.db_size_bytes if self._members.status else 0
        full = self.in_use_bytes >= COMPACT_AT * self.quota_bytes or size_bytes >= URGENT_AT * self.quota_bytes
        return self.nospace or full

    @property
    def shortage(self) -> str:
        """Why users' writes are refused now, "" if there is room."""
        return find_shortage(self.in_use_bytes, self.quota_bytes, self.nospace)

    async def run(self) -> None:
        """Take a sample now and then, and foretell from them."""
        while True:
            if self._members.status is not None:
                self._samples.append(Sample(self._clock.monotonic_s(), self.in_use_bytes))
                self.hours_left = forecast_hours(tuple(self._samples), int(USERS_SHARE * self.quota_bytes))
            await self._clock.sleep(SAMPLE_PERIOD_S if self._samples else 1.0)

    def require_room(self) -> None:
        """Raise NoSpace if users must not write now."""
        shortage = self.shortage
        if shortage:
            raise NoSpace(f"{shortage}: nothing new is taken, deleting works", hint=CURE)
