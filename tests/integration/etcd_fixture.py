"""Real etcd members for tests: the binary, free ports, directories whose etcd is ended afterwards.

Import the fixtures by name. A directory made by `datadirs` is searched at teardown for an etcd that runs on it, in
whatever way it was started, and that process is killed by its pid.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.pidfile import find_orphan
from etcd.find import Found, Search, find
from etcd.flags import MemberConfig
from etcd.profiles import PROFILES


@pytest.fixture(scope="session")
def binary() -> Found:
    return find(Search())


@pytest.fixture
def datadirs(tmp_path: Path) -> Iterator[Callable[[str], DataDir]]:
    made: list[DataDir] = []

    def make(name: str) -> DataDir:
        made.append(DataDir(tmp_path / name))
        return made[-1]

    yield make
    for datadir in made:
        kill_etcd_on(datadir)


def kill_etcd_on(datadir: DataDir) -> None:
    deadline = time.monotonic() + 10
    while (orphan := find_orphan(datadir.pidfile, str(datadir.etcd_dir))) and time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            os.kill(orphan.pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Return ports that were free just now, all different.

    They lie under the range from which the kernel takes ports for outgoing connections: etcd's own would take them.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


def build_config(datadir: DataDir, name: str = "c1", **changes: Any) -> MemberConfig:
    """Return the settings of a member that forms a cluster of its own, on two free ports."""
    client_port, peer_port = free_ports(2)
    peer_url = f"http://127.0.0.1:{peer_port}"
    settings: dict[str, Any] = {
        "name": name,
        "data_dir": str(datadir.etcd_dir),
        "peer_listen_url": peer_url,
        "peer_advertise_url": peer_url,
        "client_url": f"http://127.0.0.1:{client_port}",
        "initial_cluster": ((name, peer_url),),
        "initial_cluster_state": "new",
        "cluster_token": "test",
        "heartbeat_ms": PROFILES["lan"].heartbeat_ms,
        "election_ms": PROFILES["lan"].election_ms,
    }
    return MemberConfig(**{**settings, **changes})


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        await asyncio.sleep(0.02)
