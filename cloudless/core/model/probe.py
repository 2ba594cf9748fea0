"""Probes: how an agent finds out whether a running task works.

A *liveness* probe that fails ends the attempt, and the restart policy decides what follows. A *readiness*
probe that fails leaves the task running, but not available: a rollout does not count on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.model.evolving import Evolving


class ProbeKind(Enum):
    """What is tried.

    EXEC  `command` is run in the task's own surroundings; exit code 0 is success
    HTTP  GET `path` at `port`; a status from 200 to 399 is success
    TCP   a connection to `port`; that it opens is success
    """

    EXEC = "exec"
    HTTP = "http"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Evolving):
    """One question, asked of a running task again and again.

    `port` is the name of a declared port, asked on the node's side of it. The first try comes `initial_delay_s`
    after the attempt started, the next ones `period_s` apart; one that takes longer than `timeout_s` failed.
    After `failure_threshold` failures in a row the probe has failed, after `success_threshold` successes in a
    row it has passed (again).
    """

    kind: ProbeKind
    command: tuple[str, ...] = ()
    port: str = ""
    path: str = ""
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
