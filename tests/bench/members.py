"""Three bare etcd members, started with the flags a coordinator gives its own, and nothing of ours around them."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.cli.dev.layout import HOST
from cloudless.errors import CloudlessError
from etcd.find import find
from etcd.flags import MemberConfig, build_argv
from tests.integration.etcd_fixture import free_ports

_READY_S = 30.0
_POLL_S = 0.02
_END_S = 10.0


class Members:
    """A running bare cluster. `endpoints`: the members' client addresses."""

    def __init__(self, configs: list[MemberConfig]) -> None:
        self._binary = find()
        self._configs = configs
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.endpoints = [config.client_url.removeprefix("http://") for config in configs]

    def start(self, index: int) -> None:
        argv = build_argv(str(self._binary.path), self._binary.version, self._configs[index])
        # Whatever ends us must not leave an etcd behind.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._processes[index] = subprocess.Popen(
            [*guard, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self, index: int) -> None:
        self._processes[index].send_signal(signal.SIGKILL)
        self._processes[index].wait()

    def end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def leader(self) -> int:
        """Return the index of the leader as all members that run name it. Raises RuntimeError if they never agree."""
        deadline_s = time.monotonic() + _READY_S
        while time.monotonic() < deadline_s:
            found = [await self._status(index) for index in range(len(self.endpoints))]
            ids = [own for own, _ in found]
            named = {leader for _, leader in found}
            if len(named) == 1 and named <= set(ids) - {0}:
                return ids.index(named.pop())
            await asyncio.sleep(_POLL_S)
        raise RuntimeError(f"the bare members name no leader after {_READY_S:g} s")

    async def _status(self, index: int) -> tuple[int, int]:
        admin = EtcdAdmin(f"http://{self.endpoints[index]}", read_timeout_s=1.0)
        try:
            status = await admin.status()
            return status.member_id, status.leader_id
        except CloudlessError:
            return 0, 0
        finally:
            admin.close()


@contextmanager
def bare_members(count: int = 3) -> Iterator[Members]:
    """Start `count` members that form a cluster; they and their data are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cloudless-bench-etcd-") as root:
        ports = free_ports(2 * count)
        peers = tuple((f"m{n}", f"http://{HOST}:{ports[n]}") for n in range(count))
        members = Members(
            [
                MemberConfig(
                    name=name, data_dir=str(Path(root) / name), peer_listen_url=url, peer_advertise_url=url,
                    client_url=f"http://{HOST}:{ports[count + n]}", initial_cluster=peers,
                    initial_cluster_state="new", cluster_token=f"bench-{ports[0]}",
                )
                for n, (name, url) in enumerate(peers)
            ]
        )  # fmt: skip
        try:
            for index in range(count):
                members.start(index)
            yield members
        finally:
            members.end()
