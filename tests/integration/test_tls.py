"""A cluster as `dev up` makes it: without credentials nothing answers but liveness and joining, and everybody does no
more than their part. Judged from outside by plain gRPC clients and by openssl.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory

from cloudless.adapters.grpc.channel import known_as, to_channel_credentials
from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import enrol
from cloudless.cli.dev.identities import credentials_of
from cloudless.cli.dev.layout import Layout
from cloudless.cli.dev.table import Table
from cloudless.coordinator.runtime import SERVICES
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.errors import CloudlessError, WrongAuthority
from cloudless.ports import Credentials
from tests.integration.test_dev_cluster import Cli

DENIED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
OPEN_TO_ALL = {"GetCa", "Enrol", "Reenrol"}
FOR_AGENTS = {"Session", "Renew", "WhoAmI"} | OPEN_TO_ALL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("tls") / "dev")
    done = cli.run("dev", "up", "--detach", "--port-offset", str(cli.offset), timeout_s=200)
    try:
        assert done.returncode == 0, done.stderr
        yield cli
    finally:
        cli.run("dev", "down", timeout_s=120)


@pytest.fixture
def layout(cluster: Cli) -> Layout:
    return Table.open(cluster.state_dir).layout


def identity_of(layout: Layout, name: str) -> Credentials:
    held = IdentityDir(layout.data_dir(name) / "identity").load()
    assert held is not None
    return held


def open_channel(address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(address, credentials, known_as(ANY_COORDINATOR))


async def outcome_of(channel: grpc.aio.Channel, service: str, method: Any) -> grpc.StatusCode:
    """Call a method with an empty request and return how that ended; of a stream, how it began."""
    path = f"/{service}/{method.name}"
    request = message_factory.GetMessageClass(method.input_type)()
    kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
    make = getattr(channel, kinds[method.client_streaming, method.server_streaming])
    call = make(path, lambda m: m.SerializeToString(), lambda raw: raw)
    # On a stream that is refused at its opening nothing is sent: gRPC's own error for that could be the first one told.
    started = call(timeout=2) if method.client_streaming else call(request, timeout=5)
    try:
        if method.server_streaming:
            if await started.read() is grpc.aio.EOF:
                return await started.code()
            started.cancel()
            return grpc.StatusCode.OK
        await started
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def outcomes(address: str, credentials: grpc.ChannelCredentials) -> dict[str, grpc.StatusCode]:
    async with open_channel(address, credentials) as channel:
        return {
            method.name: await outcome_of(channel, service.full_name, method)
            for service in SERVICES.values()
            for method in service.methods
        }


async def test_without_a_certificate_nothing_answers_but_liveness_and_joining(layout: Layout) -> None:
    roots = identity_of(layout, "coordinator-1").roots_pem
    nobody = grpc.ssl_channel_credentials(roots)
    async with grpc.aio.insecure_channel(layout.api_addresses[0]) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/cloudless.rpc.v1.ClusterService/GetStatus")(b"", timeout=5)
    async with open_channel(layout.api_addresses[0], nobody) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/cloudless.rpc.v1.ClusterService/GetStatus")(b"", timeout=5)
    found = await outcomes(layout.enrol_addresses[0], nobody)
    assert {name for name, code in found.items() if code not in DENIED} == OPEN_TO_ALL
    async with open_channel(layout.enrol_addresses[0], nobody) as channel:
        await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)


async def test_an_agents_certificate_opens_nothing_else_and_that_is_told(cluster: Cli, layout: Layout) -> None:
    agent = to_channel_credentials(identity_of(layout, "agent-1"))
    found = await outcomes(layout.api_addresses[1], agent)
    assert {name for name, code in found.items() if code not in DENIED} == FOR_AGENTS
    told = cluster.json("events")
    refused = [event for event in told if event["kind"] == "AccessRefused" and event["actor"] == "agent/agent-1"]
    assert any("ApplyWorkload" in event["message"] for event in refused)


def post_join(layout: Layout, who: str) -> dict[str, Any]:
    """Ask over HTTP to let coordinator-9 in, as `who`."""
    identity = IdentityDir(layout.data_dir(who) / "identity")
    context = ssl.create_default_context(cafile=str(identity.roots_file))
    context.load_cert_chain(identity.identity_file)
    connection = http.client.HTTPSConnection("127.0.0.1", layout.coordinators[0].http_port, context=context, timeout=5)
    context.check_hostname = False
    body = json.dumps({"nodeId": "coordinator-9", "raftAddress": "127.0.0.1:1"})
    connection.request("POST", "/v1/join", body)
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    return answer


def test_joining_over_http_goes_through_the_same_door(cluster: Cli, layout: Layout) -> None:
    assert post_join(layout, "agent-1")["code"] == "denied"
    refused = post_join(layout, "coordinator-2")
    assert (refused["code"], "may not speak for coordinator-9" in refused["detail"]) == ("denied", True)
    members = cluster.run("cluster", "members")
    assert members.returncode == 0
    assert "coordinator-9" not in members.stdout + members.stderr


async def test_a_wrong_pin_ends_the_joining_before_the_secret_is_sent(
    cluster: Cli, layout: Layout, tmp_path: Path
) -> None:
    token = cluster.run("token", "create", "--role", "agent").stdout.strip()
    scheme, token_id, secret, pin = token.split(".")
    wrong = ".".join((scheme, token_id, secret, ("a" if pin[0] != "a" else "b") + pin[1:]))
    with pytest.raises(WrongAuthority, match="nothing was sent"):
        await enrol(IdentityDir(tmp_path), wrong, "stranger", None, layout.enrol_addresses[:1], ask_identity_service)
    left = {one["id"]: one["usesLeft"] for one in cluster.json("token", "list")}
    assert left[token_id] == 1


async def test_a_token_shown_to_all_coordinators_at_once_lets_one_in(
    cluster: Cli, layout: Layout, tmp_path: Path
) -> None:
    token = cluster.run("token", "create", "--role", "agent").stdout.strip()

    async def try_in(number: int) -> str:
        address = layout.enrol_addresses[number % 3]
        directory = IdentityDir(tmp_path / str(number))
        try:
            await enrol(directory, token, f"twin-{number}", None, [address], ask_identity_service)
        except CloudlessError as error:
            return error.code
        return "in"

    results = await asyncio.gather(*(try_in(number) for number in range(9)))
    assert results.count("in") == 1, results
    known = [one["record"]["name"] for one in cluster.json("identity", "list")]
    assert sum(name.startswith("twin-") for name in known) == 1


def openssl(*words: str, said: str = "") -> str:
    done = subprocess.run(["openssl", *words], input=said.encode(), capture_output=True, check=False, timeout=20)
    return (done.stdout + done.stderr).decode(errors="replace")


def shake_hands(address: str, identity: Path, *options: str) -> str:
    own = ("-cert", f"{identity}/identity.pem", "-key", f"{identity}/identity.pem", "-CAfile", f"{identity}/roots.pem")
    return openssl("s_client", "-connect", address, "-alpn", "h2", *own, *options)


def test_openssl_finds_tls_1_2_or_newer_the_names_and_a_days_life(layout: Layout) -> None:
    identity = layout.data_dir("coordinator-1") / "identity"
    agent = layout.data_dir("agent-2") / "identity"
    for port in (layout.coordinators[0].api_port, layout.agents[1].api_port):
        said = shake_hands(f"127.0.0.1:{port}", identity)
        assert "Verification: OK" in said
        assert "Verify return code: 0 (ok)" in shake_hands(f"127.0.0.1:{port}", identity, "-tls1_2")
        assert "Cipher is (NONE)" in shake_hands(f"127.0.0.1:{port}", identity, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    for directory, names in (
        (
            identity,
            ["/coordinator/coordinator-1", "DNS:coordinator-1.coordinator.cloudless", "DNS:coordinator.cloudless"],
        ),
        (agent, ["/agent/agent-2", "DNS:agent-2.agent.cloudless"]),
    ):
        shown = openssl("x509", "-in", f"{directory}/identity.pem", "-noout", "-ext", "subjectAltName")
        assert shown.count("URI:spiffe://") == 1
        assert all(name in shown for name in names)
        assert "will expire" in openssl("x509", "-in", f"{directory}/identity.pem", "-noout", "-checkend", "86400")
        assert "will not" in openssl("x509", "-in", f"{directory}/identity.pem", "-noout", "-checkend", "80000")
        assert oct((directory / "identity.pem").stat().st_mode)[-3:] == "600"


async def test_etcd_answers_nobody_but_its_coordinator(layout: Layout) -> None:
    plan = layout.coordinators[0]
    agent = identity_of(layout, "agent-1")
    for credentials in (None, to_channel_credentials(agent)):
        address = f"127.0.0.1:{plan.etcd_port}"
        channel = grpc.aio.insecure_channel(address) if credentials is None else open_channel(address, credentials)
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/etcdserverpb.Maintenance/Status")(b"", timeout=5)
    assert "Cipher is (NONE)" not in openssl("s_client", "-connect", f"127.0.0.1:{plan.raft_port}")
    assert "alert" in openssl(
        "s_client", "-ign_eof", "-connect", f"127.0.0.1:{plan.raft_port}", said="GET /members HTTP/1.1\r\n\r\n"
    )


def test_a_person_without_identity_is_told_how_to_get_one(cluster: Cli, layout: Layout) -> None:
    done = cluster.run("-c", layout.api_addresses[0], "--timeout", "2", "workload", "list")
    assert done.returncode != 0
    assert credentials_of(layout) is not None
    assert cluster.json("whoami")["role"].lower().endswith("admin")
