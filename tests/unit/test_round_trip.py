"""When an answer of the store counts as overdue."""

from cloudless.coordinator.round_trip import RoundTrip


def test_before_anything_was_measured_the_longest_time_is_given() -> None:
    assert RoundTrip(0.1, 0.4).overdue_s == 0.4


def test_a_steady_store_is_overdue_soon_and_never_before_the_least() -> None:
    trip = RoundTrip(0.1, 0.4)
    for _ in range(50):
        trip.take(0.005)
    assert trip.overdue_s == 0.1


def test_a_store_that_becomes_slow_is_given_more_time_up_to_the_most() -> None:
    trip = RoundTrip(0.1, 0.4)
    for _ in range(50):
        trip.take(0.005)
    trip.take(0.15)
    assert 0.1 < trip.overdue_s < 0.4
    for _ in range(50):
        trip.take(2.0)
    assert trip.overdue_s == 0.4


def test_a_store_that_recovers_is_overdue_soon_again() -> None:
    trip = RoundTrip(0.1, 0.4)
    trip.take(3.0)
    for _ in range(100):
        trip.take(0.005)
    assert trip.overdue_s == 0.1
