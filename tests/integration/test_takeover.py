"""A coordinator of a cluster with TLS was taken over: after one command what it had opens nothing, and who was away is
let in again. Real processes; judged by the files on their disks and by calls made with what was stolen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.vault import Holdings, Vault
from cloudless.cli.dev.layout import Layout
from cloudless.cli.dev.table import Table
from cloudless.errors import BadCredentials, Denied, Unauthenticated
from cloudless.rpc.v1 import identity_pb2 as pb
from tests.integration.test_dev_cluster import Cli

FIRST, SECOND, THIRD = "coordinator-1", "coordinator-2", "coordinator-3"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def until(look: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    ends_s = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < ends_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.2)
    return found


def on_record(cli: Cli) -> set[str]:
    return {one["record"]["name"] for one in cli.json("identity", "list", "--kind", "coordinator")}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("takeover") / "dev")
    done = cli.run("dev", "up", "--detach", "--port-offset", str(cli.offset), timeout_s=200)
    try:
        assert done.returncode == 0, done.stderr
        until(lambda: on_record(cli) == {FIRST, SECOND, THIRD}, "all are on record")
        yield cli
    finally:
        cli.run("dev", "down", timeout_s=120)


@pytest.fixture
def layout(cluster: Cli) -> Layout:
    return Table.open(cluster.state_dir).layout


def kept_by(layout: Layout, name: str) -> Holdings:
    held = Vault(layout.data_dir(name) / "identity").load()
    assert held is not None
    return held


def names_of(holdings: Holdings) -> list[str]:
    return [key.name for key in holdings.keys]


def test_who_was_away_while_the_key_was_replaced_fetches_it_on_its_return(cluster: Cli, layout: Layout) -> None:
    old = kept_by(layout, FIRST).cluster_key.name
    assert cluster.run("dev", "kill", THIRD, "--etcd").returncode == 0
    done = cluster.run("ca", "rotate-key", timeout_s=200)
    assert done.returncode == 0, done.stderr
    assert f"by {THIRD}" in done.stdout
    new = cluster.json("ca", "key")["inUse"]
    assert new != old
    both = [[new, old]] * 2
    until(lambda: [names_of(kept_by(layout, name)) for name in (FIRST, SECOND)] == both, "the others have both")
    assert names_of(kept_by(layout, THIRD)) == [old]
    assert cluster.run("dev", "start", THIRD).returncode == 0
    until(lambda: names_of(kept_by(layout, THIRD)) == [new, old], "the third has fetched it")
    until(lambda: cluster.json("ca", "key")["awaited"] == [], "and says so")
    for name in (FIRST, SECOND, THIRD):
        assert {record.sealed_with for record in kept_by(layout, name).records} == {new}
    # It comes up from its disk as well, and signs.
    assert cluster.run("dev", "kill", FIRST, "--etcd").returncode == 0
    assert cluster.run("dev", "start", FIRST).returncode == 0
    until(lambda: cluster.run("token", "create", "--role", "agent").returncode == 0, "tokens are made")


async def test_what_a_coordinator_had_that_was_taken_over_opens_nothing(
    cluster: Cli, layout: Layout, tmp_path: Path
) -> None:
    until(lambda: cluster.json("cluster", "status")["health"] == "ok", "all are well")
    stolen, identity = kept_by(layout, THIRD), IdentityDir(layout.data_dir(THIRD) / "identity").load()
    assert identity is not None
    done = cluster.run("identity", "revoke", "coordinator", THIRD, "--rotate", "--yes", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr

    until(lambda: len(kept_by(layout, FIRST).records) == 6, "new CAs are known")
    for record in kept_by(layout, FIRST).records:
        assert record.sealed_with not in names_of(stolen)
        with pytest.raises(BadCredentials):
            stolen.open(record)
    new = cluster.json("ca", "key")
    assert (new["phase"], new["awaited"]) == ("DONE", [])
    assert new["inUse"] not in names_of(kept_by(layout, THIRD))
    assert THIRD not in {member["name"] for member in cluster.json("cluster", "members")}

    request = pb.FetchClusterKeyRequest(name=new["inUse"])

    async def ask(own: Any, method: str, question: Any, answer: Any) -> Any:
        return await ask_identity_service(layout.api_addresses[0], method, question, answer, identity.roots_pem, own)

    with pytest.raises(Unauthenticated, match="revoked"):
        await ask(identity, "FetchClusterKey", request, pb.FetchClusterKeyResponse)
    with pytest.raises(Unauthenticated, match="revoked"):
        await ask(identity, "CreateToken", pb.CreateTokenRequest(), pb.CreateTokenResponse)
    # With the stolen CA it makes itself another name, and another key for one that is on record.
    now_ms = time.time_ns() // 1_000_000
    for name in ("coordinator-9", SECOND):
        forged = sign_own(stolen, name, IdentityDir(tmp_path / name), now_ms)
        with pytest.raises((Unauthenticated, Denied)):
            await ask(forged, "FetchClusterKey", request, pb.FetchClusterKeyResponse)
    assert cluster.run("workload", "list").returncode == 0


def test_a_coordinator_leaves_over_tls_too(cluster: Cli) -> None:
    done = cluster.run("cluster", "leave", SECOND, "--yes", timeout_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [member["name"] for member in cluster.json("cluster", "members")] == [FIRST]
