"""Who leads, and what ails whom, as the coordinators tell it."""

from __future__ import annotations

import re
import time

from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster

ELECTED_S = 10.0


def wait_led(trial: Trial, since_s: float, old_term: int, *via: str) -> float:
    """Wait until a coordinator tells of a term newer than the old one; return how long that took."""

    def look() -> float | None:
        told = (seen for seen in list(trial.load.sightings) if seen.term > old_term and seen.coordinator_id in via)
        return next((seen.at_s for seen in told if seen.at_s >= since_s and seen.leader_id), None)

    return trial.cluster.until(look, "a leader of a newer term", ELECTED_S) - since_s


def leader_and_term(trial: Trial) -> tuple[str, int]:
    """Return who leads now, and in which term."""
    trial.cluster.leader()
    header = trial.cluster.status().header
    return header.leader_id, header.term


def others_than(cluster: LocalCluster, name: str) -> list[str]:
    return [process.name for process in cluster.coordinators if process.name != name]


def tells_of(cluster: LocalCluster, via: str, victim: str, pattern: str) -> bool:
    """Return whether a coordinator names this problem of another, or of itself."""
    return any(re.match(f"{victim} {pattern}", problem) for problem in cluster.status(via).problems)


def pass_time(cluster: LocalCluster, seconds: float) -> None:
    """Let a fault last: time is what it consists of."""
    ends_s = time.monotonic() + seconds
    cluster.until(lambda: time.monotonic() > ends_s, "time passes", max(seconds, 0.0) + 5.0)
