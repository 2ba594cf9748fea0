"""What the test of the compose stack sees and does, and the words it uses for what it sees.

`checks` knows only this; `compose.ComposeStack` is the real thing, and tests put stacks with planted faults in its
place. Who is asked and does not answer raises Unreachable: a check that waits goes on waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Unreachable(Exception):
    """Nobody answered, or with an error; the message is what was said."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one coordinator says of its cluster. `leader_id` is "" when it knows of no leader."""

    coordinator_id: str
    cluster_id: str
    leader_id: str
    term: int


@dataclass(frozen=True, slots=True)
class EtcdView:
    """What one coordinator's etcd itself says of its cluster."""

    cluster_id: str
    voters: frozenset[str]
    learners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One node: `capacity` is (millicores, MB of memory, MB of storage, Mbit/s)."""

    phase: str
    zone: str
    type: str
    capacity: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """One task. All but `state` stays the same for as long as it is not restarted."""

    node: str
    attempt: int
    restarts: int
    pid: int
    started_at_ms: int
    state: str = "RUNNING"


@dataclass(frozen=True, slots=True)
class Container:
    """One service's container, as the engine sees it. `health` is "" where none is checked."""

    state: str
    health: str = ""
    exit_code: int = 0
    restarts: int = 0


class Stack(Protocol):
    """The stack under test. Everything raises Unreachable."""

    @property
    def coordinators(self) -> tuple[str, ...]: ...
    @property
    def agents(self) -> tuple[str, ...]: ...

    def clear(self) -> None:
        """Remove whatever an earlier run left, data included."""

    def deploy(self) -> None:
        """Start everything from nothing; return when the engine has started it."""

    def sign_in(self) -> None:
        """Become somebody in the cluster who may write, over the published ports."""

    def containers(self) -> Mapping[str, Container]:
        """Return the services' containers, those that ended included."""

    def sight(self, coordinator: str) -> Sight: ...
    def voters(self, coordinator: str) -> frozenset[str]:
        """Return the members that vote, as `cloudless` names them."""

    def etcd_view(self, coordinator: str) -> EtcdView: ...
    def metrics(self, coordinator: str, *, inside: bool = False) -> Mapping[str, float]:
        """Return its metrics without labels, less the prefix: from its published port, or `inside` its container."""

    def digests_differ(self) -> str:
        """Return how the coordinators' states differ at one revision, "" if they do not."""

    def write(self, coordinator: str, name: str, number: int) -> None:
        """Let an object carry a number, through this coordinator alone."""

    def read(self, coordinator: str) -> Mapping[str, int]:
        """Return all objects written and their numbers, from this coordinator's own memory."""

    def run_tasks(self, coordinator: str, replicas: int) -> None:
        """Have some tasks run, one on each node."""

    def tasks(self, coordinator: str) -> Mapping[str, TaskSeen]: ...
    def nodes(self, coordinator: str) -> Mapping[str, NodeSeen]: ...

    def has_session(self, agent: str) -> bool:
        """Return whether the agent itself says that it follows a coordinator."""

    def stop(self, service: str) -> None: ...
    def kill(self, service: str) -> None: ...
    def start(self, service: str) -> None: ...
    def cut(self, service: str) -> None:
        """Take it off the network without a word."""

    def mend(self, service: str) -> None:
        """Put it back on, at the address it had."""

    def collect_logs(self, file: Path) -> None: ...
    def remove(self) -> list[str]:
        """Remove everything, data included; return what is left all the same."""
