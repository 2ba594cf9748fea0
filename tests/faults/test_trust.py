"""Who gets in while the cluster is being broken: no more than tokens and certificates say, and nobody else hears."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import threading
from collections import Counter
from functools import partial

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import enrol_patiently
from cloudless.adapters.system import SystemClock
from cloudless.cli.methods import (
    CREATE_TOKEN,
    LIST_EVENTS,
    LIST_IDENTITIES,
    LIST_TOKENS,
    REMOVE_MEMBER,
    REVOKE_TOKEN,
)
from cloudless.coordinator.runtime import SERVICES
from cloudless.core.model import Role
from cloudless.errors import CloudlessError, Denied, WrongAuthority, outcome_of
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1.cluster_pb2 import RemoveMemberRequest
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.objects_pb2 import ROLE_AGENT, ROLE_COORDINATOR
from tests.faults.rig.agents import RawAgent
from tests.faults.rig.impostor import Impostor
from tests.faults.rig.members import add_joiner
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import Trial
from tests.integration.cluster import COORDINATORS, LocalCluster
from tests.integration.test_tls import DENIED, FOR_AGENTS
from tests.integration.test_tls import outcome_of as ended_with
from tests.integration.trusted import identity_dir

REPLAYED = 8
TRIED_S = 60.0
SPREAD_S = 1.5
JOINED_S = 60.0
BEGUN_S = 10.0
SPOKEN = "what-is-told-to-a-stranger"
AGAIN_S = 0.2


@scenario(49, rounds=2)
def test_a_token_lets_in_no_more_than_it_says_though_the_leader_dies(trial: Trial) -> None:
    """Tokens for one are used by three at once, each at another coordinator, while the leader's host dies.

    Expired, revoked and wrong-role ones are tried meanwhile too.
    """
    cluster = trial.start()
    for number in trial.rounds():
        trial.load_up()
        tokens = [create(cluster) for _ in range(REPLAYED)]
        useless = useless_tokens(cluster)
        leader = cluster.leader()
        trying = trial.load.begin(try_all(cluster, number, tokens, useless))
        trial.note(f"kill {leader} and its etcd")
        cluster.kill(leader, etcd=True)
        admitted, refusals = trying.result(90.0)
        assert sorted(admitted) == sorted(tokens), "each lets exactly one in"
        assert set(refusals) == {Denied}
        listed = names_enrolled(cluster)
        assert len([name for name in listed if name.startswith(f"r{number}-")]) == REPLAYED
        assert not [name for name in listed if name.startswith("useless")]
        trial.figure("tries", 3 * REPLAYED + len(useless))
        cluster.start(leader)
        trial.settle()
    told = [event.kind for event in cluster.call(LIST_EVENTS, ListEventsRequest(limit=1000)).events]
    assert "AccessRefused" in told


@scenario(50, rounds=2)
def test_an_agents_certificate_opens_no_other_call_and_no_other_nodes_session(trial: Trial) -> None:
    """Every RPC there is, and a session in another node's name, at every coordinator while the leader's host dies."""
    cluster = trial.start(agents=3)
    rogue, victim = "agent-1", "agent-2"
    for _ in trial.rounds():
        trial.load_up()
        own = IdentityDir(identity_dir(cluster.processes[rogue])).load()
        assert own is not None
        leader = cluster.leader()
        ends = ends_of(cluster, victim)
        begun, enough = threading.Event(), threading.Event()
        trying = trial.load.begin(try_everywhere(cluster, Dialler(lambda own=own: own), victim, begun, enough))  # type: ignore[misc]
        assert begun.wait(BEGUN_S), "it is not under way"
        trial.note(f"kill {leader} and its etcd")
        cluster.kill(leader, etcd=True)
        cluster.until(lambda: cluster.status().header.leader_id not in ("", leader), "another leads")
        cluster.start(leader)
        cluster.wait_formed()
        enough.set()
        told = trying.result(90.0)
        assert set(told) == set(COORDINATORS)
        for name, passes in told.items():
            for outcomes in passes:
                assert {call for call, code in outcomes.items() if code not in DENIED} == FOR_AGENTS, name
        trial.figure("calls", sum(len(outcomes) for passes in told.values() for outcomes in passes))
        ended = ends_of(cluster, victim) - ends
        assert ended.total() - ended["unreachable"] <= 1, f"of {victim}'s two sessions one was with {leader}: {ended}"
        for words in ("ApplyWorkload", f"may not speak for {victim}"):
            cluster.until(lambda words=words: any(words in text for text in refusals_of(cluster, rogue)), words)  # type: ignore[misc]
        trial.settle()


@scenario(51)
def test_a_stranger_who_answers_for_a_coordinator_never_hears_the_secret_of_a_token(trial: Trial) -> None:
    """A man in the middle between the real coordinators and, one after the other, an agent and a coordinator."""
    cluster = trial.start(coordinators=COORDINATORS[:2])
    real = cluster.coordinators[0].address("enrol")
    for number in trial.rounds():
        impostor = Impostor(real, cluster.root / f"impostor-{number}")
        trial.load.run(impostor.start())
        trial.closing(lambda it=impostor: trial.load.run(it.close()))  # type: ignore[misc]
        trial.load.run(speak_carelessly(cluster, impostor))
        assert SPOKEN.encode() in impostor.heard, "it hears who trusts it, so that its silence proves something"
        for name, role in ((f"late-{number}", ROLE_AGENT), (COORDINATORS[2], ROLE_COORDINATOR)):
            trial.load_up()
            token = add_newcomer(trial, name, role, impostor.address)
            trial.note(f"{name} asks a stranger to let it in")
            met = impostor.shook_hands
            cluster.start(name)
            code, said = cluster.exit_of(name)
            assert code == outcome_of(WrongAuthority).exit_code, said
            assert "nothing was sent" in said
            assert impostor.shook_hands > met, "it came to the stranger"
            assert token.split(".")[2].encode() not in impostor.heard
            assert uses_left(cluster, token, 1)
            trial.note(f"{name} asks the real ones")
            cluster.processes[name].settings["ENROL_AT"] = real
            cluster.start(name)
            cluster.until(partial(uses_left, cluster, token, 0), f"{name} is let in with the same token", JOINED_S)
        trial.settle(within_s=JOINED_S)
        cluster.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=COORDINATORS[2]), COORDINATORS[0])
        cluster.exit_of(COORDINATORS[2])
        del cluster.processes[COORDINATORS[2]]
        shutil.rmtree(cluster.root / COORDINATORS[2])


def create(cluster: LocalCluster, **fields: int) -> str:
    return cluster.call(CREATE_TOKEN, pb.CreateTokenRequest(**{"role": ROLE_AGENT, **fields})).token  # type: ignore[arg-type]


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
) -> tuple[list[str], list[type[CloudlessError]]]:
    """Use each token at each coordinator under another name; return those that let somebody in, and the refusals."""
    doors = [process.address("enrol") for process in cluster.coordinators]
    admitted: list[str] = []
    refusals: list[type[CloudlessError]] = []  # not the errors: each would hold its connection open

    async def use(at: int, token: str, name: str) -> None:
        directory, clock = IdentityDir(cluster.root / "tries" / name), SystemClock()

        async def order() -> list[str]:
            return [*doors[at:], *doors[:at]]

        await asyncio.sleep(random.uniform(0.0, SPREAD_S))
        try:
            async with asyncio.timeout(TRIED_S):
                await enrol_patiently(directory, token, name, Role.AGENT, order, ask_identity_service, clock)
            admitted.append(token)
        except CloudlessError as error:
            refusals.append(type(error))

    places = range(len(doors))
    tries = [use(at, token, f"r{number}-{n}-{at}") for n, token in enumerate(tokens) for at in places]
    tries += [use(random.choice(places), token, f"useless-{number}-{n}") for n, token in enumerate(useless)]
    await asyncio.gather(*tries)
    return admitted, refusals


def names_enrolled(cluster: LocalCluster) -> list[str]:
    identities = cluster.call(LIST_IDENTITIES, pb.ListIdentitiesRequest(kind="agent")).identities
    return [held.record.name for held in identities]


async def try_everywhere(
    cluster: LocalCluster, dialler: Dialler, victim: str, begun: threading.Event, enough: threading.Event
) -> dict[str, list[dict[str, grpc.StatusCode]]]:
    """Make every call at every coordinator, again and again until it is enough; return how each ended."""

    async def try_at(address: str) -> list[dict[str, grpc.StatusCode]]:
        passes: list[dict[str, grpc.StatusCode]] = []
        while not passes or not enough.is_set():
            begun.set()
            passes.append(
                await walk(address, dialler) | {f"Session of {victim}": await speak_for(address, dialler, victim)}
            )
        return passes

    names = [process.name for process in cluster.coordinators]
    told = await asyncio.gather(*(try_at(process.address()) for process in cluster.coordinators))
    return dict(zip(names, told, strict=True))


async def walk(address: str, dialler: Dialler) -> dict[str, grpc.StatusCode]:
    """Make every call at one coordinator; wait for an answer while it is down."""
    told = {}
    async with dialler.open(address) as channel:
        for service in SERVICES.values():
            for method in service.methods:
                while (code := await ended_with(channel, service.full_name, method)) is grpc.StatusCode.UNAVAILABLE:
                    await asyncio.sleep(AGAIN_S)
                told[method.name] = code
    return told


async def speak_for(address: str, dialler: Dialler, victim: str) -> grpc.StatusCode:
    """Open a session in another node's name; return how that ended."""
    while True:
        agent = RawAgent(victim, address, "nowhere", dialler)
        try:
            await agent.open()
            return grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                return error.code()
        finally:
            await agent.close()
        await asyncio.sleep(AGAIN_S)


def ends_of(cluster: LocalCluster, agent: str) -> Counter[str]:
    """Return how often a session of an agent has ended, by cause, as it counts itself."""
    found = re.findall(r'cloudless_agent_session_ends_total{cause="(\w+)"} ([\d.]+)', cluster.metrics_text(agent))
    return Counter({cause: int(float(count)) for cause, count in found})


def refusals_of(cluster: LocalCluster, agent: str) -> list[str]:
    """Return what the events say an agent was refused; each refusal is told once a minute."""
    events = cluster.call(LIST_EVENTS, ListEventsRequest(limit=1000)).events
    ours = [event for event in events if event.kind == "AccessRefused" and event.actor == f"agent/{agent}"]
    return [event.message for event in ours]


async def speak_carelessly(cluster: LocalCluster, impostor: Impostor) -> None:
    """Tell a stranger something as who trusts the CA it shows would."""
    request = pb.EnrolRequest(token=SPOKEN, name="careless")
    with contextlib.suppress(CloudlessError):  # the real coordinator behind it finds no sense in that
        await ask_identity_service(impostor.address, "Enrol", request, pb.EnrolResponse, impostor.roots_pem, None)


def add_newcomer(trial: Trial, name: str, role: int, door: str) -> str:
    """Declare a process with a good token that is let in at this door; return the token."""
    cluster = trial.cluster
    if role == ROLE_AGENT:
        cluster.add_agent(name, zone="zone-late")
    else:
        add_joiner(trial, name, cluster.coordinators[0].name)
    file = cluster.root / f"{name}.late-token"
    file.write_text(create(cluster, role=role))
    cluster.processes[name].settings |= {"ENROL_AT": door, "JOIN_TOKEN_FILE": str(file)}
    return file.read_text()


def uses_left(cluster: LocalCluster, token: str, count: int) -> bool:
    """Return whether a token has so many uses left."""
    listed = cluster.call(LIST_TOKENS, pb.ListTokensRequest(all=True)).tokens
    return any(one.id == token.split(".")[1] and one.uses_left == count for one in listed)
