"""An agent's metrics at its own door: served by a thread apart, sampled in the event loop, see `sampling`."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from prometheus_client import start_http_server

from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.server_context import ServerContext
from cloudless.core.discovery.addresses import split_address
from cloudless.errors import PortInUse
from cloudless.observability.metrics import AGENT, AGENT_PREFIX
from cloudless.observability.registry import ProcessMetrics, Value, unknown

HANDSHAKE_MAX_S = 5.0
SAMPLE_MAX_S = 5.0
"""A loop that does not answer by then is stuck: the scrape fails, and so says that."""


class AgentMetrics:
    """What is counted as it happens; the rest is read when scraped, see `watch`."""

    def __init__(self) -> None:
        self._metrics = ProcessMetrics(AGENT_PREFIX, AGENT, self._take_sample)
        self._tls: ServerContext | None = None
        self._sample: Callable[[], Mapping[str, Value]] = partial(unknown, AGENT)

    def take_round_trip(self, took_s: float) -> None:
        self._metrics.observer("heartbeat_rtt_seconds")(took_s)

    def count_refusal(self, reason: str) -> None:
        self._metrics.counter("assignments_refused", reason)(1)

    def count_resent(self, reports: int) -> None:
        self._metrics.counter("reports_resent")(reports)

    def watch(self, sample: Callable[[], Coroutine[Any, Any, Mapping[str, Value]]]) -> None:
        """From now on ask `sample`, in the loop that is running now."""
        loop = asyncio.get_running_loop()

        def ask() -> Mapping[str, Value]:
            asked = asyncio.run_coroutine_threadsafe(sample(), loop)
            try:
                return asked.result(SAMPLE_MAX_S)
            finally:
                asked.cancel()

        self._sample = ask

    def _take_sample(self) -> Mapping[str, Value]:
        return self._sample()

    def serve(self, address: str, identity: IdentityDir | None = None) -> Callable[[], None]:
        """Serve /metrics on `address`; return what ends it. Raises PortInUse.

        With `identity` only callers with a certificate of the cluster are answered.
        """
        host, port = split_address(address)
        try:
            server, _ = start_http_server(
                port, addr=host or "0.0.0.0", registry=self._metrics.registry, **_tls_of(identity)
            )
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {address} for the agent's metrics: {error.strerror}",
                hint="set CLOUDLESS_METRICS_ADDR to a free port",
            ) from error
        if identity is not None:
            self._tls = ServerContext(identity, ssl.CERT_REQUIRED)
            self._tls.lead(server.socket.context)  # type: ignore[attr-defined]
            _shake_hands_apart(server)
        # Not waited for: it looks up only every half second, and stopping must be quick.
        return threading.Thread(target=server.shutdown, daemon=True).start

    def renew(self) -> None:
        """Show the certificate that is kept now."""
        if self._tls is not None:
            self._tls.renew()


def _shake_hands_apart(server: Any) -> None:
    """Have each handshake done by the thread that answers, inside a time-out.

    The library does them in the one thread that accepts: whoever connects and says nothing would hold up everybody.
    """
    server.socket.do_handshake_on_connect = False
    server.RequestHandlerClass = type("_Handler", (server.RequestHandlerClass,), {"timeout": HANDSHAKE_MAX_S})
    server.handle_error = lambda request, address: None  # a handshake that failed is no news


def _tls_of(identity: IdentityDir | None) -> dict[str, Any]:
    if identity is None:
        return {}
    own = str(identity.identity_file)
    return {"certfile": own, "keyfile": own, "client_cafile": str(identity.roots_file), "client_auth_required": True}
