"""Timing profiles of the members: how soon a dead raft leader is noticed, and what noticing costs.

    profile     heartbeat/election   leader killed -> next write   idle, 3 members   needs
    lan         20 / 200 ms          0.3 s                         0.12 core         round trips < 10 ms, fast fsync
    default     50 / 500 ms          0.6 s                         0.06 core         round trips < 25 ms
    wan         100 / 1000 ms        1.1 s                         0.05 core         round trips < 50 ms
    slow-disk   100 / 2000 ms        about 2 s                     0.05 core         fsync up to about 1 s

An election timeout that is too short for the network or disk elects leaders without need; one that is long
delays failover, and the shortest lease too: its TTL is at least 1.5 election timeouts, in whole seconds.
All members of a cluster must use the same profile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    heartbeat_ms: int
    election_ms: int

    @property
    def lease_ttl_min_s(self) -> int:
        """Return the shortest lease the server grants: ceil(1.5 x election timeout)."""
        return math.ceil(1.5 * self.election_ms / 1000)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("lan", heartbeat_ms=20, election_ms=200),
        Profile("default", heartbeat_ms=50, election_ms=500),
        Profile("wan", heartbeat_ms=100, election_ms=1000),
        Profile("slow-disk", heartbeat_ms=100, election_ms=2000),
    )
}
