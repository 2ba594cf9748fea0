"""Contexts: signing in makes one, commands go to the current one, and what is given on the command line comes first."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cloudless.adapters.pki import joining
from cloudless.adapters.pki.request import read_request
from cloudless.adapters.pki.vault import found
from cloudless.cli import methods
from cloudless.cli.contexts import Book, Context, ContextFile, config_dir
from cloudless.cli.main import cli
from cloudless.cli.signing_in import find_credentials, sign_in
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.tokens import Token
from cloudless.core.model import AuthorityPurpose
from cloudless.errors import BadCredentials, InvalidSpec, NotFound, Unavailable
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import node_pb2, objects_pb2, workload_pb2
from tests.unit.cli_coordinator import FakeCoordinator

NOW_MS = int(time.time() * 1000)
HOLDINGS = found("feedbeef", NOW_MS - 86_400_000)
TOKEN = Token("abcdefgh23", bytes(32), HOLDINGS.get_issuing(AuthorityPurpose.CLUSTER).pin)
PROD = Context(name="prod", coordinators=("10.0.0.1:8080",), namespace="team-a")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContextFile:
    monkeypatch.setenv("CLOUDLESS_CONFIG", str(tmp_path / "config"))
    return ContextFile()


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    made.answer(methods.LIST_NODES, node_pb2.ListNodesResponse())
    made.answer(methods.LIST_WORKLOADS, workload_pb2.ListWorkloadsResponse())
    yield made
    made.stop()


class Issuer:
    """Answers as IdentityService does, for a person or whoever a test wants."""

    def __init__(self, kind: IdentityKind = IdentityKind.PERSON) -> None:
        self.kind, self.now_ms = kind, NOW_MS
        self.asked: list[tuple[str, str]] = []
        self.down = False

    async def __call__(
        self, address: str, method: str, request: Any, answer: type[Any], roots_pem: bytes, own: Any
    ) -> Any:
        self.asked.append((address, method))
        if self.down:
            raise Unavailable("down")
        authority = HOLDINGS.open_issuing(AuthorityPurpose.CLUSTER)
        identity = Identity("feedbeef", self.kind, "ann")
        signed = authority.sign_identity(identity, read_request(request.csr_pem), self.now_ms)
        roots = HOLDINGS.roots_pem(AuthorityPurpose.CLUSTER)
        return answer(issued=pb.Issued(chain_pem=authority.chain_pem(signed), roots_pem=roots))


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(address: str, pin: str) -> str:
        assert pin == TOKEN.pin
        return HOLDINGS.roots_pem(AuthorityPurpose.CLUSTER)

    monkeypatch.setattr(joining, "fetch_pinned_root", fetch)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


# --- the book -----------------------------------------------------------------------------------


def test_a_book_is_read_back(file: ContextFile) -> None:
    assert file.load() == Book()
    book = Book().with_context(PROD, current=True).with_context(replace(PROD, name="test"), current=False)
    file.save(book)
    assert file.load() == book
    assert file.load().use("test").current == "test"
    with pytest.raises(NotFound, match="there is no context x"):
        book.use("x")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "contexts": {"a": 1}, "current": ""}', "\x00"]
)
def test_a_file_that_cannot_be_read_says_what_to_do(file: ContextFile, content: str) -> None:
    file.path.mkdir()
    (file.path / "contexts.json").write_text(content)
    with pytest.raises(BadCredentials):
        file.load()


def test_a_context_named_like_a_path_is_refused(file: ContextFile) -> None:
    file.path.mkdir()
    plain = {"format": 1, "current": "", "contexts": {"../x": {"coordinators": []}}}
    (file.path / "contexts.json").write_text(json.dumps(plain))
    with pytest.raises(InvalidSpec):
        file.load()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CLOUDLESS_CONFIG": "/x", "XDG_CONFIG_HOME": "/y"}, Path("/x")),
        ({"XDG_CONFIG_HOME": "/y"}, Path("/y/cloudless")),
        ({}, Path.home() / ".config" / "cloudless"),
    ],
)
def test_where_it_is_kept(environ: dict[str, str], expected: Path) -> None:
    assert config_dir(environ) == expected


# --- signing in ---------------------------------------------------------------------------------


def test_signing_in_makes_the_current_context_and_keeps_the_key_private(file: ContextFile) -> None:
    issuer = Issuer()
    made = sign_in(file, replace(PROD, join_addresses=("10.0.0.1:8443",)), TOKEN.text, "ann", issuer)
    assert (made.cluster_id, made.person) == ("feedbeef", "ann")
    assert file.load().current == "prod"
    assert issuer.asked == [("10.0.0.1:8443", "Enrol")]
    (key_file,) = [path for path in file.identity_path("prod").iterdir() if path.name == "identity.pem"]
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert TOKEN.text not in (file.path / "contexts.json").read_text()
    held = find_credentials(file, made, issuer, NOW_MS)
    assert held is not None
    assert held.identity.name == "ann"


def test_a_token_for_a_machine_signs_nobody_in(file: ContextFile) -> None:
    with pytest.raises(BadCredentials, match="not for a person"):
        sign_in(file, PROD, TOKEN.text, "ann", Issuer(IdentityKind.AGENT))
    assert file.load() == Book()
    assert find_credentials(file, PROD, Issuer()) is None


def test_credentials_are_renewed_on_use_and_survive_an_outage(file: ContextFile) -> None:
    issuer = Issuer()
    made = sign_in(file, replace(PROD, join_addresses=("10.0.0.1:8443",)), TOKEN.text, "ann", issuer)
    first = find_credentials(file, made, issuer, NOW_MS + 3_600_000)
    assert len(issuer.asked) == 1
    issuer.down, due_ms = True, NOW_MS + 50_000_000
    assert find_credentials(file, made, issuer, due_ms) == first
    with pytest.raises(Unavailable):
        find_credentials(file, made, issuer, NOW_MS + 2 * 86_400_000)
    issuer.down, issuer.now_ms = False, due_ms
    renewed = find_credentials(file, made, issuer, due_ms)
    assert renewed is not None
    assert renewed != first
    assert issuer.asked[-1] == ("10.0.0.1:8080", "Renew")
    issuer.now_ms = due_ms + 30 * 86_400_000
    assert find_credentials(file, made, issuer, issuer.now_ms) is not None
    assert issuer.asked[-1] == ("10.0.0.1:8443", "Reenrol")


# --- commands -----------------------------------------------------------------------------------


def test_commands_go_to_the_current_context_unless_told_otherwise(
    file: ContextFile, coordinator: FakeCoordinator
) -> None:
    here = replace(PROD, coordinators=(coordinator.address,))
    file.save(
        Book().with_context(here, current=True).with_context(replace(here, name="b", namespace="x"), current=False)
    )
    for words, namespace in (
        ((), "team-a"),
        (("--context", "b"), "x"),
        (("-n", "own"), "own"),
        (("-c", coordinator.address), ""),
        (("-c", coordinator.address, "--context", "prod"), "team-a"),
    ):
        assert run(*words, "workload", "list").exit_code == 0
        assert coordinator.requests[-1].namespace == namespace, words
    assert run("--context", "nowhere", "node", "list").exit_code == 4


def test_login_asks_for_the_token_and_names_the_person(file: ContextFile, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudless.cli import signing_in

    monkeypatch.setattr(signing_in.sign_in, "__defaults__", (Issuer(),))
    monkeypatch.setenv("USER", "Ann")
    result = CliRunner().invoke(cli, ["-c", "10.0.0.1:8080", "login", "--as", "prod"], input=TOKEN.text + "\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "signed in to cluster feedbeef as ann (context prod)\n"
    assert TOKEN.text not in result.output
    listed = run("context", "list")
    assert listed.stdout.splitlines()[1].split()[:4] == ["*", "prod", "ann", "feedbeef"]
    assert run("logout").stdout == "context/prod forgotten\n"
    assert not file.identity_path("prod").exists()
    assert run("logout").exit_code == 2


def test_contexts_are_switched_and_deleted(file: ContextFile) -> None:
    file.save(Book().with_context(PROD, current=True).with_context(replace(PROD, name="test"), current=False))
    assert run("context", "use", "test").exit_code == 0
    assert file.load().current == "test"
    assert run("context", "delete", "test").exit_code == 0
    assert file.load().current == ""
    assert run("context", "use", "test").exit_code == 4
    assert json.loads(run("context", "list", "-o", "json").stdout)[0]["namespace"] == "team-a"


def test_whoami(file: ContextFile, coordinator: FakeCoordinator) -> None:
    answer = pb.WhoAmIResponse(name="ann", role=objects_pb2.ROLE_OPERATOR, namespaces=["team-a"])
    coordinator.answer(methods.WHO_AM_I, answer)
    said = run("-c", coordinator.address, "whoami").stdout
    assert "ann" in said
    assert "operator" in said
    assert "team-a" in said
