"""What marks a test as the proof of a promise, and what it needs of the machine.

A scenario is an ordinary test that takes a `trial`. It is left out of the default run unless `quick`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import docker_engine
from tests.faults.catalogue import BY_NUMBER
from tests.faults.rig import sandbox

T = TypeVar("T", bound=Callable[..., Any])

BUDGET_S = 150


class Need(Enum):
    """What not every machine has; `find_lack` says in words what is missing here."""

    ROOT = "root"
    NETNS = "netns"
    LOOP = "loop"
    CGROUP = "cgroup"
    DOCKER = "docker"


def find_lack(need: Need) -> str:
    """Return why `need` is not met here, "" if it is."""
    match need:
        case Need.ROOT if os.geteuid() != 0:
            return "needs root"
        case Need.NETNS if not sandbox.is_inside():
            return "needs network namespaces: run it by scripts/faults"
        case Need.NETNS if shutil.which("nft") is None:
            return "needs nft (of the package nftables)"
        case Need.LOOP if not Path("/dev/loop-control").exists():
            return "needs loop devices"
        case Need.CGROUP if not os.access("/sys/fs/cgroup", os.W_OK):
            return "needs a writable cgroup file system"
        case Need.DOCKER:
            return docker_engine.find_lack()
    return ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a test proves. `rounds`: how often it breaks and heals one cluster, unless told otherwise."""

    numbers: tuple[int, ...]
    needs: tuple[Need, ...] = ()
    rounds: int = 1
    quick: bool = False
    budget_s: float = BUDGET_S

    def budget_for(self, rounds: int) -> float:
        """Return after how long a run of so many rounds (0: its own number) hangs."""
        return self.budget_s * max(1.0, rounds / self.rounds)

    def find_lack(self) -> str:
        return next((lack for need in self.needs if (lack := find_lack(need))), "")


def scenario(
    *numbers: int, needs: tuple[Need, ...] = (), rounds: int = 1, quick: bool = False, budget_s: int = BUDGET_S
) -> Callable[[T], T]:
    """Mark a test as the proof of these faults' promises. `budget_s` ends it when it hangs."""
    waiting = [number for number in numbers if BY_NUMBER[number].waiting_for]
    assert not waiting, f"{waiting} wait for a feature, says the catalogue"
    found = Scenario(numbers, needs, rounds, quick, budget_s)

    def mark(test: T) -> T:
        marked = pytest.mark.scenario(found)(pytest.mark.integration(test))
        return marked if quick else pytest.mark.fault(marked)

    return mark


def scenario_of(item: pytest.Item) -> Scenario | None:
    marker = item.get_closest_marker("scenario")
    return marker.args[0] if marker else None
