"""What a coordinator says of itself over HTTP: life, readiness, role, metrics, and those of its etcd member."""

from __future__ import annotations

import json
from collections.abc import Callable

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.http.server import Answer, Respond
from cloudless.coordinator.body import Body
from cloudless.errors import CloudlessError

READY_STALENESS_MAX_S = 5.0
ETCD_METRICS_BYTES_MAX = 4 << 20
OPEN_PATHS = ("/livez",)
"""What is answered without a certificate."""


def build_routes(
    body: Callable[[], Body | None], render_metrics: Callable[[], str], admin: EtcdAdmin
) -> dict[str, Respond]:
    """Return the paths a coordinator answers.

    /livez: the process runs its loop. /readyz: it holds fresh state. /healthz: both, as JSON with the
    reasons. /leader, /follower: 200 for that role, 503 otherwise (for load balancers). /metrics: this coordinator's.
    /metrics/etcd: its member's own, asked of it now, so that the member needs no door of its own for them.
    """

    def role_route(leads: bool) -> Callable[[], Answer]:
        def answer() -> Answer:
            now = body()
            if now is None or not _fresh(now):
                return Answer(503, "not ready\n")
            is_leader = now.leadership.leading_term > 0
            return Answer(200 if is_leader is leads else 503, "leader\n" if is_leader else "follower\n")

        return answer

    def ready() -> Answer:
        now = body()
        return Answer(200, "ok\n") if now is not None and _fresh(now) else Answer(503, "not ready\n")

    def health() -> Answer:
        now = body()
        document = _describe(now)
        fine = now is not None and _fresh(now)
        return Answer(200 if fine else 503, json.dumps(document, indent=1) + "\n", "application/json")

    async def etcd_metrics() -> Answer:
        try:
            return Answer(200, await admin.metrics(ETCD_METRICS_BYTES_MAX))
        except CloudlessError as error:
            return Answer(503, f"{error.message}\n")

    return {
        "/livez": lambda: Answer(200, "ok\n"),
        "/readyz": ready,
        "/healthz": health,
        "/leader": role_route(True),
        "/follower": role_route(False),
        "/metrics": lambda: Answer(200, render_metrics()),
        "/metrics/etcd": etcd_metrics,
    }


def _fresh(body: Body) -> bool:
    return body.replica.staleness_s <= READY_STALENESS_MAX_S


def _describe(body: Body | None) -> dict[str, object]:
    if body is None:
        return {"ready": False, "reason": "not a voter of a cluster yet"}
    leader = body.leadership.leader()
    loaded = body.replica.loaded.is_set()
    return {
        "ready": _fresh(body),
        "coordinator": body.settings.node_id,
        "role": body.leadership.role.value,
        "leader": leader.record.coordinator_id if leader else "",
        "term": leader.term if leader else 0,
        "revision": body.replica.machine.revision,
        "stalenessSeconds": round(body.replica.staleness_s, 3) if loaded else None,
        "etcd": body.supervisor.state.phase.value,
    }
