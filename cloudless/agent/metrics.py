"""The agent's metrics, on a registry of its own, each with a value from the first scrape on."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.server_context import ServerContext
from cloudless.agent.links import Links
from cloudless.agent.session import EndKind
from cloudless.agent.tasks import TaskRunner
from cloudless.core.discovery.addresses import split_address
from cloudless.core.model import TaskState
from cloudless.errors import PortInUse
from cloudless.observability import tracing

HANDSHAKE_MAX_S = 5.0
REFUSALS = ("stale-term", "stale-revision", "sequence-gap", "foreign-cluster", "unknown-kind")


class AgentMetrics:
    """What is counted as it happens; the rest is read when scraped, see `watch`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tls: ServerContext | None = None
        up = Gauge("cloudless_agent_up", "1 while the agent runs", registry=self.registry)
        up.set(1)
        self.round_trip = Histogram(
            "cloudless_agent_heartbeat_rtt_seconds",
            "From a heartbeat to its acknowledgement",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
            registry=self.registry,
        )
        self.refused = Counter(
            "cloudless_agent_assignments_refused_total",
            "Assignments or coordinators not followed",
            ["reason"],
            registry=self.registry,
        )
        for reason in REFUSALS:
            self.refused.labels(reason)
        self.resent = Counter(
            "cloudless_agent_reports_resent_total", "Reports sent again without an answer", registry=self.registry
        )

    def watch(self, runner: TaskRunner, links: Links) -> None:
        """Read the rest from its owners at each scrape (from another thread: numbers only)."""
        tasks = Gauge("cloudless_agent_tasks", "Tasks of this node by state", ["state"], registry=self.registry)
        for state in TaskState:
            tasks.labels(state.value).set_function(_counting(runner, state))
        sessions = Gauge("cloudless_agent_sessions", "Open sessions by role", ["role"], registry=self.registry)
        sessions.labels("primary").set_function(lambda: float(links.primary is not None))
        sessions.labels("warm").set_function(links.count_warm)
        ends = Gauge("cloudless_agent_session_ends", "Ended sessions by cause", ["cause"], registry=self.registry)
        for kind in EndKind:
            ends.labels(kind.value).set_function(_ended(links, kind))
        dialled = Gauge("cloudless_agent_reconnects", "Coordinators dialled after the first", registry=self.registry)
        dialled.set_function(lambda: max(0, links.dialled - 2))
        dropped = Gauge("cloudless_agent_trace_spans_dropped", "Spans that could not be sent", registry=self.registry)
        dropped.set_function(tracing.dropped_total)
        loop = asyncio.get_running_loop()
        running = Gauge("cloudless_agent_asyncio_tasks", "Tasks of the event loop", registry=self.registry)
        running.set_function(lambda: len(asyncio.all_tasks(loop)))

    def serve(self, address: str, identity: IdentityDir | None = None) -> Callable[[], None]:
        """Serve /metrics on `address`; return what ends it. Raises PortInUse.

        With `identity` only callers with a certificate of the cluster are answered.
        """
        host, port = split_address(address)
        try:
            server, _ = start_http_server(port, addr=host or "0.0.0.0", registry=self.registry, **_tls_of(identity))
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


def _counting(runner: TaskRunner, state: TaskState) -> Callable[[], float]:
    return lambda: float(runner.count_states()[state])


def _ended(links: Links, kind: EndKind) -> Callable[[], float]:
    return lambda: float(links.ends[kind])
