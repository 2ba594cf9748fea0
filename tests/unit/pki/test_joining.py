"""Getting and keeping an identity: the pin before the secret, one key, and always another try."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.pki import joining
from cloudless.adapters.pki.authority import Authority
from cloudless.adapters.pki.certificate import hash_key
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import IdentityKeeper, enrol, enrol_patiently
from cloudless.adapters.pki.request import read_request
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.vault import Holdings, found
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.tokens import Token
from cloudless.core.model import AuthorityPurpose, Role
from cloudless.errors import BadCredentials, CloudlessError, Denied, Unavailable, WrongAuthority
from cloudless.rpc.v1 import identity_pb2 as pb

CLUSTER = AuthorityPurpose.CLUSTER
DAY_MS = 86_400_000
NOW_MS = int(time.time() * 1000)
OURS, THEIRS = found("ours", NOW_MS), found("theirs", NOW_MS)
TOKEN = Token("abcdefgh23", bytes(32), OURS.get_issuing(CLUSTER).pin)


class Wall:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    def wall_ms(self) -> int:
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


class Coordinators:
    """Answers by address: holdings that sign, or an error."""

    def __init__(self, wall: Wall, **by_address: Holdings | CloudlessError) -> None:
        self.by_address, self.wall = by_address, wall
        self.calls: list[tuple[str, str, bool]] = []
        self.name = "a1"
        self.hands_over = False
        self.asked_for: list[str] = []

    async def fetch_root(self, address: str, pin: str) -> str:
        held = self.by_address[address]
        if isinstance(held, CloudlessError):
            raise held
        if held.get_issuing(CLUSTER).pin != pin:
            raise WrongAuthority("another cluster")
        return held.roots_pem(CLUSTER)

    async def ask(
        self, address: str, method: str, request: Any, answer: type[Any], roots_pem: bytes, own: Credentials | None
    ) -> Any:
        self.calls.append((address, method, own is not None))
        held = self.by_address[address]
        if isinstance(held, CloudlessError):
            raise held
        authority: Authority = held.open_issuing(CLUSTER)
        identity = Identity(held.cluster_id, IdentityKind.AGENT, self.name)
        key = read_request(request.csr_pem)
        self.asked_for.append(hash_key(key))
        signed = authority.sign_identity(identity, key, self.wall.now_ms)
        issued = pb.Issued(chain_pem=authority.chain_pem(signed), roots_pem=held.roots_pem(CLUSTER))
        return answer(issued=issued, handover=pb.Handover()) if self.hands_over else answer(issued=issued)


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def scripted(wall: Wall, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Coordinators]:
    def build(**by_address: Holdings | CloudlessError) -> Coordinators:
        made = Coordinators(wall, **by_address)
        monkeypatch.setattr(joining, "fetch_pinned_root", made.fetch_root)
        return made

    return build


async def join(directory: IdentityDir, coordinators: Coordinators, token: str = TOKEN.text) -> Credentials:
    return await enrol(directory, token, "a1", Role.AGENT, list(coordinators.by_address), coordinators.ask)


async def test_an_identity_is_got_from_the_first_that_can(tmp_path: Path, scripted: Any) -> None:
    coordinators = scripted(c1=Unavailable("down"), c2=OURS)
    made = await join(IdentityDir(tmp_path / "id"), coordinators)
    assert IdentityDir(tmp_path / "id").load() == made
    assert coordinators.calls == [("c2", "Enrol", False)]


def found_at(*addresses: str) -> Callable[[], Awaitable[Sequence[str]]]:
    async def find() -> Sequence[str]:
        return addresses

    return find


async def test_who_starts_before_the_coordinators_waits_for_them(tmp_path: Path, scripted: Any, wall: Wall) -> None:
    coordinators = scripted(c1=Unavailable("starting"))
    sleep = wall.sleep

    async def sleep_until_it_has_started(seconds: float) -> None:
        await sleep(seconds)
        if wall.now_ms > NOW_MS + 60_000:
            coordinators.by_address["c1"] = OURS

    wall.sleep = sleep_until_it_has_started  # type: ignore[method-assign]
    directory = IdentityDir(tmp_path / "id")
    made = await enrol_patiently(directory, TOKEN.text, "a1", Role.AGENT, found_at("c1"), coordinators.ask, wall)
    assert made.identity.name == "a1"
    coordinators.by_address["c1"] = Denied("used up")
    with pytest.raises(Denied):
        await enrol_patiently(directory, TOKEN.text, "a1", Role.AGENT, found_at("c1"), coordinators.ask, wall)


async def test_what_is_handed_over_is_kept_before_the_identity_and_a_crash_between_asks_with_the_same_key(
    tmp_path: Path, scripted: Any
) -> None:
    coordinators = scripted(c1=OURS)
    coordinators.hands_over = True
    directory = IdentityDir(tmp_path / "id")
    taken: list[Identity] = []

    def disk_full(handover: pb.Handover, identity: Identity) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        await enrol(directory, TOKEN.text, "a1", Role.AGENT, ["c1"], coordinators.ask, disk_full)
    assert directory.load() is None
    made = await enrol(
        directory, TOKEN.text, "a1", Role.AGENT, ["c1"], coordinators.ask, lambda _, identity: taken.append(identity)
    )
    assert taken == [made.identity]
    assert len(coordinators.asked_for) == 2
    assert len(set(coordinators.asked_for)) == 1


async def test_at_a_wrong_cluster_nothing_is_sent_and_nobody_else_is_tried(tmp_path: Path, scripted: Any) -> None:
    coordinators = scripted(c1=THEIRS, c2=OURS)
    with pytest.raises(WrongAuthority):
        await join(IdentityDir(tmp_path / "id"), coordinators)
    assert coordinators.calls == []


async def test_a_refusal_is_final_and_the_key_is_kept_for_another_try(tmp_path: Path, scripted: Any) -> None:
    directory = IdentityDir(tmp_path / "id")
    coordinators = scripted(c1=OURS)
    coordinators.by_address["c1"] = Denied("used up")
    with pytest.raises(Denied):
        await join(directory, coordinators)
    key = (directory.path / "next.key").read_bytes()
    coordinators.by_address["c1"] = OURS
    assert (await join(directory, coordinators)).key_pem == key


@pytest.mark.parametrize("token", ["", "cl1.x", TOKEN.text[:-1]])
async def test_half_a_token_is_noticed_here(tmp_path: Path, scripted: Any, token: str) -> None:
    with pytest.raises(BadCredentials, match="join token"):
        await join(IdentityDir(tmp_path / "id"), scripted(c1=OURS), token)


async def test_an_answer_for_somebody_else_is_refused(tmp_path: Path, scripted: Any) -> None:
    coordinators = scripted(c1=OURS)
    coordinators.name = "a2"
    directory = IdentityDir(tmp_path / "id")
    with pytest.raises(BadCredentials, match="not for a1"):
        await join(directory, coordinators)
    assert directory.load() is None


async def test_it_is_renewed_at_half_life_for_ever_and_its_key_stays(tmp_path: Path, scripted: Any, wall: Wall) -> None:
    coordinators = scripted(c1=OURS)
    directory = IdentityDir(tmp_path / "id")
    held = await join(directory, coordinators)
    changes: list[Credentials] = []
    keeper = IdentityKeeper(directory, held, lambda: ["c1"], coordinators.ask, wall, changes.append)
    while wall.now_ms < NOW_MS + 5 * DAY_MS:
        await wall.sleep(await keeper.step())
        assert keeper.credentials.days_left(wall.now_ms) > 0.4
    assert 9 <= len(changes) <= 14
    assert {change.key_hash for change in changes} == {held.key_hash}
    assert {call[1:] for call in coordinators.calls[1:]} == {("Renew", True)}
    assert directory.load() == changes[-1]


async def test_an_outage_longer_than_the_certificate_is_survived(tmp_path: Path, scripted: Any, wall: Wall) -> None:
    coordinators = scripted(c1=OURS)
    directory = IdentityDir(tmp_path / "id")
    changes: list[Credentials] = []
    held = await join(directory, coordinators)
    keeper = IdentityKeeper(directory, held, lambda: ["c1"], coordinators.ask, wall, changes.append)
    coordinators.by_address["c1"] = Unavailable("down")
    while wall.now_ms < NOW_MS + 2 * DAY_MS:
        await wall.sleep(await keeper.step())
    assert keeper.failures_in_a_row > 20
    assert "down" in keeper.last_error
    coordinators.by_address["c1"] = OURS
    while not changes:
        await wall.sleep(await keeper.step())
    assert wall.now_ms < NOW_MS + 2 * DAY_MS + 60_000
    assert coordinators.calls[-1] == ("c1", "Reenrol", False)
    assert keeper.failures_in_a_row == 0


def test_a_coordinator_signs_for_itself_when_it_is_due_or_the_ca_has_changed(tmp_path: Path) -> None:
    directory = IdentityDir(tmp_path / "id")
    first = sign_own(OURS, "c1", directory, NOW_MS)
    assert first.identity.uri == "spiffe://ours/coordinator/c1"
    assert sign_own(OURS, "c1", directory, NOW_MS + DAY_MS // 4) == first
    due = sign_own(OURS, "c1", directory, NOW_MS + DAY_MS // 2)
    assert due != first
    assert due.key_hash == first.key_hash
    other = sign_own(found("ours", NOW_MS), "c1", directory, NOW_MS + DAY_MS // 2)
    assert other.roots_pem != due.roots_pem
    (directory.path / "identity.pem").write_bytes(b"broken")
    assert sign_own(OURS, "c1", directory, NOW_MS).identity == first.identity
