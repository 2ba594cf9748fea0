"""Who leads, as the witness of a trial's load sees it."""

from __future__ import annotations

from tests.faults.rig.trial import Trial

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
