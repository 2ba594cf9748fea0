"""The stage for simulated agents: three coordinators of real processes over mTLS, and the agents in one process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cloudless.testing.fleet.news import News, Order
from etcd.find import Search, find
from tests.architecture.tree import ROOT
from tests.bench.children import PROFILED
from tests.integration.cluster import LocalCluster, Loopback
from tests.integration.trusted import Trusted

PREFIX = "fleet"
_END_S = 30.0
_LOOK_S = 0.1


class Fleet:
    """This end of the agents' process. `now` is its newest word."""

    def __init__(self, order: Order) -> None:
        self.now: News | None = None
        self._child = subprocess.Popen(
            [sys.executable, "-m", "cloudless.testing.fleet"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._child.stdin
        self._child.stdin.write(json.dumps(asdict(order)) + "\n")
        self._child.stdin.flush()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def until(self, look: Callable[[News], bool], what: str, timeout_s: float) -> News:
        """Return the first news for which `look` is true. Raises RuntimeError after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while (news := self.now) is None or not look(news):
            if self._child.poll() is not None:
                raise RuntimeError("the simulated agents have ended; their errors are above")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{what}: not within {timeout_s:g} s; last: {news}")
            time.sleep(_LOOK_S)
        return news

    def close(self) -> None:
        assert self._child.stdin
        self._child.stdin.close()
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reading.join(_END_S)

    def _read(self) -> None:
        assert self._child.stdout
        for line in self._child.stdout:
            self.now = News(**json.loads(line))


class _Profiled(Loopback):
    """All coordinators ready to be profiled: which one will lead is not known before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def command_at(self, name: str, argv: list[str]) -> list[str]:
        program, _, module, *words = argv
        return [program, str(PROFILED), str(self._folder / f"{name}.prof"), "later", module, *words]


@contextmanager
def trusted_cluster(profile_to: Path | None = None) -> Iterator[LocalCluster]:
    """Run three coordinators until the block is left; then everything of them is gone."""
    with tempfile.TemporaryDirectory(prefix="cloudless-bench-") as root:
        place = _Profiled(profile_to) if profile_to else Loopback()
        cluster = LocalCluster(Path(root), Path(find(Search()).path), place, Trusted(Path(root)))
        try:
            cluster.add_coordinators()
            cluster.found_together()
            for process in cluster.coordinators:
                process.settings["LOG_LEVEL"] = "INFO"
            cluster.start(*cluster.processes)
            cluster.wait_ready()
            cluster.trust.begin(cluster.coordinators)
            yield cluster
            if profile_to:
                cluster.stop(*(process.name for process in cluster.coordinators if process.lives))
        finally:
            cluster.close()


@contextmanager
def fleet_of(cluster: LocalCluster, count: int) -> Iterator[Fleet]:
    """Run `count` agents with certificates of their own until the block is left."""
    invitation = cluster.trust.invitation(f"{PREFIX}-*", count)
    fleet = Fleet(
        Order(
            count=count, coordinators=cluster.api_addresses(), prefix=PREFIX,
            token=invitation["token"], doors=invitation["doors"], home=invitation["home"],
        )
    )  # fmt: skip
    try:
        yield fleet
    finally:
        fleet.close()


def start_profiles(cluster: LocalCluster) -> None:
    """Profile every coordinator from now on; only for a cluster made with `profile_to`."""
    for process in cluster.coordinators:
        cluster.signal(process.name, signal.SIGUSR1)
