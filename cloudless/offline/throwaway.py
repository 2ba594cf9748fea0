"""Run an etcd for a moment on a directory nobody else uses: to see what is in it, or to change it once.

Its clients' socket is a file in a directory of mode 0700, so nobody else on the machine can ask it. Peers it has none;
the port for them, which etcd insists on, is on loopback and chosen by the kernel. It is ended when the block is left,
however that happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.member.logfile import last_words
from cloudless.adapters.member.process import EtcdProcess, build_environment
from cloudless.errors import BackupError, Unavailable
from etcd.find import Found
from etcd.flags import MemberConfig, build_argv

_READY_TIMEOUT_S = 120.0
_POLL_S = 0.02
_END_GRACE_S = 5.0
_MEMORY_BYTES = 256 * 1024**2
NAME = "throwaway"
NO_PEER_URL = "http://127.0.0.1:1"
"""Where a member is said to be that nobody has to reach."""


@contextlib.asynccontextmanager
async def throwaway_member(
    binary: Found, etcd_dir: Path, *, name: str = NAME, keep: bool = False, forget_others: bool = False
) -> AsyncIterator[EtcdStore]:
    """Yield a client of an etcd on `etcd_dir` that answers linearizable reads.

    `keep`: what it writes must last, so it syncs to disk. `forget_others`: make a cluster of this member alone,
    whatever its directory says of others. Raises BackupError if it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="cloudless-etcd-") as place:
        sockets = Path(place)
        argv = build_argv(str(binary.path), binary.version, _config(sockets, etcd_dir, name))
        # It is advertised to nobody, but the flag must name a host and a port, which a socket's path does not.
        argv = [word for word in argv if not word.startswith("--advertise-client-urls=")]
        argv.append(f"--advertise-client-urls={NO_PEER_URL}")
        argv += [] if keep else ["--unsafe-no-fsync=true"]
        argv += ["--force-new-cluster=true"] if forget_others else []
        log_file = sockets / "etcd.log"
        process = EtcdProcess.spawn(argv, build_environment(_MEMORY_BYTES), log_file)
        store = EtcdStore(f"unix:{sockets / 'client'}")
        try:
            await _wait_ready(store, process, log_file)
            yield store
        finally:
            await store.close()
            await process.end(_END_GRACE_S)
            process.close()


def _config(sockets: Path, etcd_dir: Path, name: str) -> MemberConfig:
    return MemberConfig(
        name=name,
        data_dir=str(etcd_dir),
        peer_listen_url="http://127.0.0.1:0",
        peer_advertise_url=NO_PEER_URL,
        client_url=f"unix://{sockets / 'client'}",
        initial_cluster=((name, NO_PEER_URL),),
        initial_cluster_state="existing",
        cluster_token=NAME,
        heartbeat_ms=20,
        election_ms=100,
        # The history that is to be read must not be compacted meanwhile; a full store must open all the same.
        auto_compaction_retention="0",
        quota_bytes=8 * 1024**3,
    )


async def _wait_ready(store: EtcdStore, process: EtcdProcess, log_file: Path) -> None:
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + _READY_TIMEOUT_S
    while True:
        try:
            await store.current_revision(timeout_s=1.0)
            return
        except Unavailable:
            if process.ended:
                raise BackupError(f"etcd does not run on this data: {last_words(log_file, 0)}") from None
            if loop.time() > ends_s:
                raise BackupError(f"etcd did not come up on this data in {_READY_TIMEOUT_S:g} s") from None
        await asyncio.sleep(_POLL_S)
