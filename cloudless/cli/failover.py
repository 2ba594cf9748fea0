"""Decide, attempt by attempt, which coordinator to ask next and when to give up. Pure; time is handed in.

::

    attempt fails ──► request refused for good ───────────────► raise it
                 ├──► may have had its effect, not repeatable ─► raise CommitUncertain
                 ├──► deadline reached ─────────────────────────► raise the last word of a coordinator
                 ├──► nobody has answered at all for a while ───► raise Unavailable (is anything running?)
                 └──► otherwise the next address; after each full round a growing pause

A write keeps its request id over all attempts, so that it has one effect however many coordinators heard it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.errors import CloudlessError, CommitUncertain, Unavailable

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt failed.

    `again`: another coordinator, or the same a moment later, may do better. `answered`: a coordinator said so
    itself. `uncertain`: the request may have had its effect.
    """

    error: CloudlessError
    again: bool
    answered: bool
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout_s` bounds all attempts, `attempt_s` one; `unreachable_s` how long to knock at doors nobody opens.

    Each door is knocked at once, however long that takes: a host that is gone keeps one waiting, the next may be there.
    """

    timeout_s: float
    attempt_s: float
    unreachable_s: float = 1.5
    repeatable: bool = True


class Failover:
    """The attempts of one call."""

    def __init__(self, addresses: tuple[str, ...], limits: Limits, now_s: float, first: int = 0) -> None:
        self._addresses = addresses
        self._limits = limits
        self._started_s = now_s
        self._index = first % len(addresses)
        self._tried = 0
        self._answered: CloudlessError | None = None

    @property
    def index(self) -> int:
        """Return the position of the address to ask now."""
        return self._index

    @property
    def address(self) -> str:
        return self._addresses[self._index]

    def attempt_timeout_s(self, now_s: float) -> float:
        """Return how long this attempt may take."""
        left_s = max(0.05, self._started_s + self._limits.timeout_s - now_s)
        return min(self._limits.attempt_s, left_s) if self._limits.repeatable else left_s

    def pause_after(self, failure: Failure, now_s: float) -> float:
        """Move on to the next address and return the seconds to wait before asking it, or raise."""
        if failure.answered:
            self._answered = failure.error
        if not failure.again:
            raise failure.error
        if failure.uncertain and not self._limits.repeatable:
            raise CommitUncertain(failure.error.message, hint="it may have happened: look before you repeat it")
        waited_s = now_s - self._started_s
        knocked_everywhere = self._tried + 1 >= len(self._addresses)
        nobody_there = self._answered is None and not failure.uncertain and knocked_everywhere
        if nobody_there and waited_s >= self._limits.unreachable_s:
            raise self._unreachable(failure.error)
        self._tried += 1
        self._index = (self._index + 1) % len(self._addresses)
        pause_s = self._pause_s()
        if waited_s + pause_s >= self._limits.timeout_s:
            raise self._answered or failure.error
        return pause_s

    def _pause_s(self) -> float:
        rounds, rest = divmod(self._tried, len(self._addresses))
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (rounds - 1)) if rest == 0 else 0.0

    def _unreachable(self, error: CloudlessError) -> Unavailable:
        return Unavailable(
            f"no coordinator answers at {', '.join(self._addresses)}: {error.message}",
            hint="is the cluster running (`cloudless dev up` starts one here)? Name its coordinators "
            "with --coordinator or CLOUDLESS_COORDINATORS",
        )
