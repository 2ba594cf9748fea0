"""What happens when the network between hosts fails, in whole, in part, in one direction, or now and then."""

from __future__ import annotations

from tests.faults.rig.scenario import Need, scenario
from tests.faults.rig.trial import Trial

ELECTED_S = 10.0


@scenario(11, needs=(Need.NETNS,))
def test_an_isolated_leader_stops_leading_and_the_majority_elects(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        old, term = cluster.leader(), cluster.status().header.term
        others = list(cluster.followers())
        trial.load_up()
        began_s = trial.note(f"isolate {old}")
        trial.net.isolate(old)
        elected_s = wait_led(trial, began_s, term, *others)
        trial.figure("new_leader_s", elected_s)
        trial.load_up()
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        trial.net.heal()
        trial.settle()


def wait_led(trial: Trial, since_s: float, old_term: int, *via: str) -> float:
    """Wait until a coordinator tells of a term newer than the old one; return how long that took."""

    def look() -> float | None:
        told = (seen for seen in list(trial.load.sightings) if seen.term > old_term and seen.coordinator_id in via)
        return next((seen.at_s for seen in told if seen.at_s >= since_s and seen.leader_id), None)

    return trial.cluster.until(look, "a leader of a newer term", ELECTED_S) - since_s
