"""A stack that behaves, made of a few values: tests derive ones that misbehave in one way each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.cluster.checks import NODES
from tests.cluster.stack import Container, EtcdView, NodeSeen, Sight, TaskSeen, Unreachable


class GoodStack:
    """Three coordinators and three agents, on a clock of their own that moves when somebody waits."""

    coordinators = ("coordinator-1", "coordinator-2", "coordinator-3")
    agents = ("agent-1", "agent-2", "agent-3")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.deployed = False
        self.gone: set[str] = set()
        self.cut_off: set[str] = set()
        self.leader, self.term = "coordinator-2", 7
        self.stored: dict[str, int] = {}
        self.running: dict[str, TaskSeen] = {}

    # --- time ---

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds

    # --- its life ---

    def clear(self) -> None:
        self.deployed = False

    def deploy(self) -> None:
        self.deployed = True

    def sign_in(self) -> None:
        pass

    def remove(self) -> list[str]:
        self.deployed = False
        return []

    def stop(self, service: str) -> None:
        self.gone.add(service)
        self.elect()

    def kill(self, service: str) -> None:
        self.stop(service)

    def start(self, service: str) -> None:
        self.gone.discard(service)

    def cut(self, service: str) -> None:
        self.cut_off.add(service)
        self.elect()

    def mend(self, service: str) -> None:
        self.cut_off.discard(service)

    def elect(self) -> None:
        away = self.gone | self.cut_off
        if self.leader in away:
            self.leader = next(name for name in self.coordinators if name not in away)
            self.term += 3

    def collect_logs(self, file: Path) -> None:
        file.write_text("coordinator-1  | a line\n")

    # --- what it says ---

    def answers(self, coordinator: str) -> None:
        if coordinator in self.gone | self.cut_off:
            raise Unreachable(f"{coordinator} does not answer")

    def containers(self) -> Mapping[str, Container]:
        if not self.deployed:
            return {}
        running = {name: Container("running", "healthy") for name in (*self.coordinators, *self.agents)}
        ended = dict.fromkeys(self.gone, Container("exited", "", 137))
        return {**running, **ended, "founding": Container("exited"), "enrol": Container("exited")}

    def sight(self, coordinator: str) -> Sight:
        self.answers(coordinator)
        return Sight(coordinator, "one", self.leader, self.term)

    def voters(self, coordinator: str) -> frozenset[str]:
        self.answers(coordinator)
        return frozenset(self.coordinators)

    def etcd_view(self, coordinator: str) -> EtcdView:
        self.answers(coordinator)
        return EtcdView("abc", frozenset(self.coordinators))

    def leads(self, coordinator: str, *, inside: bool = False) -> bool:
        """What its metric says."""
        return coordinator == self.leader

    def metrics(self, coordinator: str, *, inside: bool = False) -> Mapping[str, float]:
        if not inside:
            self.answers(coordinator)
        leads = float(self.leads(coordinator, inside=inside))
        raft_state = 2.0 * (coordinator == self.coordinators[0])
        return {"is_leader": leads, "raft_state": raft_state, "raft_applied_index": 9.0, "raft_commit_index": 9.0}

    def digests_differ(self) -> str:
        return ""

    def write(self, coordinator: str, name: str, number: int) -> None:
        self.answers(coordinator)
        self.stored[name] = number

    def read(self, coordinator: str) -> Mapping[str, int]:
        self.answers(coordinator)
        return self.stored

    def run_tasks(self, coordinator: str, replicas: int) -> None:
        self.running = {f"t-{n}": TaskSeen(self.agents[n], 1, 0, 100 + n, 5_000) for n in range(replicas)}

    def tasks(self, coordinator: str) -> Mapping[str, TaskSeen]:
        self.answers(coordinator)
        return self.running

    def nodes(self, coordinator: str) -> Mapping[str, NodeSeen]:
        self.answers(coordinator)
        return dict(NODES)

    def has_session(self, agent: str) -> bool:
        return True

    def restart_task(self) -> None:
        """Let one task be restarted."""
        first = min(self.running)
        self.running = {**self.running, first: replace(self.running[first], attempt=2, restarts=1, pid=999)}
