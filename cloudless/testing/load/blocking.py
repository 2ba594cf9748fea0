"""The same load for tests that block: it runs on an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from cloudless.testing.load.load import Entrance, Load, LoadReport, LoadSettings, recorded_load
from cloudless.testing.load.notebook import Counts

T = TypeVar("T")

_CALL_S = 120.0
"""More than any call of a load takes: beyond that its loop is dead, and a test must not hang."""


class BlockingLoad:
    """`Load`, whose methods are called from another thread than it runs in."""

    def __init__(self, load: Load, loop: asyncio.AbstractEventLoop) -> None:
        self._load, self._loop = load, loop

    @property
    def counts(self) -> Counts:
        return self._load.counts

    def require(
        self, *, acks_min: int = 0, reads_min: int = 0, timeout_s: float = 20.0, since: Counts | None = None
    ) -> Counts:
        """See `Load.require`."""
        waiting = self._load.require(acks_min=acks_min, reads_min=reads_min, timeout_s=timeout_s, since=since)
        return _call(self._loop, waiting)

    def check(self, timeout_s: float = 30.0) -> LoadReport:
        """See `Load.check`."""
        return _call(self._loop, self._load.check(timeout_s))


@contextmanager
def blocking_load(
    addresses: Sequence[str],
    etcd_addresses: Sequence[str],
    settings: LoadSettings | None = None,
    entrance: Entrance | None = None,
    **changed: Any,
) -> Iterator[BlockingLoad]:
    """Load a cluster until the block is left; see `recorded_load`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="load", daemon=True)
    thread.start()
    load = recorded_load(addresses, etcd_addresses, settings, entrance, **changed)
    try:
        entered = _call(loop, load.__aenter__())
        try:
            yield BlockingLoad(entered, loop)
        finally:
            _call(loop, load.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CALL_S)
        loop.close()


def _call(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result(_CALL_S)
