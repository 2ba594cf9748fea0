"""Whom a coordinator without a cluster finds to ask, and what it makes of who answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from cloudless.adapters.discovery.lookup import Found, Kind, LookupFailed, Record
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.learned import Learned
from cloudless.adapters.member.marker import Marker, MarkerState
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.system import SystemClock
from cloudless.coordinator.neighbours import SEEDS_WAIT_S, Neighbours, describe_failures
from cloudless.core.discovery.learned import AGE_MAX_MS, Known
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.settings import CoordinatorSettings

NOW_MS = SystemClock().wall_ms()


class World:
    """Who answers where, and what DNS says."""

    def __init__(self) -> None:
        self.at: dict[str, pb.GetFormationResponse] = {}
        self.names: dict[str, list[str]] = {}
        self.hangs = False

    async def answer(self, addresses: Iterable[str]) -> dict[str, pb.GetFormationResponse]:
        return {address: self.at[address] for address in addresses if address in self.at}

    async def ask(self, name: str, kind: Kind) -> Found:
        if self.hangs:
            await asyncio.sleep(3600)
        if name not in self.names:
            raise LookupFailed("there is no such name")
        return Found(tuple(Record(host) for host in self.names[name] if kind is Kind.A), 60)

    def neighbours(self, path: Path, *seeds: str) -> Neighbours:
        settings = CoordinatorSettings(node_id="c1", advertise_address="a:1", join_addresses=seeds, data_dir=path)
        return Neighbours(settings, DataDir(path), self.answer, self)


def answer(id: str, phase: str = "member", cluster: str = "x", instance: str = "") -> pb.GetFormationResponse:
    return pb.GetFormationResponse(
        node_id=id, phase=phase, etcd_cluster_id=cluster, instance_id=instance or f"i-{id}",
    )  # fmt: skip


async def test_seeds_and_what_was_learned_are_asked_and_oneself_is_told_by_the_answer(tmp_path: Path) -> None:
    world = World()
    world.names["all.example.org"] = ["10.0.0.1", "10.0.0.2"]
    learned = (Known("c1", "old:1", NOW_MS), Known("c3", "c:1", NOW_MS), Known("c4", "d:1", NOW_MS - 2 * AGE_MAX_MS))
    Learned("x", learned).write(DataDir(tmp_path).coordinators)
    one = world.neighbours(tmp_path, "dns+all.example.org:1", "a:1", "b:1")
    assert sorted(await one.addresses()) == ["10.0.0.1:1", "10.0.0.2:1", "b:1", "c:1"]
    world.at = {
        "10.0.0.1:1": answer("c1", "fresh", "", one.instance_id),
        "10.0.0.2:1": answer("c2"),
        "b:1": answer("c5", "fresh", ""),
    }
    round = await one.ask()
    assert (round.who.own, round.members, round.silent) == (("10.0.0.1:1",), ["10.0.0.2:1"], ["c:1"])
    assert one.remembered() == ["c:1"]
    assert describe_failures(round, {"10.0.0.2:1": "not now"}, one.unresolved()) == (
        "10.0.0.2:1: not now; b:1: c5 belongs to no cluster itself; c:1: no answer; 10.0.0.1:1: this coordinator itself"
    )


async def test_who_knows_others_is_not_held_up_by_dns_and_a_seed_not_looked_up_yet_stands_for_somebody(
    tmp_path: Path,
) -> None:
    world = World()
    world.at = {"b:1": answer("c2")}
    world.hangs = True
    one = world.neighbours(tmp_path, "dns+all.example.org:1", "b:1")
    async with asyncio.timeout(2 * SEEDS_WAIT_S):
        assert (await one.ask()).members == ["b:1"]
    assert one.unresolved() == ["dns+all.example.org:1 (cannot be looked up: not asked yet)"]


async def test_a_node_of_another_start_under_our_id_is_not_ourselves(tmp_path: Path) -> None:
    world = World()
    one = world.neighbours(tmp_path, "b:1")
    world.at = {"b:1": answer("c1", instance="another start")}
    assert (await one.ask()).members == ["b:1"]


async def test_nobody_to_ask_is_said_so_and_a_name_nobody_knows_is_somebody(tmp_path: Path) -> None:
    world = World()
    nobody = world.neighbours(tmp_path, "a:1")
    assert not nobody.any
    assert describe_failures(await nobody.ask(), {}, []) == "no other coordinator is known"
    unknown = world.neighbours(tmp_path, "dns+gone.example.org:1")
    assert unknown.any
    said = describe_failures(await unknown.ask(), {}, unknown.unresolved())
    assert said == "dns+gone.example.org:1 (cannot be looked up: gone.example.org: there is no such name)"


async def test_a_node_that_belonged_to_a_cluster_is_not_let_into_another(tmp_path: Path) -> None:
    world = World()
    world.at = {"b:1": answer("c2", cluster="other"), "c:1": answer("c3", "lost", "x")}
    Marker(state=MarkerState.BOOTSTRAPPED, cluster_id="x").write(DataDir(tmp_path).marker)
    round = await world.neighbours(tmp_path, "b:1", "c:1").ask()
    assert round.members == []
    assert round.who.refusal == "this node belongs to cluster x, the addresses lead to another: other at b:1"


async def test_a_directory_of_an_earlier_version_still_leads_to_the_others(tmp_path: Path) -> None:
    Progress(addresses={"c2": "b:1"}).write(DataDir(tmp_path).progress)
    assert await World().neighbours(tmp_path).addresses() == ["b:1"]
