"""How much work one client may make, and all together: buckets of questions, refilled in time."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudless.core.identity.pacing import Bucket, take

PLACES_MAX = 1_024


@dataclass(frozen=True, slots=True)
class DnsLimits:
    """Questions a second and at once, of one client's address and of all; connections likewise; times in seconds."""

    client_per_s: float = 200.0
    client_burst: float = 400.0
    all_per_s: float = 1_500.0
    all_burst: float = 1_500.0
    connections_client_max: int = 16
    connections_max: int = 128
    idle_s: float = 10.0
    write_s: float = 5.0
    full_pause_s: float = 0.05
    question_bytes_max: int = 4_096


@dataclass(slots=True)
class Questions:
    """Who asked how much lately. Of too many clients the one longest unheard of is forgotten."""

    limits: DnsLimits
    _clients: dict[str, Bucket] = field(default_factory=dict)
    _all: Bucket | None = None

    def take_one(self, client: str, now_s: float) -> bool:
        """Return whether a question of this client may be answered now."""
        limits = self.limits
        bucket, allowed = take(self._clients.pop(client, None), now_s, limits.client_burst, limits.client_per_s)
        self._clients[client] = bucket
        if len(self._clients) > PLACES_MAX:
            del self._clients[next(iter(self._clients))]
        if not allowed:
            return False
        self._all, allowed = take(self._all, now_s, limits.all_burst, limits.all_per_s)
        return allowed

    def exhausted(self, now_s: float) -> bool:
        """Return whether nobody's question could be answered now."""
        if self._all is None:
            return False
        return self._all.left + max(0.0, now_s - self._all.at_s) * self.limits.all_per_s < 1
