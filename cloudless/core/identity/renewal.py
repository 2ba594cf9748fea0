"""When a certificate is due: at half of its life, spread a little, then again and again until it works.

Half leaves as much time to notice and mend a failure as a certificate was good for untouched. The spread is
taken from the owner's name, so that a thousand agents that enrolled in one minute do not renew in one minute,
and does not change between restarts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

HALF = 0.5
SPREAD = 0.1
"""Up to this part of the life earlier than half."""
RETRY_MIN_MS = 1_000
RETRY_MAX_MS = 300_000
RETRY_EXPIRED_MAX_MS = 30_000
RETRY_PARTS = 20
"""A renewal that failed is tried again after this part of the time left; once it is over, of the whole life."""
BACKDATED_MS = 300_000
"""How far back a certificate is dated at most, for clocks that are behind; a tenth of its life if that is less."""
MARGIN_MS = 600_000
MARGIN_LIFETIMES = 0.1
"""How much longer than their lifetime certificates of a replaced CA are trusted: at most this part of it."""
STALE_LIFETIMES = 0.25
"""The part of a lifetime that is given however old the signer's state is: without a quorum life goes on."""


class Freshness(Enum):
    FRESH = "fresh"
    DUE = "due"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is good, in ms since 1970."""

    not_before_ms: int
    not_after_ms: int


def build_validity(now_ms: int, lifetime_s: float) -> Validity:
    """Return the validity of a certificate issued now."""
    lifetime_ms = int(lifetime_s * 1000)
    return Validity(now_ms - min(BACKDATED_MS, lifetime_ms // 10), now_ms + lifetime_ms)


def find_lifetime_s(lifetime_s: int, stale_s: float) -> float:
    """Return how long a certificate may live that is signed by somebody whose state is `stale_s` old.

    Its CA may have been replaced just after that. So that the certificate does not outlive the trust in that CA, it
    ends when one would that was signed then, and the margin later.
    """
    return max(STALE_LIFETIMES * lifetime_s, lifetime_s - max(0.0, stale_s - margin_ms(lifetime_s) / 1000))


def margin_ms(lifetime_s: int) -> int:
    """Return how much longer than `lifetime_s` a CA is trusted after it was replaced."""
    return int(min(MARGIN_MS, MARGIN_LIFETIMES * lifetime_s * 1000))


def renew_at_ms(validity: Validity, name: str) -> int:
    """Return when the certificate of `name` should be renewed."""
    life_ms = validity.not_after_ms - validity.not_before_ms
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
    return validity.not_before_ms + int(life_ms * (HALF - SPREAD * share))


def judge_freshness(validity: Validity, name: str, now_ms: int) -> Freshness:
    """Return whether a certificate is still good, and whether to renew it."""
    if now_ms >= validity.not_after_ms:
        return Freshness.EXPIRED
    return Freshness.DUE if now_ms >= renew_at_ms(validity, name) else Freshness.FRESH


def retry_after_ms(validity: Validity, now_ms: int) -> int:
    """Return how long to wait after a renewal that failed: longer while there is much time left."""
    left_ms = validity.not_after_ms - now_ms
    if left_ms <= 0:
        life_ms = validity.not_after_ms - validity.not_before_ms
        return min(RETRY_EXPIRED_MAX_MS, max(RETRY_MIN_MS, life_ms // RETRY_PARTS))
    return min(RETRY_MAX_MS, max(RETRY_MIN_MS, left_ms // RETRY_PARTS))


def days_left(validity: Validity, now_ms: int) -> float:
    """Return the days until it runs out; negative once it has."""
    return (validity.not_after_ms - now_ms) / 86_400_000
