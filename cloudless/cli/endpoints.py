"""Follow a workload's endpoints across the deaths of coordinators: what is new, what is gone, nothing twice.

Each watch begins with everything, so after a break only the difference to what is held is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from cloudless.cli.client import Client
from cloudless.cli.methods import WATCH_ENDPOINTS
from cloudless.errors import CloudlessError, HistoryGone
from cloudless.rpc.v1.names_pb2 import Endpoint, WatchEndpointsRequest

_SILENT_S_MAX = 60.0
_PAUSE_S = 0.2
Held = dict[tuple[str, str], Endpoint]


@dataclass(frozen=True, slots=True)
class Step:
    """What has changed since the last step. The first one has everything in `put`."""

    put: tuple[Endpoint, ...]
    gone: tuple[Endpoint, ...]


def follow_endpoints(client: Client, request: WatchEndpointsRequest) -> Iterator[Step]:
    """Yield steps without end. Raises a refusal, or Unavailable after a minute without any coordinator."""
    held: Held = {}
    heard_s = time.monotonic()
    first = True
    while True:
        try:
            for answer in client.stream(WATCH_ENDPOINTS, request):
                heard_s = time.monotonic()
                request.min_revision = max(request.min_revision, answer.revision)
                now: Held = {} if answer.complete else dict(held)
                for key in answer.gone:
                    now.pop((key.task_id, key.port_name), None)
                now |= {(endpoint.task_id, endpoint.port_name): endpoint for endpoint in answer.put}
                step = _compare(held, now)
                held = now
                if first or step.put or step.gone:
                    first = False
                    yield step
        except HistoryGone:
            request.min_revision = 0
        except CloudlessError as error:
            if not error.retryable or time.monotonic() - heard_s > _SILENT_S_MAX:
                raise
        time.sleep(_PAUSE_S)


def _compare(held: Held, now: Held) -> Step:
    put = tuple(endpoint for key, endpoint in now.items() if held.get(key) != endpoint)
    return Step(put, tuple(held[key] for key in sorted(held.keys() - now.keys())))


def address_of(endpoint: Endpoint) -> str:
    """Return where it is reached: `host:port`, the host alone without a port."""
    from cloudless.core.discovery.addresses import join_address

    host = endpoint.host.strip("[]")
    return join_address(host, endpoint.port) if endpoint.port else host
