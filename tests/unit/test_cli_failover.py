"""Which coordinator is asked next, and when a call is given up: decided without a network or a clock."""

from __future__ import annotations

import pytest

from cloudless.cli.failover import Failover, Failure, Limits
from cloudless.errors import CommitUncertain, NoQuorum, NotFound, StoreTimeout, Unavailable

ADDRESSES = ("a:1", "b:2", "c:3")
REFUSED = Failure(Unavailable("refused"), again=True, answered=False, uncertain=False)
SILENT = Failure(StoreTimeout("silent"), again=True, answered=False, uncertain=True)
NO_QUORUM = Failure(NoQuorum("no quorum"), again=True, answered=True, uncertain=False)


def attempts(repeatable: bool = True, first: int = 0) -> Failover:
    return Failover(ADDRESSES, Limits(timeout_s=10.0, attempt_s=2.0, repeatable=repeatable), now_s=100.0, first=first)


def test_every_address_is_asked_at_once_and_then_a_pause_grows() -> None:
    failover, asked, pauses = attempts(first=1), [], []
    for _ in range(6):
        asked.append(failover.address)
        pauses.append(failover.pause_after(REFUSED, 100.1))
    assert asked == ["b:2", "c:3", "a:1"] * 2
    assert pauses == [0, 0, 0.05, 0, 0, 0.1]


def test_a_refusal_for_good_is_raised_at_once() -> None:
    refused = Failure(NotFound("no such node"), again=False, answered=True, uncertain=False)
    with pytest.raises(NotFound):
        attempts().pause_after(refused, 100.0)


def test_knocking_at_closed_doors_ends_early_and_names_them() -> None:
    failover = attempts()
    failover.pause_after(REFUSED, 100.1)
    failover.pause_after(REFUSED, 100.2)
    with pytest.raises(Unavailable, match="no coordinator answers at a:1, b:2, c:3") as caught:
        failover.pause_after(REFUSED, 101.6)
    assert "CLOUDLESS_COORDINATORS" in caught.value.hint


def test_a_host_that_is_gone_keeps_nobody_from_asking_the_next_one() -> None:
    """Its address answers nothing at all, so to find out takes longer than to be refused."""
    failover = attempts()
    failover.pause_after(REFUSED, 102.0)
    assert failover.address == "b:2"
    failover.pause_after(REFUSED, 104.0)
    assert failover.address == "c:3"
    with pytest.raises(Unavailable, match="no coordinator answers"):
        failover.pause_after(REFUSED, 104.1)


def test_a_cluster_that_answers_is_asked_until_the_deadline() -> None:
    failover = attempts()
    failover.pause_after(NO_QUORUM, 105.0)
    failover.pause_after(REFUSED, 109.0)
    with pytest.raises(NoQuorum):
        failover.pause_after(REFUSED, 110.0)


def test_an_unrepeatable_call_that_may_have_happened_is_not_repeated() -> None:
    with pytest.raises(CommitUncertain):
        attempts(repeatable=False).pause_after(SILENT, 100.5)


def test_an_attempt_is_shorter_than_the_whole_and_never_longer_than_what_is_left() -> None:
    assert attempts().attempt_timeout_s(100.0) == 2.0
    assert attempts().attempt_timeout_s(109.5) == pytest.approx(0.5)
    assert attempts(repeatable=False).attempt_timeout_s(101.0) == pytest.approx(9.0)
