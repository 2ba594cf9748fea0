"""What load balancers and monitors ask: 200 or 503, and every reason for the latter."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable
from typing import Any

import pytest

from cloudless.adapters.http.exchange import Answer
from cloudless.adapters.member.supervisor import Phase
from cloudless.coordinator.health import PAGES, build_pages
from cloudless.core.election import Role
from cloudless.errors import Unavailable
from tests.unit.http.serving import stub


def body(*, leads: bool = False, staleness_s: float = 0.1, loaded: bool = True, etcd: Phase = Phase.RUNNING) -> Any:
    read = asyncio.Event()
    if loaded:
        read.set()
    leader = stub(record=stub(coordinator_id="c1" if leads else "c2"), term=7)
    return stub(
        settings=stub(node_id="c1"),
        leadership=stub(
            leading_term=7 if leads else 0, leader=lambda: leader, role=Role.LEADER if leads else Role.FOLLOWER
        ),
        replica=stub(loaded=read, staleness_s=staleness_s, machine=stub(revision=12, cluster=stub(id="ours"))),
        supervisor=stub(state=stub(phase=etcd)),
    )


async def none_of_etcd(bytes_max: int) -> str:
    raise Unavailable("etcd does not answer")


async def until(coming: Awaitable[Answer]) -> Answer:
    return await coming


def ask(path: str, now: Any, **query: str) -> tuple[int, str]:
    admin = stub(metrics=none_of_etcd)
    pages = build_pages(lambda: now, lambda: "coordinator-2 does not answer", lambda: "metrics 1\n", admin)
    assert set(pages) == set(PAGES)
    found = pages[path](query)
    answer = found if isinstance(found, Answer) else asyncio.run(until(found))
    return answer.status, str(answer.text)


@pytest.mark.parametrize(
    ("path", "leader", "follower", "stale"),
    [
        ("/livez", 200, 200, 200),
        ("/readyz", 200, 200, 503),
        ("/healthz", 200, 200, 503),
        ("/leader", 200, 503, 503),
        ("/follower", 503, 200, 503),
        ("/read-only", 200, 200, 503),
        ("/metrics", 200, 200, 200),
        ("/metrics/etcd", 503, 503, 503),
    ],
)
def test_each_page_is_for_those_it_names(path: str, leader: int, follower: int, stale: int) -> None:
    found = [ask(path, now)[0] for now in (body(leads=True), body(), body(leads=True, staleness_s=60))]
    assert found == [leader, follower, stale]


def test_a_coordinator_without_a_cluster_says_what_it_waits_for() -> None:
    for path in ("/readyz", "/leader", "/follower", "/read-only"):
        status, text = ask(path, None)
        assert status == 503
        assert "not a voter of a cluster yet: coordinator-2 does not answer" in text
    assert json.loads(ask("/healthz", None)[1])["reasons"] == [
        "not a voter of a cluster yet: coordinator-2 does not answer"
    ]
    assert ask("/livez", None)[0] == 200


def test_every_reason_is_told() -> None:
    assert ask("/readyz", body(loaded=False, staleness_s=math.inf)) == (503, "not ready\nits state is not read yet\n")
    status, text = ask("/readyz", body(staleness_s=8.04, etcd=Phase.BACKOFF))
    assert (status, text.splitlines()) == (
        503,
        ["not ready", "its state was last known to be complete 8.0 s ago", "its etcd does not run (backoff)"],
    )
    assert ask("/leader", body())[1] == "not leader\nnot the leader: that is c2\n"
    assert "it is the leader" in ask("/follower", body(leads=True))[1]


def test_reads_may_go_on_from_an_old_state_where_that_is_wanted() -> None:
    cut_off = body(staleness_s=60)
    assert ask("/read-only", cut_off, maxStalenessS="3600")[0] == 200
    assert ask("/read-only", cut_off, max_staleness_s="30")[0] == 503
    assert ask("/read-only", body(loaded=False), maxStalenessS="1e9")[0] == 503
    assert [ask("/read-only", cut_off, maxStalenessS=wrong)[0] for wrong in ("x", "-1", "nan", "inf")] == [400] * 4


def test_health_tells_what_there_is_to_know() -> None:
    document = json.loads(ask("/healthz", body(leads=True))[1])
    assert {name: document[name] for name in ("ready", "role", "leader", "term", "revision", "clusterId")} == {
        "ready": True, "role": "leader", "leader": "c1", "term": 7, "revision": 12, "clusterId": "ours",
    }  # fmt: skip
