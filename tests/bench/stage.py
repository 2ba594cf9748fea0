"""A running cluster to measure: what `cloudless dev up` starts, in a directory and on ports of its own.

Left through `with`, whatever happened, it is taken down and its data deleted.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import INSECURE
from cloudless.cli.dev.down import purge, take_down
from cloudless.cli.dev.layout import HOST, AgentPlan, Layout, build_layout
from cloudless.cli.dev.preflight import require_ready
from cloudless.cli.dev.progress import Progress
from cloudless.cli.dev.table import Table, send
from cloudless.cli.dev.up import Start, Starter
from cloudless.cli.methods import Method
from cloudless.errors import PortInUse
from tests.bench.children import PROFILED, UNTOLD

_CALL_TIMEOUT_S = 30.0
_PORT_TRIES = 50


@dataclass(frozen=True, slots=True)
class _Profiled(Layout):
    """The same cluster with its first coordinator ready to be profiled."""

    def argv(self, name: str) -> list[str]:
        plain = Layout.argv(self, name)
        if name != self.coordinators[0].name:
            return plain
        program, _, module, *words = plain
        return [program, str(PROFILED), str(self.profile_file), "later", module, *words]

    @property
    def profile_file(self) -> Path:
        return self.state_dir.parent / "coordinator.prof"


@dataclass(frozen=True, slots=True)
class _Untold(Layout):
    """The same cluster with coordinators that tell no metrics."""

    def argv(self, name: str) -> list[str]:
        plain = Layout.argv(self, name)
        if isinstance(self.plan(name), AgentPlan):
            return plain
        program, _, module, *words = plain
        return [program, str(UNTOLD), module, *words]


class Cluster:
    """The running cluster. `started_s`: how long it took to be ready."""

    def __init__(self, table: Table, started_s: float) -> None:
        self.table, self.started_s = table, started_s

    @property
    def etcd_endpoints(self) -> list[str]:
        return [f"{HOST}:{plan.etcd_port}" for plan in self.table.layout.coordinators]

    def start_profile(self) -> None:
        """Profile the first coordinator from now on, if this run is for that."""
        layout = self.table.layout
        if isinstance(layout, _Profiled):
            send(self.table.living()[layout.coordinators[0].name], signal.SIGUSR1)

    def connect(self, stack: AsyncExitStack) -> Api:
        return Api(stack, list(self.table.layout.api_addresses))


class Api:
    """The coordinators as a load sees them: one channel each, every call to the one named, no second try."""

    def __init__(self, stack: AsyncExitStack, addresses: list[str]) -> None:
        self._channels = [INSECURE.open(address) for address in addresses]
        for channel in self._channels:
            stack.push_async_callback(channel.close)
        self._calls: dict[tuple[int, str], Any] = {}

    def call(self, coordinator: int, method: Method[Any, Any], request: Message) -> Any:
        """Return the call, to be awaited (or iterated over, of a stream's method)."""
        index = coordinator % len(self._channels)
        known = self._calls.get((index, method.path))
        if known is None:
            make = self._channels[index].unary_unary
            known = make(method.path, method.request.SerializeToString, method.response.FromString)
            self._calls[index, method.path] = known
        return known(request, timeout=_CALL_TIMEOUT_S)

    def stream(self, coordinator: int, method: Method[Any, Any], request: Message) -> Any:
        make = self._channels[coordinator % len(self._channels)].unary_stream
        return make(method.path, method.request.SerializeToString, method.response.FromString)(request)


@contextmanager
def dev_cluster(manifest: str = "", profile_to: Path | None = None, *, untold: bool = False) -> Iterator[Cluster]:
    """Raise a cluster and take it down again.

    `manifest` is applied; `profile_to` gets the first one's profile; `untold`: its coordinators tell no metrics.
    """
    with tempfile.TemporaryDirectory(prefix="cloudless-bench-") as root:
        kind = _Profiled if profile_to is not None else _Untold if untold else Layout
        table = _find_place(Path(root) / "dev", kind)
        progress = Progress()
        try:
            before_s = time.monotonic()
            Starter(table, progress, Start(manifest)).run()
            yield Cluster(table, time.monotonic() - before_s)
        finally:
            take_down(table, progress)
            if profile_to is not None and isinstance(table.layout, _Profiled):
                profile_to.write_bytes(table.layout.profile_file.read_bytes())
            purge(table.layout.state_dir)


def _find_place(state_dir: Path, kind: type[Layout]) -> Table:
    """Return a cluster none of whose ports is taken; all lie below those the kernel gives to outgoing connections."""
    state_dir.mkdir(mode=0o700)
    for _ in range(_PORT_TRIES):
        layout = build_layout(state_dir, random.randrange(12_000, 22_000))
        table = Table(kind(layout.state_dir, layout.port_offset, layout.coordinators, layout.agents))
        try:
            require_ready(table)
        except PortInUse:
            continue
        return table
    sys.exit("no free block of ports was found")
