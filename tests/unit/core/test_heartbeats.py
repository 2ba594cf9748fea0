"""How often agents beat in clusters of all sizes."""

from __future__ import annotations

import pytest

from cloudless.core.orchestration.heartbeats import BEATS_PER_S_MAX, heartbeat_period_s, node_timeout_s


@pytest.mark.parametrize(
    ("nodes", "period_s", "timeout_s"), [(0, 1.0, 4.0), (400, 1.0, 4.0), (1_000, 2.5, 7.5), (4_000, 10.0, 30.0)]
)
def test_large_clusters_beat_more_slowly_and_have_more_patience(nodes: int, period_s: float, timeout_s: float) -> None:
    assert heartbeat_period_s(nodes, 1.0) == period_s
    assert node_timeout_s(nodes, 1.0, 4.0) == timeout_s


@pytest.mark.parametrize("nodes", [1, 749, 751, 5_000, 50_000])
@pytest.mark.parametrize("least_s", [0.1, 1.0, 60.0])
def test_a_coordinator_that_has_all_agents_takes_no_more_than_the_bound_and_nobody_flaps(
    nodes: int, least_s: float
) -> None:
    period_s = heartbeat_period_s(nodes, least_s)
    assert period_s == least_s or nodes / period_s <= BEATS_PER_S_MAX + 1e-6
    assert node_timeout_s(nodes, least_s, 3 * least_s) >= 3 * period_s * 0.999
    assert period_s >= least_s


def test_more_than_a_thousand_agents_are_missed_within_ten_seconds_of_silence() -> None:
    assert node_timeout_s(1_300, 1.0, 4.0) <= 10.0
