"""Settings from the environment: limits are told as they are meant, whatever binary fractions make of them."""

from __future__ import annotations

import pytest

from cloudless.errors import BadSettings
from cloudless.settings import read_coordinator_settings

NAMED = {"CLOUDLESS_NODE_ID": "coordinator-1"}


@pytest.mark.parametrize("period", ["0.1", "0.2", "0.3", "0.7", "1.1", "20"])
def test_a_node_timeout_of_three_heartbeat_periods_is_long_enough(period: str) -> None:
    timeout = f"{3 * float(period):.1f}"
    settings = {"CLOUDLESS_HEARTBEAT_PERIOD": period, "CLOUDLESS_NODE_TIMEOUT": timeout}
    assert read_coordinator_settings({**NAMED, **settings}).node_timeout_s == float(timeout)


def test_a_shorter_node_timeout_is_refused_with_the_least_that_would_do() -> None:
    with pytest.raises(BadSettings, match=r"at least three heartbeat periods \(0\.6 s\)"):
        read_coordinator_settings({**NAMED, "CLOUDLESS_HEARTBEAT_PERIOD": "0.2", "CLOUDLESS_NODE_TIMEOUT": "0.59"})
