"""IdentityService over a store in memory: tokens let in as often as they say, answers can be asked for again, and
nothing secret is stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.pki.certificate import read_peer
from cloudless.adapters.pki.credentials import build_credentials
from cloudless.adapters.pki.request import build_request, key_to_pem, new_key
from cloudless.adapters.pki.vault import found
from cloudless.core.identity.pacing import PLACE_TRIES_MAX
from cloudless.core.identity.tokens import find_token
from cloudless.core.keys import Kind
from cloudless.core.model import Role
from cloudless.errors import CloudlessError, Conflict, Denied, InvalidSpec, RateLimited, Unauthenticated, Unavailable
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.testing.faulty_store import REQUEST_LOST, always
from cloudless.testing.virtual_time import eventually, virtually
from tests.unit.identity.serving import CLUSTER_ID, HOLDINGS, Service, be, context, hash_of, serving

DAY_MS = 86_400_000


def kinds_told(service: Service) -> list[str]:
    return [event.kind for _, event in sorted(service.view.events.items())]


@virtually
async def test_a_token_becomes_a_certificate_that_its_holder_can_use(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        created = await service.create_token()
        key = new_key()
        answer = await service.enrol(created.token, "a1", key)
        made = build_credentials(answer.issued.chain_pem, key_to_pem(key), answer.issued.roots_pem)
        assert made.identity.uri == answer.issued.identity == f"spiffe://{CLUSTER_ID}/agent/a1"
        assert not answer.HasField("handover")
        assert kinds_told(service) == ["TokenCreated", "Enrolled"]
        token = find_token(created.token)
        assert token is not None
        assert token.pin == HOLDINGS.records[0].pin
        with pytest.raises(Denied, match="used up"):
            await service.enrol(created.token, "a2")
        await eventually(lambda: "AccessRefused" in kinds_told(service))


@virtually
async def test_a_token_shown_to_two_coordinators_at_once_lets_one_in(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        other = Service(service.cluster, tmp_path, own_id="c2")
        for _ in range(10):
            token = (await service.create_token()).token
            number = len(service.view.identities)
            results = await asyncio.gather(
                service.enrol(token, f"a{number}"), other.enrol(token, f"b{number}"), return_exceptions=True
            )
            assert [type(result) for result in results if isinstance(result, CloudlessError)] == [Denied]
            assert len(service.view.identities) == number + 1


@virtually
async def test_only_a_hash_of_the_secret_is_stored(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        created = await service.create_token(role="ROLE_COORDINATOR")
        await service.enrol(created.token, "c9")
        secrets = [created.token.encode(), created.token.split(".")[2].encode()]
        token = find_token(created.token)
        assert token is not None
        secrets += [token.secret, token.secret.hex().encode(), HOLDINGS.cluster_key.raw]
        for prefix in ("/cloudless/", "/cloudless-requests/"):
            page = await service.cluster.memory.read_page(prefix)
            assert page.kvs
            for kv in page.kvs:
                assert not any(secret in kv.value for secret in secrets), kv.key


@virtually
async def test_the_same_request_repeated_elsewhere_gives_the_same_token(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        other = Service(service.cluster, tmp_path, own_id="c2")
        options = WriteOptions(request_id="r1")
        first = await service.create_token(options=options)
        again = await other.create_token(options=options)
        assert (first.token, first.id) == (again.token, again.id)
        assert len(service.view.tokens) == 1
        with pytest.raises(Conflict):
            await other.create_token(options=options, uses=2)


@virtually
async def test_who_never_heard_the_answer_gets_it_again_with_the_same_key_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        token, key = (await service.create_token()).token, new_key()
        first = await service.enrol(token, "a1", key)
        again = await service.enrol(token, "a1", key)
        for answer in (first, again):
            assert read_peer(answer.issued.chain_pem.encode()).key_hash == hash_of(key)
        with pytest.raises(Denied):
            await service.enrol(token, "a1", new_key())


@virtually
async def test_a_joining_coordinator_is_handed_what_it_needs_to_sign(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        answer = await service.enrol((await service.create_token(role="ROLE_COORDINATOR")).token, "c2")
        assert answer.handover.cluster_key == HOLDINGS.cluster_key.raw
        assert [record.id for record in answer.handover.authorities] == ["cluster-1", "etcd-clients-1", "etcd-peers-1"]
        token = (await service.create_token()).token
        with pytest.raises(Denied):
            await service.enrol(token, "c3", role="ROLE_COORDINATOR")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"token": "x"}, "token"),
        ({"token": ""}, "token"),
        ({"name": "A"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "../a"}, "name"),
        ({"csr_pem": "x"}, "csr_pem"),
        ({"role": 77}, "role"),
    ],
)
def test_malformed_enrolments_are_refused_by_field(tmp_path: Path, fields: dict[str, Any], field: str) -> None:
    @virtually
    async def refused() -> None:
        async with serving(tmp_path) as service:
            token = (await service.create_token()).token
            good = {"token": token, "name": "a1", "csr_pem": build_request(new_key())}
            with pytest.raises(InvalidSpec, match=field) as error:
                await service.enrolment.Enrol(pb.EnrolRequest(**{**good, **fields}), context())
            assert token not in str(error.value)
            assert not service.view.identities

    refused()


@virtually
async def test_strangers_are_slowed_down_each_place_for_itself(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        request = pb.EnrolRequest(token="x")
        for _ in range(int(PLACE_TRIES_MAX)):
            with pytest.raises(InvalidSpec):
                await service.enrolment.Enrol(request, context())
        with pytest.raises(RateLimited):
            await service.enrolment.Enrol(request, context(peer="ipv4:10.0.0.9:1"))
        with pytest.raises(InvalidSpec):
            await service.enrolment.Enrol(request, context(peer="ipv6:[::1]:1"))


@virtually
async def test_a_coordinator_without_the_cluster_key_signs_nothing_and_spends_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        token = (await service.create_token()).token
        for holdings in (None, found(CLUSTER_ID, service.clock.wall_ms())):
            bare = Service(service.cluster, tmp_path, holdings, own_id=f"bare-{holdings is None}")
            with pytest.raises(Unavailable, match="cannot sign"):
                await bare.enrol(token)
            with pytest.raises(Unavailable, match="cannot sign"):
                await bare.create_token()
            assert (await bare.enrolment.GetCa(pb.GetCaRequest(), context())).roots_pem
        assert service.view.tokens[token.split(".")[1]].record.uses_left == 1


@virtually
async def test_a_certificate_is_renewed_without_a_write_and_without_a_quorum(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        key = new_key()
        answer = await service.enrol((await service.create_token()).token, "a1", key)
        revision = service.view.revision
        be(answer.issued)
        service.clock.ahead_ms = DAY_MS // 2
        service.cluster.store.choose = always(REQUEST_LOST)
        renewed = await service.enrolment.Renew(pb.RenewRequest(csr_pem=build_request(key)), context())
        assert service.view.revision == revision
        before, after = (read_peer(issued.chain_pem.encode()) for issued in (answer.issued, renewed.issued))
        assert after.identity == before.identity
        assert after.validity.not_after_ms - before.validity.not_after_ms >= DAY_MS // 2 - 2000
        assert after.serial != before.serial


@virtually
async def test_a_renewal_may_bring_a_new_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        key, fresh = new_key(), new_key()
        answer = await service.enrol((await service.create_token()).token, "a1", key)
        be(answer.issued)
        renewed = await service.enrolment.Renew(pb.RenewRequest(csr_pem=build_request(fresh)), context())
        assert read_peer(renewed.issued.chain_pem.encode()).key_hash == hash_of(fresh)
        assert service.view.identities["agent", "a1"].record.key_hashes == (hash_of(fresh), hash_of(key))
        assert kinds_told(service)[-1] == "KeyChanged"


@virtually
async def test_nobody_renews_without_a_certificate_or_once_revoked(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        key = new_key()
        answer = await service.enrol((await service.create_token()).token, "a1", key)
        with pytest.raises(Unauthenticated):
            await service.enrolment.Renew(pb.RenewRequest(csr_pem=build_request(key)), context())
        await service.admin.RevokeIdentity(
            pb.RevokeIdentityRequest(kind="agent", name="a1", reason="stolen"), context()
        )
        be(answer.issued)
        with pytest.raises(Denied, match="revoked"):
            await service.enrolment.Renew(pb.RenewRequest(csr_pem=build_request(key)), context())
        again = pb.ReenrolRequest(certificate_pem=answer.issued.chain_pem, csr_pem=build_request(key))
        with pytest.raises(Denied, match="revoked"):
            await service.enrolment.Reenrol(again, context())


@virtually
async def test_a_machine_comes_back_after_its_certificate_ran_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        key = new_key()
        answer = await service.enrol((await service.create_token()).token, "a1", key)
        service.clock.ahead_ms = 400 * DAY_MS
        back = await service.enrolment.Reenrol(
            pb.ReenrolRequest(certificate_pem=answer.issued.chain_pem, csr_pem=build_request(key)), context()
        )
        assert read_peer(back.issued.chain_pem.encode()).validity.not_after_ms > service.clock.wall_ms()
        with pytest.raises(Denied, match="another key"):
            await service.enrolment.Reenrol(
                pb.ReenrolRequest(certificate_pem=answer.issued.chain_pem, csr_pem=build_request(new_key())), context()
            )
        await eventually(lambda: "AccessRefused" in kinds_told(service))


@virtually
async def test_a_person_comes_back_within_a_month(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        key = new_key()
        answer = await service.enrol((await service.create_token(role="ROLE_VIEWER")).token, "ann", key)
        request = pb.ReenrolRequest(certificate_pem=answer.issued.chain_pem, csr_pem=build_request(key))
        service.clock.ahead_ms = 20 * DAY_MS
        assert (await service.enrolment.Reenrol(request, context())).issued.identity.endswith("/person/ann")
        service.clock.ahead_ms = 40 * DAY_MS
        with pytest.raises(Denied, match="too long ago"):
            await service.enrolment.Reenrol(request, context())


@pytest.mark.parametrize("pem", ["", "x", "é", HOLDINGS.records[0].certificate_pem])
def test_what_is_no_identitys_certificate_does_not_bring_back(tmp_path: Path, pem: str) -> None:
    @virtually
    async def refused() -> None:
        async with serving(tmp_path) as service:
            request = pb.ReenrolRequest(certificate_pem=pem, csr_pem=build_request(new_key()))
            with pytest.raises(InvalidSpec, match="certificate_pem"):
                await service.enrolment.Reenrol(request, context())

    refused()


@virtually
async def test_tokens_are_listed_with_their_state_and_revoked(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        made = [await service.create_token(ttl_s=ttl_s, description="x") for ttl_s in (60, 3600, 3600, 7200)]
        await service.enrol(made[1].token)
        await service.admin.RevokeToken(pb.RevokeTokenRequest(id=made[2].id), context())
        await service.admin.RevokeToken(pb.RevokeTokenRequest(id=made[2].id), context())
        service.clock.ahead_ms = 61_000
        shown = (await service.admin.ListTokens(pb.ListTokensRequest(all=True), context())).tokens
        states = {token.id: token.state for token in shown}
        assert [states[token.id] for token in made] == ["expired", "spent", "revoked", "good"]
        shown = (await service.admin.ListTokens(pb.ListTokensRequest(), context())).tokens
        assert [token.id for token in shown] == [made[3].id]
        with pytest.raises(Denied, match="revoked"):
            await service.enrol(made[2].token, "a3")
        assert kinds_told(service).count("TokenRevoked") == 1


@virtually
async def test_changes_say_who_made_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        ann = await service.enrol((await service.create_token(role="ROLE_ADMIN")).token, "ann")
        be(ann.issued, Role.ADMIN)
        created = await service.create_token()
        events = [event for event in service.view.events.values() if event.subject == f"token/{created.id}"]
        assert [event.actor for event in events] == ["person/ann"]
        assert service.view.tokens[created.id].record.created_by == "person/ann"
        who = await service.enrolment.WhoAmI(pb.WhoAmIRequest(), context())
        assert (who.name, who.role) == ("ann", objects_pb2.ROLE_ADMIN)


@virtually
async def test_a_ca_is_replaced_in_a_hurry_by_three_calls(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await service.admin.RotateCa(pb.RotateCaRequest(leaf_lifetime_s=600), context())
        for _ in range(2):
            answer = await service.admin.RotateCa(pb.RotateCaRequest(hurry=True), context())
        assert [authority.id for authority in answer.authorities] == ["cluster-2", "etcd-clients-2", "etcd-peers-2"]
        issued = (await service.enrol((await service.create_token()).token)).issued
        assert issued.roots_pem == answer.authorities[0].certificate_pem
        life = read_peer(issued.chain_pem.encode()).validity
        assert life.not_after_ms - life.not_before_ms == 660_000
        await eventually(lambda: service.vault.load().records == service.issuer.records())  # type: ignore[union-attr]


@virtually
async def test_while_a_ca_is_replaced_both_are_handed_out_and_no_second_replacement_begins(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await service.admin.RotateCa(pb.RotateCaRequest(purposes=[objects_pb2.AUTHORITY_PURPOSE_CLUSTER]), context())
        issued = (await service.enrol((await service.create_token()).token)).issued
        assert issued.roots_pem.count("BEGIN CERTIFICATE") == 2
        with pytest.raises(Conflict, match="being replaced"):
            await service.admin.RotateCa(pb.RotateCaRequest(), context())


@pytest.mark.parametrize("fields", [{"leaf_lifetime_s": 59}, {"leaf_lifetime_s": -1}, {"purposes": [0]}])
def test_a_faulty_replacement_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    @virtually
    async def refused() -> None:
        async with serving(tmp_path) as service:
            with pytest.raises(InvalidSpec):
                await service.admin.RotateCa(pb.RotateCaRequest(**fields), context())

    refused()


@virtually
async def test_no_watch_delivers_what_is_confidential(tmp_path: Path) -> None:
    from cloudless.coordinator.api.events import _parse_kinds
    from cloudless.rpc.v1 import event_pb2

    assert not _parse_kinds(event_pb2.WatchRequest()) & {Kind.TOKEN, Kind.AUTHORITY}
    for kind in ("token", "authority"):
        with pytest.raises(InvalidSpec):
            _parse_kinds(event_pb2.WatchRequest(kinds=[kind]))
