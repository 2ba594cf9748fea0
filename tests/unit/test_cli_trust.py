"""`token`, `identity` and `ca`: what they ask, what they print, and that a token stands alone on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cloudless.cli import methods
from cloudless.cli.main import cli
from cloudless.cli.spans import Span
from cloudless.core.identity.tokens import Token
from cloudless.errors import Conflict, Denied, NotFound
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1.cluster_pb2 import CoordinatorStatus, GetStatusResponse, RemoveMemberResponse
from tests.unit.cli_coordinator import FakeCoordinator

TOKEN = Token("abcdefgh23", bytes(32), "ab" * 32)
FAR_MS = 4_000_000_000_000


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    made.answer(methods.CREATE_TOKEN, pb.CreateTokenResponse(token=TOKEN.text, id=TOKEN.id, expires_at_ms=FAR_MS))
    made.answer(methods.REVOKE_TOKEN, pb.RevokeTokenResponse())
    made.answer(methods.REVOKE_IDENTITY, pb.RevokeIdentityResponse())
    yield made
    made.stop()


def run(coordinator: FakeCoordinator, *words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["--coordinator", coordinator.address, *words], input=stdin)


def test_a_new_token_stands_alone_on_stdout(coordinator: FakeCoordinator) -> None:
    result = run(coordinator, "token", "create")
    assert result.stdout == TOKEN.text + "\n"
    assert "cloudless agent run" in result.stderr
    assert TOKEN.text not in result.stderr
    (request,) = coordinator.requests
    assert (request.role, request.ttl_s, request.uses) == (objects_pb2.ROLE_AGENT, 3600, 1)
    assert request.options.request_id


def test_what_a_token_is_for_is_passed_on(coordinator: FakeCoordinator) -> None:
    run(
        coordinator, "token", "create", "--role", "operator", "--ttl", "7d", "--uses", "3", "--name", "ann", "--name",
        "b*", "--bind", "team-a", "--description", "for the team", "--request-id", "r1",
    )  # fmt: skip
    (request,) = coordinator.requests
    assert (request.role, request.ttl_s, request.uses) == (objects_pb2.ROLE_OPERATOR, 7 * 86_400, 3)
    assert (list(request.names), list(request.namespaces)) == (["ann", "b*"], ["team-a"])
    assert (request.description, request.options.request_id) == ("for the team", "r1")


def test_in_every_form_the_token_itself_is_printed(coordinator: FakeCoordinator) -> None:
    assert json.loads(run(coordinator, "token", "create", "-o", "json").stdout)["token"] == TOKEN.text
    assert run(coordinator, "token", "create", "-o", "name").stdout == TOKEN.text + "\n"


@pytest.mark.parametrize("ttl", ["x", "1w", "-1", "1.5h", ""])
def test_a_span_that_is_none_is_a_usage_error(coordinator: FakeCoordinator, ttl: str) -> None:
    result = run(coordinator, "token", "create", "--ttl", ttl)
    assert result.exit_code == 2
    assert not coordinator.requests


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("24h", 86_400), ("7D", 604_800)]
)
def test_spans(text: str, seconds: int) -> None:
    assert Span().convert(text, None, None) == seconds


def test_tokens_are_listed_without_secrets(coordinator: FakeCoordinator) -> None:
    listed = pb.Token(
        id=TOKEN.id, role=objects_pb2.ROLE_AGENT, uses_total=5, uses_left=2, expires_at_ms=FAR_MS, state="good"
    )
    coordinator.answer(methods.LIST_TOKENS, pb.ListTokensResponse(tokens=[listed]))
    result = run(coordinator, "token", "list", "--all")
    assert result.stdout.splitlines()[1].split()[:4] == [TOKEN.id, "agent", "good", "2/5"]
    assert coordinator.requests[0].all


def test_a_token_is_revoked_by_id_or_whole(coordinator: FakeCoordinator) -> None:
    result = run(coordinator, "token", "revoke", "someidsome", TOKEN.text)
    assert result.stdout == f"token/someidsome revoked\ntoken/{TOKEN.id} revoked\n"
    assert [request.id for request in coordinator.requests] == ["someidsome", TOKEN.id]


@pytest.mark.parametrize(("error", "code"), [(Denied("not you"), 6), (NotFound("no such"), 4)])
def test_refusals_have_their_exit_code(coordinator: FakeCoordinator, error: Any, code: int) -> None:
    coordinator.answer(methods.REVOKE_TOKEN, lambda _: error)
    assert run(coordinator, "token", "revoke", "x").exit_code == code


def test_identities_are_listed_and_revoked(coordinator: FakeCoordinator) -> None:
    record = objects_pb2.IdentityRecord(name="a1", role=objects_pb2.ROLE_AGENT, enrolled_by="abcdefgh23")
    answer = pb.ListIdentitiesResponse(identities=[pb.EnrolledIdentity(record=record, kind="agent")])
    coordinator.answer(methods.LIST_IDENTITIES, answer)
    line = run(coordinator, "identity", "list").stdout.splitlines()[1].split()
    assert line[:4] == ["agent", "a1", "agent", "enrolled"]
    assert run(coordinator, "identity", "list", "-o", "name").stdout == "identity/agent/a1\n"
    result = run(coordinator, "identity", "revoke", "agent", "a1", "--reason", "stolen")
    assert result.stdout == "agent/a1 revoked\n"
    assert coordinator.requests[-1].reason == "stolen"


def test_authorities_are_shown_and_replaced(coordinator: FakeCoordinator) -> None:
    authority = pb.Authority(
        id="cluster-1", purpose=objects_pb2.AUTHORITY_PURPOSE_ETCD_PEERS, phase=objects_pb2.AUTHORITY_PHASE_ISSUING,
        pin="ab" * 32, not_after_ms=FAR_MS, leaf_lifetime_s=86_400,
    )  # fmt: skip
    coordinator.answer(methods.GET_CA, pb.GetCaResponse(authorities=[authority]))
    coordinator.answer(methods.ROTATE_CA, pb.RotateCaResponse(authorities=[authority]))
    assert run(coordinator, "ca", "status").stdout.splitlines()[1].split()[:5] == [
        "cluster-1", "etcd-peers", "issuing", "-", "1d0h",
    ]  # fmt: skip
    assert run(coordinator, "ca", "rotate", "etcd-peers", "--leaf-lifetime", "2h").exit_code == 0
    assert list(coordinator.requests[-1].purposes) == [objects_pb2.AUTHORITY_PURPOSE_ETCD_PEERS]
    assert coordinator.requests[-1].leaf_lifetime_s == 7200


def test_the_cluster_key_is_replaced_and_waited_for(coordinator: FakeCoordinator) -> None:
    wanted, distributing = objects_pb2.KEY_PHASE_WANTED, objects_pb2.KEY_PHASE_DISTRIBUTING
    phases = iter([wanted, distributing, distributing, objects_pb2.KEY_PHASE_DONE])

    def tell(request: Any) -> pb.GetClusterKeyResponse:
        return pb.GetClusterKeyResponse(phase=next(phases), key="new", in_use="old", awaited=["c3"])

    coordinator.answer(methods.ROTATE_CLUSTER_KEY, pb.RotateClusterKeyResponse())
    coordinator.answer(methods.GET_CLUSTER_KEY, tell)
    result = run(coordinator, "ca", "rotate-key", "--request-id", "r1")
    assert result.exit_code == 0, result.output
    assert result.stdout == "cluster key: replaced; to be fetched on their return by c3\n"
    assert "waiting: the new key is handed out; without it: c3" in result.stderr
    assert coordinator.requests[0].options.request_id == "r1"


def test_the_cluster_key_is_shown(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.GET_CLUSTER_KEY, pb.GetClusterKeyResponse(in_use="abc"))
    assert run(coordinator, "ca", "key").stdout.split() == ["in", "use", "abc", "state", "never", "replaced"]
    assert json.loads(run(coordinator, "ca", "key", "-o", "json").stdout)["inUse"] == "abc"


def prepare_takeover(coordinator: FakeCoordinator) -> None:
    running = {"c1": coordinator.address, "c3": "127.0.0.1:1"}
    coordinator.answer(methods.GET_STATUS, status_of(running))
    coordinator.answer(methods.REMOVE_MEMBER, RemoveMemberResponse())
    coordinator.answer(methods.ROTATE_CLUSTER_KEY, pb.RotateClusterKeyResponse())
    coordinator.answer(methods.GET_CLUSTER_KEY, pb.GetClusterKeyResponse(phase=objects_pb2.KEY_PHASE_DONE))
    coordinator.answer(methods.ROTATE_CA, pb.RotateCaResponse())


def status_of(running: dict[str, str]) -> GetStatusResponse:
    records = [objects_pb2.CoordinatorRecord(id=name, api_address=address) for name, address in running.items()]
    return GetStatusResponse(coordinators=[CoordinatorStatus(record=record) for record in records])


def test_a_coordinator_is_not_asked_to_revoke_itself(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.GET_STATUS, status_of({"c3": coordinator.address}))
    result = run(coordinator, "identity", "revoke", "coordinator", "c3")
    assert (result.exit_code, "no coordinator but c3 is running" in result.stderr) == (3, True)
    assert [type(request).__name__ for request in coordinator.requests] == ["GetStatusRequest"]


def test_a_coordinator_that_was_taken_over_loses_all_it_had_in_that_order(coordinator: FakeCoordinator) -> None:
    prepare_takeover(coordinator)
    result = run(coordinator, "identity", "revoke", "coordinator", "c3", "--rotate", "--yes")
    assert result.exit_code == 0, result.output
    assert [type(request).__name__ for request in coordinator.requests] == [
        "GetStatusRequest", "RevokeIdentityRequest", "RemoveMemberRequest", "RotateClusterKeyRequest",
        "GetClusterKeyRequest", "RotateCaRequest",
    ]  # fmt: skip
    assert result.stdout.splitlines()[:4] == [
        "coordinator/c3 revoked",
        "coordinator/c3 removed",
        "cluster key: replaced, and all coordinators have the new key",
        "CAs: new ones are made known to everybody",
    ]


def test_the_same_said_again_goes_on_where_it_was_interrupted(coordinator: FakeCoordinator) -> None:
    prepare_takeover(coordinator)
    coordinator.answer(methods.REMOVE_MEMBER, lambda _: NotFound("no member belongs to c3"))
    coordinator.answer(methods.ROTATE_CA, lambda _: Conflict("the CA cluster-1 is being replaced already"))
    result = run(coordinator, "identity", "revoke", "coordinator", "c3", "--rotate", "--yes")
    assert result.exit_code == 0, result.output
    assert "coordinator/c3 has no member" in result.stdout
    assert "CAs: the CA cluster-1 is being replaced already" in result.stdout


def test_a_takeover_is_asked_about_first_and_concerns_coordinators_only(coordinator: FakeCoordinator) -> None:
    prepare_takeover(coordinator)
    assert run(coordinator, "identity", "revoke", "coordinator", "c3", "--rotate", stdin="n\n").exit_code != 0
    assert run(coordinator, "identity", "revoke", "agent", "a1", "--rotate", "--yes").exit_code == 2
    assert not coordinator.requests
    coordinator.answer(methods.REMOVE_MEMBER, lambda _: Conflict("removing c3 would endanger the quorum"))
    assert run(coordinator, "identity", "revoke", "coordinator", "c3", "--rotate", "--yes").exit_code != 0
    assert [type(request).__name__ for request in coordinator.requests] == [
        "GetStatusRequest", "RevokeIdentityRequest", "RemoveMemberRequest",
    ]  # fmt: skip


def test_in_a_hurry_one_is_asked_first(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.ROTATE_CA, pb.RotateCaResponse())
    assert run(coordinator, "ca", "rotate", "--hurry", stdin="n\n").exit_code != 0
    assert not coordinator.requests
    assert run(coordinator, "ca", "rotate", "--hurry", "--yes").exit_code == 0
    assert coordinator.requests[0].hurry
