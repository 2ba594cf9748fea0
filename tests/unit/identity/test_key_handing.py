"""A new cluster key goes from coordinator to coordinator, and is on every disk before anything is sealed with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.pki.certificate import read_peer
from cloudless.adapters.pki.etcd_files import EtcdFiles
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.vault import Vault
from cloudless.adapters.system import RandomIds
from cloudless.coordinator.api.caller import Presence, set_presence
from cloudless.coordinator.api.cluster_key import ClusterKeys
from cloudless.coordinator.key_keeper import KeyKeeper
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.own_identity import OwnIdentity
from cloudless.coordinator.trust_keeper import TrustKeeper
from cloudless.core import keys
from cloudless.core.identity.access import Caller
from cloudless.core.identity.key_rotation import KEPT_MS, MAKE_ANEW_AFTER_S, PATIENCE_MS, find_key_rotation
from cloudless.core.model import AuthorityPurpose, CoordinatorRecord, IdentityRecord, KeyPhase, KeyRotationRecord, Role
from cloudless.errors import Conflict, Denied, NotFound, Unavailable
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.identity.serving import HOLDINGS, Service, context, serving
from tests.unit.leading import CLOCK

ALL = ("c1", "c2", "c3")
OLD = HOLDINGS.cluster_key.name


@dataclass
class World:
    """Three coordinators' keys over one store. `up` are those that answer; `members` those that etcd has."""

    service: Service
    folder: Path
    coordinators: dict[str, Coordinator]
    up: set[str]
    members: set[str]
    stack: AsyncExitStack

    def names(self) -> frozenset[str]:
        return frozenset(self.members)

    async def refresh(self) -> None:
        return None

    @property
    def phase(self) -> KeyPhase | None:
        found = find_key_rotation(self.service.view)
        return found.phase if found is not None else None

    @property
    def new_key(self) -> str:
        found = find_key_rotation(self.service.view)
        return found.key if found is not None else ""

    def sealed_with(self) -> set[str]:
        return {held.record.sealed_with for held in self.service.view.authorities.values()}

    async def start(self, name: str) -> None:
        """Start a coordinator, with what is on its disk."""
        self.coordinators[name] = Coordinator(self, name)
        self.up.add(name)
        await self.service.cluster.put(keys.coordinator(name), CoordinatorRecord(id=name, api_address=name))
        await self.stack.enter_async_context(running(*self.coordinators[name].parts()))

    async def lead(self, name: str) -> None:
        await self.stack.enter_async_context(running(self.coordinators[name].leading()))

    async def rotate(self) -> None:
        await self.coordinators["c1"].keys.RotateClusterKey(pb.RotateClusterKeyRequest(), context())

    def ahead(self, ms: int) -> None:
        for one in self.coordinators.values():
            one.service.clock.ahead_ms += ms


class Coordinator:
    """One of them: its vault, its keeper of keys, its own identity."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, cluster = world, name, world.service.cluster
        folder = world.folder / name
        self.directory = IdentityDir(folder / "identity")
        if Vault(folder / name).load() is None:
            Vault(folder / name).keep(HOLDINGS)
        self.service = Service(cluster, folder, holdings=None, own_id=name)
        self.issuer = self.service.issuer
        self.keys = ClusterKeys(self.service.access, self.issuer, world)
        self.keeper = KeyKeeper(name, self.service.view, self.issuer, self.fetch, self.service.clock)
        self.own = OwnIdentity(
            name, self.directory, EtcdFiles(folder / "etcd"), lambda: ["10.0.0.1"], self.service.clock
        )
        kept = self.service.vault.load()
        assert kept is not None
        self.own.sign(kept)  # as before there is state
        for part in (self.issuer, self.keeper, self.own):
            cluster.replica.listen(part.on_applied)

    def parts(self) -> tuple[Coroutine[Any, Any, None], ...]:
        find, cluster = self.issuer.get_holdings, self.service.cluster
        return self.issuer.run(), self.keeper.run(), self.own.run(find, self.service.view, cluster.committer)

    def leading(self) -> Coroutine[Any, Any, None]:
        lease = RollingLease(self.service.cluster.store, self.service.clock)
        keeper = TrustKeeper(
            self.name, self.service.cluster.replica, self.issuer, lease, self.service.clock, RandomIds(),
            self.world.names,
        )  # fmt: skip
        return keeper.run(1, self.service.cluster.committer)

    async def fetch(self, address: str, name: str) -> bytes:
        """Ask another one as the guard would let this one in."""
        if address not in self.world.up or self.name not in self.world.up:
            raise Unavailable(f"{address} does not answer")
        peer = read_peer(self.own.credentials.chain_pem)
        set_presence(Presence(Caller(self.name, Role.COORDINATOR), peer))
        other = self.world.coordinators[address]
        return bytes((await other.keys.FetchClusterKey(pb.FetchClusterKeyRequest(name=name), context())).cluster_key)

    @property
    def kept(self) -> list[str]:
        """The names of the keys on its disk, the one in use first."""
        holdings = Vault(self.service.vault.path).load()
        assert holdings is not None
        return [key.name for key in holdings.keys]

    def opens_all_after_a_restart(self) -> bool:
        holdings = Vault(self.service.vault.path).load()
        assert holdings is not None
        return all(holdings.open_issuing(purpose) for purpose in AuthorityPurpose)


@asynccontextmanager
async def three(folder: Path, *down: str) -> AsyncIterator[World]:
    """Run three coordinators on record, c1 leading; those that are `down` are on record and do not run."""
    async with serving(folder) as service, AsyncExitStack() as stack:
        world = World(service, folder, {}, set(), set(ALL), stack)
        for name in ALL:
            if name not in down:
                await world.start(name)
            else:
                record = IdentityRecord(name=name, role=Role.COORDINATOR, cluster_keys=(OLD,))
                await service.cluster.put(keys.identity("coordinator", name), record)
        await eventually(lambda: {("coordinator", name) for name in ALL} <= set(service.view.identities))
        await world.lead("c1")
        yield world


@virtually
async def test_the_new_key_is_everywhere_before_anything_is_sealed_with_it(tmp_path: Path) -> None:
    async with three(tmp_path) as world:
        sealed: list[set[str]] = []
        held: list[dict[str, list[str]]] = []

        def note(applied: object) -> None:
            sealed.append(world.sealed_with())
            held.append({name: one.kept for name, one in world.coordinators.items()})

        world.service.cluster.replica.listen(note)
        await world.rotate()
        await eventually(lambda: world.phase is KeyPhase.DONE)
        assert world.sealed_with() == {world.new_key} != {OLD}
        assert {OLD} in sealed
        assert all(len(names) == 1 for names in sealed), "all of them are sealed anew at once"
        first = sealed.index({world.new_key})
        assert all(world.new_key in kept for kept in held[first].values())
        for one in world.coordinators.values():
            await eventually(lambda one=one: one.kept == [world.new_key, OLD])  # type: ignore[misc]
            assert one.opens_all_after_a_restart()
        world.ahead(KEPT_MS)
        for one in world.coordinators.values():
            await eventually(lambda one=one: one.kept == [world.new_key])  # type: ignore[misc]
            assert one.opens_all_after_a_restart()
            assert one.issuer.get_authority().record.sealed_with == world.new_key


@virtually
async def test_it_is_replaced_again_by_a_key_never_seen_before(tmp_path: Path) -> None:
    async with three(tmp_path) as world:
        seen = {OLD}
        for _ in range(3):
            await world.rotate()
            await eventually(lambda: world.phase is KeyPhase.DONE)
            assert world.new_key not in seen
            seen.add(world.new_key)


@virtually
async def test_the_key_itself_is_nowhere_in_the_store(tmp_path: Path) -> None:
    async with three(tmp_path) as world:
        await world.rotate()
        await eventually(lambda: world.phase is KeyPhase.DONE)
        key = world.coordinators["c2"].issuer.find_key(world.new_key)
        assert key is not None
        written = [repr(event).encode() for event in world.service.cluster.memory.events_after(0)]
        assert any(key.name.encode() in event for event in written)
        for form in (repr(key.raw)[2:-1].encode(), key.raw.hex().encode()):
            assert not any(form in event for event in written)


@virtually
async def test_who_was_away_fetches_it_on_its_return(tmp_path: Path) -> None:
    async with three(tmp_path, "c3") as world:
        await world.rotate()
        await eventually(lambda: world.phase is KeyPhase.DONE)
        status = await world.coordinators["c2"].keys.GetClusterKey(pb.GetClusterKeyRequest(), context())
        assert (status.phase, list(status.awaited)) == (objects_pb2.KEY_PHASE_DONE, ["c3"])
        assert status.in_use == status.key == world.new_key
        await world.start("c3")
        third = world.coordinators["c3"]
        await eventually(lambda: third.kept == [world.new_key, OLD])
        assert third.opens_all_after_a_restart()
        known = world.service.view.identities
        await eventually(lambda: world.new_key in known["coordinator", "c3"].record.cluster_keys)
        status = await third.keys.GetClusterKey(pb.GetClusterKeyRequest(), context())
        assert not status.awaited


@virtually
async def test_one_that_cannot_fetch_is_waited_for_and_then_left_behind(tmp_path: Path) -> None:
    async with three(tmp_path) as world:
        world.up.discard("c3")  # registered, but no call gets through
        await world.rotate()
        await eventually(lambda: world.phase is KeyPhase.DISTRIBUTING)
        await CLOCK.sleep(30)
        assert world.sealed_with() == {OLD}
        world.ahead(PATIENCE_MS)
        await eventually(lambda: world.phase is KeyPhase.DONE)
        third = world.coordinators["c3"]
        with pytest.raises(Unavailable, match="cannot sign"):
            third.issuer.get_cluster_key()
        with pytest.raises(Unavailable, match="cannot sign"):
            third.issuer.build_handover()
        world.up.add("c3")
        await eventually(lambda: third.kept == [world.new_key, OLD])


@virtually
async def test_a_leader_that_dies_with_the_only_copy_is_followed_by_one_that_makes_another(tmp_path: Path) -> None:
    async with three(tmp_path) as world:
        lost = ClusterKey.new().name
        now_ms = world.service.clock.wall_ms()
        record = KeyRotationRecord(phase=KeyPhase.DISTRIBUTING, phase_since_ms=now_ms, key=lost)
        await world.service.cluster.put(keys.KEY_ROTATION, record)
        await CLOCK.sleep(MAKE_ANEW_AFTER_S / 2)
        assert world.new_key == lost
        await eventually(lambda: world.phase is KeyPhase.DONE)
        assert world.new_key != lost
        assert world.sealed_with() == {world.new_key}


@virtually
async def test_a_new_leader_goes_on_where_the_old_one_was(tmp_path: Path) -> None:
    async with three(tmp_path, "c3") as world:
        world.up.discard("c2")
        await world.rotate()
        await eventually(lambda: world.phase is KeyPhase.DISTRIBUTING)
        announced = world.new_key
        world.up.add("c2")
        await world.lead("c2")
        await eventually(lambda: world.phase is KeyPhase.DONE)
        assert world.new_key == announced


@virtually
async def test_the_key_is_for_coordinators_on_record_only(tmp_path: Path) -> None:
    async with three(tmp_path) as world:
        second, third = world.coordinators["c2"], world.coordinators["c3"]
        record = world.service.view.identities["coordinator", "c3"].record
        await world.service.cluster.put(
            keys.identity("coordinator", "c3"), replace(record, revoked_at_ms=world.service.clock.wall_ms())
        )
        with pytest.raises(Denied, match="coordinator/c3 gets no cluster key"):
            await third.fetch("c2", OLD)
        await world.service.cluster.put(keys.identity("coordinator", "c3"), replace(record, key_hashes=("other",)))
        with pytest.raises(Denied):
            await third.fetch("c2", OLD)
        forged = sign_own(HOLDINGS, "c9", IdentityDir(tmp_path / "forged"), world.service.clock.wall_ms())
        set_presence(Presence(Caller("c9", Role.COORDINATOR), read_peer(forged.chain_pem)))
        with pytest.raises(Denied, match="coordinator/c9"):
            await second.keys.FetchClusterKey(pb.FetchClusterKeyRequest(name=OLD), context())
        assert await second.fetch("c1", OLD) == HOLDINGS.cluster_key.raw
        with pytest.raises(NotFound):
            await second.fetch("c1", ClusterKey.new().name)


@virtually
async def test_a_wrong_key_is_not_believed(tmp_path: Path) -> None:
    async with three(tmp_path, "c3") as world:
        second, asked = world.coordinators["c2"], []

        async def lie(address: str, name: str) -> bytes:
            asked.append(name)
            return ClusterKey.new().raw if len(asked) % 2 else b"short"

        second.keeper._fetch = lie
        await world.rotate()
        await eventually(lambda: len(asked) > 4)
        assert second.kept == [OLD]
        assert world.sealed_with() == {OLD}


@virtually
async def test_nothing_is_begun_while_a_revoked_coordinator_has_a_member(tmp_path: Path) -> None:
    async with three(tmp_path) as world:
        record = world.service.view.identities["coordinator", "c3"].record
        await world.service.cluster.put(
            keys.identity("coordinator", "c3"), replace(record, revoked_at_ms=world.service.clock.wall_ms())
        )
        with pytest.raises(Conflict, match="c3 was revoked"):
            await world.rotate()
        world.members.discard("c3")
        world.up.discard("c3")
        await world.rotate()
        await eventually(lambda: world.phase is KeyPhase.DONE)
        assert world.new_key not in world.coordinators["c3"].kept


@virtually
async def test_a_token_made_before_can_be_asked_for_again_after(tmp_path: Path) -> None:
    """Its text is remembered sealed under the old key."""
    async with three(tmp_path) as world:
        request = pb.CreateTokenRequest(role=objects_pb2.ROLE_AGENT)
        request.options.request_id = "once"
        set_presence(None)
        made = await world.coordinators["c1"].service.admin.CreateToken(request, context())
        await world.rotate()
        await eventually(lambda: world.phase is KeyPhase.DONE)
        again = await world.coordinators["c2"].service.admin.CreateToken(request, context())
        assert again.token == made.token
