"""What is said to a process of simulated agents, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Run `count` agents `<prefix>-<first>`, … in as many zones as said.

    `token`, `doors`, `home`: how they get certificates, and where these are kept; no token: everything is plain.
    """

    count: int
    coordinators: Sequence[str]
    first: int = 0
    prefix: str = "fleet"
    zones: int = 3
    token: str = ""
    doors: Sequence[str] = ()
    home: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """How the agents stand.

    `entered` have a certificate; `primary`, `warm`: how many have such a session; `running` tasks, of `started` ever,
    and of how many tasks the last change is `acknowledged` as stored; `dialled` sessions, `ends` of them by kind;
    `refused` assignments; `round_trip_max_s` of the agents' last heartbeats; `cpu_s` of this process.
    """

    at_s: float
    cpu_s: float
    entered: int
    primary: int
    warm: int
    running: int
    started: int
    acknowledged: int
    dialled: int
    refused: int
    ends: Mapping[str, int] = field(default_factory=dict)
    round_trip_max_s: float = 0.0
