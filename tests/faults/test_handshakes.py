"""What happens when a crowd stands at the doors: connections that begin a TLS handshake and never end it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from tests.architecture.tree import ROOT
from tests.faults.rig.leading import pass_time
from tests.faults.rig.processes import holdings
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster

EACH = 1_000
USES = ("api", "enrol", "http")
GATHERED_S = 60.0
STANDS_S = 25.0
GONE_S = 30.0
GAP_MAX_S = 3.0
FDS_SPARE = 64
GROWTH_MAX_MB = 250.0
END_S = 20.0


@scenario(52, budget_s=240)
def test_a_thousand_handshakes_at_every_door_disturb_no_agent_and_are_thrown_out(trial: Trial) -> None:
    """Half of them send nothing, half a byte a second; who is thrown out comes again at once."""
    cluster = trial.start(agents=3)
    for _ in trial.rounds():
        trial.load_up()
        ends, terms = ends_of_sessions(cluster), trial.load.terms_since(0.0)
        before_mb = {one.name: cluster.rss_mb(one.name) for one in cluster.coordinators}
        fds = {name: held.fds for name, held in holdings(cluster).items()}
        doors = [process.address(use) for process in cluster.coordinators for use in USES]
        began_s = trial.note(f"{EACH} at each of {len(doors)} doors")
        crowd = Crowd(doors)
        trial.closing(crowd.close)
        cluster.until(lambda: crowd.came >= EACH * len(doors), "they have come", GATHERED_S)
        trial.figure("standing", crowd.most)
        pass_time(cluster, STANDS_S)
        assert crowd.most > EACH * len(doors) / 2, "gRPC's doors hold them until their time is over"
        assert crowd.thrown_out > EACH * len(doors), "not all are thrown out"
        trial.figure("thrown_out", crowd.thrown_out)
        growth = {one.name: cluster.rss_mb(one.name) - before_mb[one.name] for one in cluster.coordinators}
        trial.figure("growth_mb", max(growth.values()))
        gap_s = trial.load.longest_gap_s(began_s)
        trial.figure("gap_s", gap_s)
        crowd.close()
        assert gap_s < GAP_MAX_S, f"no write for {gap_s:.1f} s"
        assert ends_of_sessions(cluster) == ends, "an agent lost a session"
        assert set(cluster.phases().values()) == {"READY"}
        assert trial.load.terms_since(0.0) == terms, "an election"
        assert max(growth.values()) < GROWTH_MAX_MB, growth
        trial.note("they go away")
        cluster.until(lambda: all_released(cluster, fds), "the descriptors are given back", GONE_S)
        trial.settle()


class Crowd:
    """The test's end of a crowd, which stands in a process of its own; see `rig.crowd`."""

    def __init__(self, doors: list[str]) -> None:
        self.most = self.came = self.thrown_out = 0
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.rig.crowd", str(EACH), *doors],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def close(self) -> None:
        assert self._child.stdin
        self._child.stdin.close()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reading.join(END_S)

    def _read(self) -> None:
        assert self._child.stdout
        for line in self._child.stdout:
            told: dict[str, Any] = json.loads(line)
            self.most = max(self.most, told["standing"])
            self.came, self.thrown_out = told["came"], told["thrown_out"]


def ends_of_sessions(cluster: LocalCluster) -> dict[str, list[str]]:
    """Return what each agent counts of ended sessions, by cause."""
    return {
        agent.name: [
            line
            for line in cluster.metrics_text(agent.name).splitlines()
            if line.startswith("cloudless_agent_session_ends")
        ]
        for agent in cluster.agents
    }


def all_released(cluster: LocalCluster, before: dict[str, int]) -> bool:
    return all(held.fds <= before[name] + FDS_SPARE for name, held in holdings(cluster).items())
