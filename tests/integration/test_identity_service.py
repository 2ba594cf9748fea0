"""Tokens, identities and authorities on a real cluster: asked of any coordinator, through a death of the leader."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from cloudless.adapters.pki.credentials import build_credentials
from cloudless.adapters.pki.request import build_request, key_to_pem, new_key
from cloudless.adapters.pki.vault import Vault, found
from cloudless.cli.main import cli
from cloudless.cli.methods import (
    CREATE_TOKEN,
    ENROL,
    GET_CA,
    GET_STATUS,
    LIST_EVENTS,
    LIST_IDENTITIES,
    LIST_TOKENS,
    ROTATE_CA,
)
from cloudless.errors import CloudlessError, Denied
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, LocalCluster
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

FIRST, SECOND, THIRD = COORDINATORS
CLUSTER_ID = "feedbeeffeedbeef"
TURNS = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    """Three coordinators that were given the same cluster key and authorities before they first started."""
    made = LocalCluster(tmp_path_factory.mktemp("trust"), binary.path)
    made.add_coordinators()
    made.found_together()
    holdings = found(CLUSTER_ID, int(time.time() * 1000))
    for name in COORDINATORS:
        Vault(made.datadir(name).path / "pki").keep(holdings)
    made.start(*made.processes)
    try:
        made.until(lambda: len(authorities(made)) == 3, "authorities are founded")
        yield made
    finally:
        made.close()


def authorities(cluster: LocalCluster, *via: str) -> list[str]:
    return [authority.id for authority in cluster.call(GET_CA, pb.GetCaRequest(), *via).authorities]


def enrol(cluster: LocalCluster, token: str, name: str, via: str) -> pb.EnrolResponse | CloudlessError:
    """Enrol through one coordinator, from a thread of its own; return the refusal, if it is one."""
    request = pb.EnrolRequest(token=token, name=name, csr_pem=build_request(new_key()))
    with cluster.new_client(via) as client:
        try:
            return client.call(ENROL, request)
        except CloudlessError as error:
            return error


def kinds_told(cluster: LocalCluster) -> list[str]:
    return [event.kind for event in cluster.call(LIST_EVENTS, ListEventsRequest(limit=1000)).events]


def test_the_cluster_bears_the_name_of_its_certificates(cluster: LocalCluster) -> None:
    assert cluster.call(GET_STATUS, GetStatusRequest()).header.cluster_id == CLUSTER_ID
    assert authorities(cluster, SECOND) == ["cluster-1", "etcd-clients-1", "etcd-peers-1"]


def test_a_token_shown_to_two_coordinators_at_once_lets_one_in(cluster: LocalCluster) -> None:
    with ThreadPoolExecutor(3) as pool:
        for turn in range(TURNS):
            made = cluster.call(CREATE_TOKEN, pb.CreateTokenRequest(role=objects_pb2.ROLE_AGENT))
            answers = list(
                pool.map(lambda via: enrol(cluster, made.token, f"n{turn}-{via[-1]}", via), COORDINATORS)  # noqa: B023
            )
            refused = [answer for answer in answers if isinstance(answer, CloudlessError)]
            assert [type(error) for error in refused] == [Denied, Denied], refused
    names = [
        held.record.name for held in cluster.call(LIST_IDENTITIES, pb.ListIdentitiesRequest(kind="agent")).identities
    ]
    assert sorted(name[:2] for name in names) == [f"n{turn}" for turn in range(10)]
    cluster.until(lambda: "AccessRefused" in kinds_told(cluster), "refusals are told")
    assert kinds_told(cluster).count("Enrolled") == TURNS


def test_a_spent_token_stays_spent_when_the_leader_dies(cluster: LocalCluster) -> None:
    made = cluster.call(CREATE_TOKEN, pb.CreateTokenRequest(role=objects_pb2.ROLE_COORDINATOR))
    leader = cluster.leader()
    key = new_key()
    request = pb.EnrolRequest(token=made.token, name="c9", csr_pem=build_request(key))
    answer = cluster.call(ENROL, request, leader)
    credentials = build_credentials(answer.issued.chain_pem, key_to_pem(key), answer.issued.roots_pem)
    assert credentials.identity.uri == f"spiffe://{CLUSTER_ID}/coordinator/c9"
    assert len(answer.handover.cluster_key) == 32
    cluster.signal(leader, signal.SIGKILL)
    cluster.exit_of(leader)
    follower = next(name for name in COORDINATORS if name != leader)
    assert isinstance(enrol(cluster, made.token, "c10", follower), Denied)
    again = cluster.call(ENROL, request, follower)
    assert again.issued.identity == answer.issued.identity
    cluster.start(leader)
    cluster.until(lambda: authorities(cluster, leader), "it is back")


def test_the_command_line_creates_lists_and_revokes(cluster: LocalCluster) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, ["--coordinator", ",".join(cluster.api_addresses()), *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    token = run("token", "create", "--role", "viewer", "--ttl", "10m", "--name", "ann").strip()
    token_id = token.split(".")[1]
    assert token_id in run("token", "list")
    assert token.split(".")[2] not in run("token", "list", "-a", "-o", "json")
    run("token", "revoke", token_id)
    assert token_id not in run("token", "list")
    (listed,) = [t for t in cluster.call(LIST_TOKENS, pb.ListTokensRequest(all=True)).tokens if t.id == token_id]
    assert listed.state == "revoked"
    assert isinstance(enrol(cluster, token, "ann", SECOND), Denied)
    assert "cluster-1" in run("ca", "status")
    assert {"TokenCreated", "TokenRevoked"} <= set(kinds_told(cluster))


def test_a_replaced_ca_reaches_every_coordinators_disk(cluster: LocalCluster) -> None:
    cluster.call(ROTATE_CA, pb.RotateCaRequest())
    for _ in range(2):
        cluster.call(ROTATE_CA, pb.RotateCaRequest(hurry=True))
    wanted = ["cluster-2", "etcd-clients-2", "etcd-peers-2"]
    for name in COORDINATORS:

        def kept(name: str = name) -> list[str]:
            held = Vault(cluster.datadir(name).path / "pki").load()
            return [record.id for record in held.records] if held else []

        cluster.until(lambda kept=kept: kept() == wanted, f"{name} keeps the new authorities")  # type: ignore[misc]
        assert authorities(cluster, name) == wanted
