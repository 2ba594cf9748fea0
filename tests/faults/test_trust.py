"""Who gets in while the cluster is being broken: a token never lets in more than it says."""

from __future__ import annotations

import asyncio
import random

from cloudless.adapters.pki.request import build_request, new_key
from cloudless.adapters.pki.vault import Holdings
from cloudless.cli.aio import AsyncClient
from cloudless.cli.methods import CREATE_TOKEN, ENROL, GET_CA, LIST_EVENTS, LIST_IDENTITIES, LIST_TOKENS, REVOKE_TOKEN
from cloudless.errors import CloudlessError, Denied
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.objects_pb2 import ROLE_AGENT, ROLE_COORDINATOR
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import Trial
from tests.integration.authorities import found_authorities, share_keys
from tests.integration.cluster import LocalCluster

REPLAYED = 8
RETRY_S = 20.0
SPREAD_S = 1.5


@scenario(49, rounds=2)
def test_a_token_lets_in_no_more_than_it_says_though_the_leader_dies(trial: Trial) -> None:
    """Tokens for one are used by three at once, each at another coordinator, while the leader's host dies.

    Expired, revoked and wrong-role ones are tried meanwhile too.
    """
    shared: list[Holdings] = []
    cluster = trial.start(prepare=lambda made: shared.append(share_keys(made)))
    found_authorities(cluster, shared[0])
    cluster.until(lambda: signing(cluster) == len(cluster.coordinators), "every coordinator signs")
    for number in trial.rounds():
        trial.load_up()
        tokens = [create(cluster) for _ in range(REPLAYED)]
        useless = useless_tokens(cluster)
        leader = cluster.leader()
        trying = trial.load.begin(try_all(cluster, number, tokens, useless))
        trial.note(f"kill {leader} and its etcd")
        cluster.kill(leader, etcd=True)
        admitted, errors = trying.result(90.0)
        assert sorted(admitted) == sorted(tokens), "each lets exactly one in"
        assert {type(error) for error in errors} == {Denied}, errors
        listed = names_enrolled(cluster)
        assert len([name for name in listed if name.startswith(f"r{number}-")]) == REPLAYED
        assert not [name for name in listed if name.startswith("useless")]
        trial.figure("tries", 3 * REPLAYED + len(useless))
        cluster.start(leader)
        trial.settle()
    told = [event.kind for event in cluster.call(LIST_EVENTS, ListEventsRequest(limit=1000)).events]
    assert "AccessRefused" in told


def create(cluster: LocalCluster, **fields: int) -> str:
    return cluster.call(CREATE_TOKEN, pb.CreateTokenRequest(**{"role": ROLE_AGENT, **fields})).token  # type: ignore[arg-type]


def signing(cluster: LocalCluster) -> int:
    """Return how many coordinators know the authorities."""
    return sum(bool(cluster.call(GET_CA, pb.GetCaRequest(), p.name).authorities) for p in cluster.coordinators)


def useless_tokens(cluster: LocalCluster) -> list[str]:
    expired, revoked = create(cluster, ttl_s=1), create(cluster)
    cluster.call(REVOKE_TOKEN, pb.RevokeTokenRequest(id=revoked.split(".")[1]))

    def over() -> bool:
        listed = cluster.call(LIST_TOKENS, pb.ListTokensRequest(all=True)).tokens
        return any(token.id == expired.split(".")[1] and token.state == "expired" for token in listed)

    cluster.until(over, "the token has expired")
    return [expired, revoked, create(cluster, role=ROLE_COORDINATOR)]


async def try_all(
    cluster: LocalCluster, number: int, tokens: list[str], useless: list[str]
) -> tuple[list[str], list[CloudlessError]]:
    """Use each token at each coordinator under another name; return those that let somebody in, and the refusals."""
    addresses = cluster.api_addresses()
    clients = [AsyncClient([*addresses[n:], *addresses[:n]], RETRY_S) for n in range(len(addresses))]
    admitted: list[str] = []
    errors: list[CloudlessError] = []

    async def use(client: AsyncClient, token: str, name: str) -> None:
        await asyncio.sleep(random.uniform(0.0, SPREAD_S))
        request = pb.EnrolRequest(token=token, name=name, role=ROLE_AGENT, csr_pem=build_request(new_key()))
        try:
            await client.call(ENROL, request)
            admitted.append(token)
        except CloudlessError as error:
            errors.append(error)

    tries = [
        use(client, token, f"r{number}-{n}-{at}") for n, token in enumerate(tokens) for at, client in enumerate(clients)
    ]
    tries += [use(random.choice(clients), token, f"useless-{number}-{n}") for n, token in enumerate(useless)]
    try:
        await asyncio.gather(*tries)
    finally:
        for client in clients:
            await client.close()
    return admitted, errors


def names_enrolled(cluster: LocalCluster) -> list[str]:
    identities = cluster.call(LIST_IDENTITIES, pb.ListIdentitiesRequest(kind="agent")).identities
    return [held.record.name for held in identities]
