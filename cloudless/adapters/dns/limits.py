"""How much work one client may make, and all together: buckets of questions, refilled in time.

A question that takes long to answer, such as about a workload of thousands of tasks, counts as several.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cloudless.core.identity.pacing import Bucket, take

PLACES_MAX = 1_024


@dataclass(frozen=True, slots=True)
class DnsLimits:
    """Questions a second and at once, of one client's address and of all; connections likewise; times in seconds.

    `question_s` of the processor is what a question may take to count as one: with `all_per_s` it bounds the share of
    the coordinator's loop that names can take.
    """

    client_per_s: float = 200.0
    client_burst: float = 400.0
    all_per_s: float = 600.0
    all_burst: float = 1_000.0
    question_s: float = 0.000_5
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

    def charge(self, client: str, processor_s: float) -> None:
        """Count the last question of `client` by the time it took to answer."""
        more = processor_s / self.limits.question_s - 1.0
        if more <= 0:
            return
        if (bucket := self._clients.get(client)) is not None:
            self._clients[client] = replace(bucket, left=bucket.left - more)
        if self._all is not None:
            self._all = replace(self._all, left=self._all.left - more)

    def exhausted(self, now_s: float) -> bool:
        """Return whether nobody's question could be answered now."""
        if self._all is None:
            return False
        return self._all.left + max(0.0, now_s - self._all.at_s) * self.limits.all_per_s < 1
