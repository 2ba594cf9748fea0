"""What a coordinator says of itself over HTTP: life, readiness, role, metrics, and those of its etcd member.

Load balancers ask by role: /leader, /follower and /read-only answer 200 or 503, each with the reasons. A state counts
as fresh for `READY_STALENESS_MAX_S` after it was last known to be complete.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping

from cloudless import __version__
from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.http.exchange import JSON, Answer
from cloudless.adapters.http.server import Page
from cloudless.adapters.member.supervisor import Phase
from cloudless.coordinator.body import Body
from cloudless.errors import CloudlessError

READY_STALENESS_MAX_S = 5.0
ETCD_METRICS_BYTES_MAX = 4 << 20
OPEN_PATHS = ("/livez",)
"""What is answered without a certificate."""
MAX_STALENESS = "maxStalenessS"
PAGES: Mapping[str, str] = {
    "/livez": "200 while the process runs its loop. Needs no certificate.",
    "/readyz": f"200 while its state is fresh: known to be complete at most {READY_STALENESS_MAX_S:g} s ago.",
    "/healthz": "As /readyz, with what it knows of itself and the reasons, as JSON.",
    "/leader": "200 on the coordinator that leads, if its state is fresh: for what should reach the leader.",
    "/follower": "200 on one that does not lead, if its state is fresh.",
    "/read-only": f"200 on any whose state is not older than {MAX_STALENESS} (default {READY_STALENESS_MAX_S:g}): for "
    "reads. A large number keeps reads going without a quorum, marked as stale.",
    "/metrics": "Metrics for Prometheus.",
    "/metrics/etcd": "Those of its etcd member, as etcd tells them; 503 while it does not.",
}


def build_pages(
    body: Callable[[], Body | None],
    waiting_for: Callable[[], str],
    render_metrics: Callable[[], str],
    admin: EtcdAdmin,
) -> dict[str, Page]:
    """Return what answers each of `PAGES`, given the query. `waiting_for` tells what is waited for without a body.

    `admin`: asked for the member's own metrics, so that the member needs no door of its own for them.
    """

    def reasons(staleness_max_s: float = READY_STALENESS_MAX_S) -> list[str]:
        return _find_reasons(body(), waiting_for(), staleness_max_s)

    def ready(query: Mapping[str, str]) -> Answer:
        return _say("ready", reasons())

    def leader(query: Mapping[str, str]) -> Answer:
        now = body()
        away = [] if now is not None and now.leadership.leading_term > 0 else [f"not the leader{_who_leads(now)}"]
        return _say("leader", reasons() or away)

    def follower(query: Mapping[str, str]) -> Answer:
        now = body()
        leads = now is not None and now.leadership.leading_term > 0
        return _say("follower", reasons() or (["it is the leader"] if leads else []))

    def read_only(query: Mapping[str, str]) -> Answer:
        staleness_max_s = _read_staleness(query)
        if staleness_max_s is None:
            return Answer(400, f"{MAX_STALENESS} must be seconds, not negative\n")
        return _say("readable", reasons(staleness_max_s))

    def health(query: Mapping[str, str]) -> Answer:
        found = reasons()
        document = {"ready": not found, "reasons": found, **_describe(body())}
        return Answer(503 if found else 200, json.dumps(document, indent=1) + "\n", JSON)

    async def etcd_metrics(query: Mapping[str, str]) -> Answer:
        try:
            return Answer(200, await admin.metrics(ETCD_METRICS_BYTES_MAX))
        except CloudlessError as error:
            return Answer(503, f"{error.message}\n")

    return {
        "/livez": lambda query: Answer(200, "ok\n"),
        "/readyz": ready,
        "/healthz": health,
        "/leader": leader,
        "/follower": follower,
        "/read-only": read_only,
        "/metrics": lambda query: Answer(200, render_metrics()),
        "/metrics/etcd": etcd_metrics,
    }


def _say(what: str, reasons: list[str]) -> Answer:
    """Return 200 with what it is, or 503 with every reason why it is not."""
    if not reasons:
        return Answer(200, f"{what}\n")
    return Answer(503, f"not {what}\n" + "".join(f"{reason}\n" for reason in reasons))


def _find_reasons(body: Body | None, waiting_for: str, staleness_max_s: float) -> list[str]:
    """Return why there is no state of at most that age; nothing if there is."""
    if body is None:
        waits = f": {waiting_for}" if waiting_for else ""
        return [f"not a voter of a cluster yet{waits}"]
    if not body.replica.loaded.is_set():
        return ["its state is not read yet"]
    if body.replica.staleness_s <= staleness_max_s:
        return []
    reasons = [f"its state was last known to be complete {body.replica.staleness_s:.1f} s ago"]
    phase = body.supervisor.state.phase
    if phase is not Phase.RUNNING:
        reasons.append(f"its etcd does not run ({phase.value})")
    return reasons


def _who_leads(body: Body | None) -> str:
    leader = body.leadership.leader() if body is not None else None
    return f": that is {leader.record.coordinator_id}" if leader else ": there is none that it knows"


def _read_staleness(query: Mapping[str, str]) -> float | None:
    """Return the age that the query allows, in seconds; None if that is none."""
    text = query.get(MAX_STALENESS, query.get("max_staleness_s", ""))
    try:
        seconds = float(text) if text else READY_STALENESS_MAX_S
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _describe(body: Body | None) -> dict[str, object]:
    if body is None:
        return {"version": __version__}
    leader = body.leadership.leader()
    cluster = body.replica.machine.cluster
    loaded = body.replica.loaded.is_set()
    return {
        "version": __version__,
        "clusterId": cluster.id if cluster else "",
        "coordinator": body.settings.node_id,
        "role": body.leadership.role.value,
        "leader": leader.record.coordinator_id if leader else "",
        "term": leader.term if leader else 0,
        "revision": body.replica.machine.revision,
        "stalenessSeconds": round(body.replica.staleness_s, 3) if loaded else None,
        "etcd": body.supervisor.state.phase.value,
    }
