"""The cluster's feature level, minded by one coordinator: asked for before it takes part, watched while it runs.

Both are needed. The first keeps a version that does not fit from serving, leading or writing at all. The second ends
one that fitted when it started: the level was raised meanwhile, or several versions founded the cluster together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import ClusterRecord
from cloudless.core.state import Applied
from cloudless.core.versions import find_misfit
from cloudless.errors import CloudlessError, VersionRefused
from cloudless.ports import Page, Store
from cloudless.rpc.codec import Malformed, decode_record

READ_TIMEOUT_S = 1.0
RETRY_PAUSE_S = 0.2


def check_fit(version: str, level: str) -> None:
    """Raise VersionRefused if a coordinator of `version` may not run in a cluster of `level`."""
    misfit = find_misfit(version, level)
    if misfit is not None:
        raise VersionRefused(misfit.reason, hint=misfit.cure)


async def require_fit(store: Store, version: str, say: Callable[[str], None]) -> None:
    """Return once the store, read linearizably, allows `version`. Raises VersionRefused.

    `say` is told what is waited for. A cluster that has no record yet, or one that cannot be read, refuses nobody.
    """
    for kv in (await _read(store, say)).kvs:
        try:
            record = decode_record(keys.Key(Kind.CLUSTER, ()), kv.value)
        except Malformed:  # quarantined and shown, like any other
            continue
        assert isinstance(record, ClusterRecord)
        check_fit(version, record.feature_level)


async def _read(store: Store, say: Callable[[str], None]) -> Page:
    while True:
        try:
            return await store.read_page(keys.CLUSTER, limit=1, timeout_s=READ_TIMEOUT_S)
        except CloudlessError as error:
            say(f"waiting for the store, to read the cluster's feature level: {error.message}")
            await asyncio.sleep(RETRY_PAUSE_S)


async def watch_level(replica: Replica, version: str) -> None:
    """Run until the level no longer allows `version`. Raises VersionRefused then."""
    changed = asyncio.Event()

    def on_applied(applied: Applied) -> None:
        if any(transition.kind is Kind.CLUSTER for transition in applied.transitions):
            changed.set()

    stop_listening = replica.listen(on_applied)
    try:
        while True:
            await changed.wait()
            changed.clear()
            cluster = replica.machine.cluster
            check_fit(version, cluster.feature_level if cluster else "")
    finally:
        stop_listening()
