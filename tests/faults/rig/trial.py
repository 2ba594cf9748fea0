"""One scenario's run: a cluster with users, a fault, and the proof that every promise held.

    cluster = trial.start(agents=2)
    for _ in trial.rounds():
        trial.load_up()                     # a fault that hits an idle cluster proves nothing
        trial.note("kill the leader")
        …break something, mend it…
        trial.settle(within_s=20)           # converges inside the bound, then all oracles are asked

What a scenario measures goes to `trial.figures`; together with the timeline it becomes a row of the results.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cloudless.cli.dev.report import Ack
from cloudless.cli.methods import GET_DIGEST
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from cloudless.testing.load import BlockingLoad, Entrance, blocking_load
from tests.faults.rig.load import Load
from tests.faults.rig.net import Net
from tests.faults.rig.oracles import ENGINE_FDS, FDS_SPARE, ORACLES, Evidence, head_of
from tests.faults.rig.processes import RUN_VARIABLE, holdings, tasks_running
from tests.faults.rig.record import StoreRecord
from tests.faults.rig.scenario import Need, Scenario
from tests.integration.cluster import COORDINATORS, LocalCluster, Loopback, Place, manifest_of
from tests.integration.trusted import Plain, Trusted

STEADY = "steady"
ACKS_MIN = 30
HISTORY_CLIENTS = 6
HISTORY_MIN = 10
SETTLE_S = 30.0
_LOAD_S = 30.0
_ASK_AGAIN_S = 0.3
_ASK_S = 8.0


@dataclass
class Trial:
    """See the module. `net` is there only for scenarios that need `NETNS`."""

    scenario: Scenario
    root: Path
    etcd_binary: Path
    rounds_asked: int = 0
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    seed: int = field(default_factory=lambda: random.randrange(2**32))
    figures: dict[str, Any] = field(default_factory=dict)
    timeline: list[tuple[float, str]] = field(default_factory=list)
    rounds_done: int = 0
    _began_s: float = field(default_factory=time.monotonic)
    _settled: int = 0
    _closing: list[Callable[[], None]] = field(default_factory=list)
    _histories: ExitStack = field(default_factory=ExitStack)
    net: Net = field(init=False)
    history: BlockingLoad = field(init=False)
    cluster: LocalCluster = field(init=False)
    load: Load = field(init=False)
    evidence: Evidence = field(init=False)

    # --- the stage ---

    def start(
        self,
        *,
        coordinators: tuple[str, ...] = COORDINATORS,
        agents: int = 2,
        tasks: int = 4,
        place: Place | None = None,
        trust: Plain | None = None,
        prepare: Callable[[LocalCluster], None] | None = None,
    ) -> LocalCluster:
        """Start a cluster with a steady workload and load on it; `prepare` may change settings before.

        `trust`: another than mTLS as users run it.
        """
        self.cluster = self.build(coordinators, agents, place, trust)
        if prepare:
            prepare(self.cluster)
        self.cluster.start(*self.cluster.processes)
        self.cluster.wait_ready()
        self.note("cluster ready")
        self._run_steady(tasks)
        self._put_load_on()
        return self.cluster

    def build(
        self,
        coordinators: tuple[str, ...] = COORDINATORS,
        agents: int = 2,
        place: Place | None = None,
        trust: Plain | None = None,
    ) -> LocalCluster:
        """Declare a cluster at a place, or where the scenario's needs say, without starting anything."""
        if Need.NETNS in self.scenario.needs:
            self.net = Net()
            self._closing.append(self.net.close)
            place = place or self.net
        cluster = LocalCluster(self.root, self.etcd_binary, place or Loopback(), trust or Trusted(self.root))
        self._closing.append(cluster.close)
        cluster.add_coordinators(coordinators)
        cluster.found_together()
        for number in range(agents):
            cluster.add_agent(f"agent-{number + 1}", zone=f"zone-{number}")
        return cluster

    def _run_steady(self, tasks: int) -> None:
        secret = uuid.uuid4().hex
        env = {RUN_VARIABLE: self.run_id, "APP_PASSWORD": secret}
        if tasks:
            # Long before a partition ends nobody may think that its nodes are gone for good.
            self.cluster.apply(manifest_of(STEADY, replicas=tasks, env=env, lostAfter="60m"))
        running = self.cluster.until(lambda: self._steady_tasks(tasks), f"{tasks} steady tasks run")
        revision = self.cluster.call(GET_DIGEST, GetDigestRequest()).revision
        self.evidence = Evidence(
            self.cluster,
            load=self._new_load(),
            record=StoreRecord(revision + 1),
            run_id=self.run_id,
            secret=secret,
            tasks_before=running["tasks"],
            held_before={},
            heads_before={agent.name: head_of(self.cluster, agent.name) for agent in self.cluster.agents},
            fds_spare=FDS_SPARE + (ENGINE_FDS if Need.DOCKER in self.scenario.needs else 0),
        )

    def _new_load(self) -> Load:
        addresses = {process.name: process.address() for process in self.cluster.coordinators}
        return Load(addresses, self.cluster.dialler)

    def _steady_tasks(self, count: int) -> dict[str, Any] | None:
        told = {task.desired.id for task in self.cluster.tasks(STEADY) if task.state == "RUNNING"}
        seen = {task: running[0] for task, running in tasks_running(self.run_id).items() if task in told}
        return {"tasks": seen} if len(told) == len(seen) == count else None

    def _put_load_on(self) -> None:
        self.load = self.evidence.load
        self.load.start()
        self._closing.append(self.load.close)
        self._begin_history()
        self._closing.append(self._histories.close)

    def _begin_history(self) -> None:
        """Begin to record a load whose every answer is judged when the cluster is whole again."""
        etcds = [process.address("etcd") for process in self.cluster.coordinators]
        entrance = Entrance(self.cluster.dialler, self.cluster.store_at)
        recorded = blocking_load(self.cluster.api_addresses(), etcds, entrance=entrance, clients=HISTORY_CLIENTS)
        self.history = self._histories.enter_context(recorded)

    def load_off(self) -> list[Ack]:
        """End the load of a cluster that is gone; return what was acknowledged."""
        self.load.close()
        return list(self.load.acks)

    def load_anew(self) -> None:
        """Put a new load on a cluster that was rebuilt: its store's history began anew, tasks and agents did not."""
        revision = self.cluster.call(GET_DIGEST, GetDigestRequest()).revision
        self.evidence.load = self._new_load()
        self.evidence.record = StoreRecord(revision + 1)
        self.evidence.held_before = {}
        self._put_load_on()

    def end_history(self) -> None:
        """Judge the recorded load and end it, while there is a store to judge it by."""
        report = self.history.check()
        self._histories.close()
        assert not report.findings(), "\n".join(report.findings())

    def renew_history(self) -> None:
        """Judge the recorded load now and begin another, at the addresses that the cluster has by now."""
        found = self._judge_history()
        assert not found, "\n".join(found)

    def _judge_history(self) -> list[str]:
        """End the recorded load, return what its history proves wrong, and begin another."""
        report = self.history.check()
        self._histories.close()
        self.figure("reads", report.counts.reads)
        self._begin_history()
        return [f"history of seed {report.seed}: {text}" for text in report.findings()]

    # --- the play ---

    def rounds(self) -> Iterator[int]:
        """Yield as often as asked for; a round in which nothing was settled fails."""
        for number in range(1, (self.rounds_asked or self.scenario.rounds) + 1):
            settled = self._settled
            yield number
            assert self._settled > settled, "a round without oracles proves nothing"
            self.rounds_done = number

    def load_up(self, acks: int = ACKS_MIN) -> None:
        """Wait for so many further acknowledged writes, and a read at every coordinator."""
        history = self.history.counts
        wanted, reads = len(self.load.acks) + acks, self.load.reads + len(self.cluster.coordinators)
        self.cluster.until(
            lambda: len(self.load.acks) >= wanted and self.load.reads >= reads,
            f"{acks} writes before the fault",
            _LOAD_S,
        )
        self.history.require(acks_min=HISTORY_MIN, reads_min=HISTORY_MIN, timeout_s=_LOAD_S, since=history)
        if not self.evidence.held_before:
            self.evidence.held_before = holdings(self.cluster)

    def note(self, what: str) -> float:
        """Put a line into the timeline; return the moment (monotonic)."""
        now_s = time.monotonic()
        self.timeline.append((round(now_s - self._began_s, 2), what))
        return now_s

    def figure(self, name: str, value: float) -> None:
        """Keep a measured figure; of several rounds the largest stays."""
        self.figures[name] = max(round(value, 2), self.figures.get(name, 0.0))

    def settle(self, within_s: float = SETTLE_S, *, replaced: frozenset[str] = frozenset()) -> None:
        """Converge within the bound (O10), then hold every other promise. `replaced`: tasks that may be new ones."""
        began_s = self.note("all faults mended")
        self.evidence.replaced_may_be |= replaced
        self._wait_whole(within_s)
        converged_s = time.monotonic() - began_s
        self.load_up()
        self.figure("converged_s", converged_s)
        self.note("whole again")
        assert converged_s <= within_s, f"converged after {converged_s:.1f} s, more than {within_s} s"
        found = self._ask_oracles()
        assert not found, "\n".join(found)
        self._settled += 1

    def read_record(self) -> int:
        """Read the store's record up to now; return the newest revision."""
        open_store = partial(self.cluster.store, self.cluster.coordinators[0].name)
        return self.cluster.until(lambda: self.evidence.record.read(open_store), "the store's record is read")

    def closing(self, close: Callable[[], None]) -> None:
        """Have `close` called at the end, before what was started earlier ends."""
        self._closing.append(close)

    def _wait_whole(self, within_s: float) -> None:
        self.cluster.wait_formed(within_s)
        own = {process.name for process in self.cluster.agents}
        self.cluster.until(lambda: self._ready_nodes() >= own, "every node READY", within_s)

    def _ready_nodes(self) -> set[str]:
        return {node for node, phase in self.cluster.phases().items() if phase == "READY"}

    def _ask_oracles(self) -> list[str]:
        acks = list(self.load.acks)
        self.read_record()
        newest = max(ack.revision for ack in acks)
        assert self.evidence.record.next_revision > newest, f"the record ends before revision {newest}"
        found = self._judge_history()
        for oracle in ORACLES:
            found += [f"{oracle.__name__}: {text}" for text in self._ask(oracle)]
        self.figure("writes", len(acks))
        self.figure("terms", len(self.load.terms_since(0.0)))
        return found

    def _ask(self, oracle: Callable[[Evidence], list[str]]) -> list[str]:
        """Ask again for a while: what is in flight, such as a link being redialled, is no finding; what stays is."""
        until_s = time.monotonic() + _ASK_S
        while True:
            try:
                found = oracle(self.evidence)
            except (CloudlessError, AssertionError, OSError) as error:
                found = [f"{type(error).__name__}: {error}"]
            if not found or time.monotonic() > until_s:
                return found
            time.sleep(_ASK_AGAIN_S)

    # --- the end ---

    def close_last(self, close: Callable[[], None]) -> None:
        """Let something be taken down after the cluster has ended."""
        self._closing.insert(0, close)

    def close(self) -> list[str]:
        """End everything; return what went wrong with that."""
        failures = []
        while self._closing:
            close = self._closing.pop()
            try:
                close()
            except Exception as error:
                failures.append(f"{close.__qualname__}: {error!r}")
        return failures
