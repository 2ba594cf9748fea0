"""How long the store usually takes to answer, and from when on an answer is overdue.

TCP's estimator (RFC 6298): a smoothed mean and a smoothed deviation, overdue after the mean and four deviations.
A lost request is then noticed after a small multiple of what this store, on this machine, takes, instead of
after a time that suits the slowest.
"""

from __future__ import annotations

_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 4


class RoundTrip:
    """Overdue times between `least_s` and `most_s`; `most_s` until something was measured."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s, self._most_s = least_s, most_s
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    @property
    def overdue_s(self) -> float:
        """Seconds after which a request counts as lost."""
        if self._mean_s is None:
            return self._most_s
        return min(self._most_s, max(self._least_s, self._mean_s + _DEVIATIONS * self._deviation_s))

    def take(self, seconds: float) -> None:
        """Take in the time from a request's first sending to its answer.

        Of a repeated request it is not known which sending was answered. TCP leaves such times out; here they count
        in full, too long rather than too short: else a store that has become slow would be asked twice for ever.
        """
        if self._mean_s is None:
            self._mean_s, self._deviation_s = seconds, seconds / 2
            return
        self._deviation_s += _DEVIATION_GAIN * (abs(seconds - self._mean_s) - self._deviation_s)
        self._mean_s += _MEAN_GAIN * (seconds - self._mean_s)
