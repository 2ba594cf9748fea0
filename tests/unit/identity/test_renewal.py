"""A certificate is due at about half of its life, whatever its length, and each failure leaves time for another try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.identity.renewal import (
    RETRY_EXPIRED_MAX_MS,
    Freshness,
    Validity,
    build_validity,
    days_left,
    find_lifetime_s,
    judge_freshness,
    margin_ms,
    renew_at_ms,
    retry_after_ms,
)
from tests.unit.identity.trust import DAY_MS, NOW_MS

LIFETIMES_S = st.integers(60, 86_400 * 3650)


@given(lifetime_s=LIFETIMES_S, name=st.text(max_size=20))
def test_due_within_the_fifth_before_half_and_after_it_was_issued(lifetime_s: int, name: str) -> None:
    validity = build_validity(NOW_MS, lifetime_s)
    at_ms = renew_at_ms(validity, name)
    life_ms = validity.not_after_ms - validity.not_before_ms
    assert 0.39 * life_ms <= at_ms - validity.not_before_ms <= 0.5 * life_ms
    assert at_ms > NOW_MS
    assert validity.not_after_ms - at_ms >= 0.5 * life_ms - 1


@given(lifetime_s=LIFETIMES_S)
def test_freshness_goes_forward(lifetime_s: int) -> None:
    validity = build_validity(NOW_MS, lifetime_s)
    at_ms = renew_at_ms(validity, "a1")
    assert judge_freshness(validity, "a1", NOW_MS) is Freshness.FRESH
    assert judge_freshness(validity, "a1", at_ms - 1) is Freshness.FRESH
    assert judge_freshness(validity, "a1", at_ms) is Freshness.DUE
    assert judge_freshness(validity, "a1", validity.not_after_ms - 1) is Freshness.DUE
    assert judge_freshness(validity, "a1", validity.not_after_ms) is Freshness.EXPIRED


@given(lifetime_s=LIFETIMES_S)
def test_a_failing_renewal_is_tried_many_times_before_the_end(lifetime_s: int) -> None:
    validity = build_validity(NOW_MS, lifetime_s)
    at_ms, tries = renew_at_ms(validity, "a1"), 0
    while at_ms < validity.not_after_ms and tries < 30:
        at_ms += retry_after_ms(validity, at_ms)
        tries += 1
    assert tries >= 15


@pytest.mark.parametrize(("lifetime_s", "backdated_ms"), [(60, 6_000), (3_600, 300_000), (86_400, 300_000)])
def test_certificates_are_dated_back_for_clocks_that_are_behind(lifetime_s: int, backdated_ms: int) -> None:
    assert build_validity(NOW_MS, lifetime_s) == Validity(NOW_MS - backdated_ms, NOW_MS + lifetime_s * 1000)


def test_a_thousand_nodes_do_not_renew_at_once() -> None:
    validity = build_validity(NOW_MS, 86_400)
    times = sorted(renew_at_ms(validity, f"agent-{n}") for n in range(1000))
    assert times[-1] - times[0] > 0.09 * 86_400_000


def test_after_the_end_it_is_tried_for_ever_at_a_pace_that_fits_the_lifetime() -> None:
    assert retry_after_ms(Validity(0, NOW_MS), NOW_MS + DAY_MS) == RETRY_EXPIRED_MAX_MS
    assert retry_after_ms(build_validity(NOW_MS, 60), NOW_MS + DAY_MS) == 3_300
    assert days_left(Validity(0, NOW_MS), NOW_MS + DAY_MS) == -1


@pytest.mark.parametrize(
    ("stale_s", "lives_s"),
    [(0.0, 86_400), (600.0, 86_400), (601.0, 86_399), (36_600.0, 50_400), (80_000.0, 21_600), (float("inf"), 21_600)],
)
def test_who_signs_from_an_old_state_signs_for_less(stale_s: float, lives_s: float) -> None:
    assert find_lifetime_s(86_400, stale_s) == lives_s


@given(lifetime_s=LIFETIMES_S)
def test_no_certificate_outlives_the_trust_in_a_ca_that_was_replaced_just_after_the_signer_last_heard(
    lifetime_s: int,
) -> None:
    trusted_s = lifetime_s + margin_ms(lifetime_s) / 1000
    for part in (0.0, 0.1, 0.3, 0.5, 0.7):
        stale_s = part * lifetime_s
        assert stale_s + find_lifetime_s(lifetime_s, stale_s) <= trusted_s + 0.002
