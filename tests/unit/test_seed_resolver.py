"""What seeds stand for over time: answers kept for their TTL, and nothing lost while DNS cannot answer."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest

from cloudless.adapters.discovery.doors import Doors
from cloudless.adapters.discovery.lookup import Found, Kind, LookupFailed, MachineResolver, Record
from cloudless.adapters.discovery.resolver import (
    ENDPOINTS_MAX,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    TTL_EMPTY_MAX_S,
    TTL_MAX_S,
    SeedResolver,
)
from cloudless.core.discovery.endpoints import Endpoint
from cloudless.core.discovery.seeds import parse_seeds
from cloudless.testing.virtual_time import VirtualClock, virtually

NAME = "c.example.org"
SERVICE = "_c._tcp.example.org"


class FakeLookup:
    """Answers from `zone`; a name without an entry does not exist. Counts what it was asked."""

    def __init__(self, zone: dict[tuple[str, Kind], Found | LookupFailed]) -> None:
        self.zone = zone
        self.asked: list[tuple[str, Kind]] = []

    async def ask(self, name: str, kind: Kind) -> Found:
        self.asked.append((name, kind))
        await asyncio.sleep(0.01)
        answer = self.zone.get((name, kind), LookupFailed("there is no such name"))
        if isinstance(answer, LookupFailed):
            raise answer
        return answer


def hosts(*names: str, ttl_s: float = 60.0) -> Found:
    return Found(tuple(Record(name) for name in names), ttl_s)


def resolving(text: str, zone: dict[tuple[str, Kind], Any]) -> tuple[SeedResolver, FakeLookup]:
    lookup = FakeLookup(zone)
    return SeedResolver(parse_seeds(text), lookup, VirtualClock()), lookup


def addresses(resolver: SeedResolver) -> list[str]:
    return [endpoint.address for endpoint in resolver.current()]


@virtually
async def test_addresses_are_known_at_once_and_never_asked_for() -> None:
    resolver, lookup = resolving("10.0.0.1,[fd00::1]:9,node-1", {})
    assert addresses(resolver) == ["10.0.0.1:8080", "[fd00::1]:9", "node-1:8080"]
    only, _ = resolving("10.0.0.1", {})
    assert not await only.refresh()
    assert only.pause_s() == math.inf
    assert not lookup.asked


@virtually
async def test_a_name_in_dns_stands_for_all_its_addresses_of_both_families() -> None:
    zone = {(NAME, Kind.A): hosts("10.0.0.2", "10.0.0.1"), (NAME, Kind.AAAA): hosts("fd00::1")}
    resolver, _ = resolving(f"dns+{NAME}:9", zone)
    assert await resolver.refresh()
    assert addresses(resolver) == ["10.0.0.1:9", "10.0.0.2:9", "[fd00::1]:9"]
    assert not resolver.problems()


@virtually
async def test_a_service_stands_for_its_targets_with_their_ports_priorities_and_weights() -> None:
    zone = {
        (SERVICE, Kind.SRV): Found(
            (Record("b.x", 2, 20, 5), Record("a.x", 1, 10, 7), Record("10.0.0.9", 3, 20, 1)), 60
        ),
        ("a.x", Kind.A): hosts("10.0.0.1"),
        ("a.x", Kind.AAAA): hosts(),
        ("b.x", Kind.A): hosts("10.0.0.2", "10.0.0.3"),
    }
    resolver, _ = resolving(f"srv+{SERVICE}", zone)
    assert await resolver.refresh()
    assert resolver.current() == (
        Endpoint("10.0.0.1:1", 10, 7),
        Endpoint("10.0.0.2:2", 20, 5),
        Endpoint("10.0.0.3:2", 20, 5),
        Endpoint("10.0.0.9:3", 20, 1),
    )


@virtually
async def test_a_plain_name_stays_a_name_until_it_has_several_addresses() -> None:
    resolver, lookup = resolving("node-1", {("node-1", Kind.MACHINE): hosts("10.0.0.1", ttl_s=30)})
    assert not await resolver.refresh()
    assert addresses(resolver) == ["node-1:8080"]
    lookup.zone["node-1", Kind.MACHINE] = hosts("10.0.0.1", "10.0.0.2", ttl_s=30)
    await asyncio.sleep(31)
    assert await resolver.refresh()
    assert addresses(resolver) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    lookup.zone["node-1", Kind.MACHINE] = LookupFailed("no answer")
    await asyncio.sleep(31)
    assert not await resolver.refresh()
    assert addresses(resolver) == ["10.0.0.1:8080", "10.0.0.2:8080"]


@virtually
async def test_an_answer_is_kept_for_its_ttl_within_bounds() -> None:
    zone = {(NAME, Kind.A): hosts("10.0.0.1", ttl_s=40), (NAME, Kind.AAAA): hosts("fd00::1", ttl_s=90_000)}
    resolver, lookup = resolving(f"dns+{NAME}", zone)
    await resolver.refresh()
    assert 39 < resolver.pause_s() <= 40
    await asyncio.sleep(39)
    await resolver.refresh()
    assert len(lookup.asked) == 2
    await asyncio.sleep(2)
    await resolver.refresh()
    assert lookup.asked[2:] == [(NAME, Kind.A)]
    await asyncio.sleep(TTL_MAX_S)
    await resolver.refresh()
    assert (NAME, Kind.AAAA) in lookup.asked[3:]


@virtually
async def test_that_there_is_nothing_yet_is_asked_again_soon() -> None:
    zone = {(NAME, Kind.A): hosts(ttl_s=90_000), (NAME, Kind.AAAA): hosts(ttl_s=90_000)}
    resolver, _ = resolving(f"dns+{NAME}", zone)
    await resolver.refresh()
    assert resolver.unknown()
    assert resolver.pause_s() <= TTL_EMPTY_MAX_S


@virtually
async def test_an_answer_without_a_lifetime_is_not_asked_for_all_the_time() -> None:
    resolver, lookup = resolving(f"dns+{NAME}", {(NAME, Kind.A): hosts("10.0.0.1", ttl_s=0)})
    for _ in range(10):
        await resolver.refresh()
    assert lookup.asked.count((NAME, Kind.A)) == 1


@pytest.mark.parametrize(
    "outage", [LookupFailed("no DNS server answers"), LookupFailed("there is no such name"), hosts(ttl_s=1)]
)
def test_no_outage_and_no_empty_answer_takes_away_what_was_known(outage: Found | LookupFailed) -> None:
    @virtually
    async def run() -> None:
        zone: dict[tuple[str, Kind], Any] = {(NAME, Kind.A): hosts("10.0.0.1", "10.0.0.2"), (NAME, Kind.AAAA): hosts()}
        resolver, _ = resolving(f"dns+{NAME}", zone)
        await resolver.refresh()
        zone[NAME, Kind.A] = zone[NAME, Kind.AAAA] = outage
        for _ in range(20):
            await asyncio.sleep(TTL_MAX_S)
            assert not await resolver.refresh()
            assert addresses(resolver) == ["10.0.0.1:8080", "10.0.0.2:8080"]
            assert resolver.problems()
            assert not resolver.unknown()
        zone[NAME, Kind.A] = hosts("10.0.0.7")
        await asyncio.sleep(RETRY_MAX_S)
        assert await resolver.refresh()
        assert addresses(resolver) == ["10.0.0.7:8080"]

    run()


@virtually
async def test_one_family_that_fails_keeps_its_part_while_the_other_changes() -> None:
    zone: dict[tuple[str, Kind], Any] = {(NAME, Kind.A): hosts("10.0.0.1"), (NAME, Kind.AAAA): hosts("fd00::1")}
    resolver, _ = resolving(f"dns+{NAME}", zone)
    await resolver.refresh()
    zone[NAME, Kind.A], zone[NAME, Kind.AAAA] = hosts("10.0.0.2"), LookupFailed("no DNS server could answer")
    await asyncio.sleep(61)
    assert await resolver.refresh()
    assert addresses(resolver) == ["10.0.0.2:8080", "[fd00::1]:8080"]
    assert resolver.problems() == {f"dns+{NAME}:8080": f"{NAME}: no DNS server could answer"}


@virtually
async def test_a_failed_question_is_asked_again_after_a_growing_pause() -> None:
    resolver, lookup = resolving(f"dns+{NAME}", {})
    pauses = []
    for _ in range(8):
        await resolver.refresh()
        pauses.append(round(resolver.pause_s(), 3))
        await asyncio.sleep(pauses[-1])
    assert pauses[0] == pytest.approx(RETRY_FIRST_S, abs=0.01)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(RETRY_MAX_S, abs=0.01)
    assert len(lookup.asked) == 16
    assert resolver.problems() == resolver.unknown() == {f"dns+{NAME}:8080": f"{NAME}: there is no such name"}


@virtually
async def test_a_service_with_a_thousand_records_is_cut_to_a_bound() -> None:
    records = tuple(Record(f"10.0.{n // 250}.{n % 250}", 1) for n in range(1000))
    resolver, _ = resolving(f"srv+{SERVICE}", {(SERVICE, Kind.SRV): Found(records, 60)})
    await resolver.refresh()
    assert 1 < len(resolver.current()) <= ENDPOINTS_MAX


@virtually
async def test_many_who_refresh_at_once_ask_once() -> None:
    resolver, lookup = resolving(f"dns+{NAME}", {(NAME, Kind.A): hosts("10.0.0.1")})
    await asyncio.gather(*(resolver.refresh() for _ in range(20)))
    assert len(lookup.asked) == 2


@virtually
async def test_whoever_has_no_identity_finds_the_door_on_the_hosts_that_the_seeds_stand_for() -> None:
    zone: dict[tuple[str, Kind], Any] = {
        (SERVICE, Kind.SRV): Found((Record("a.x", 8080), Record("b.x", 9090)), 60),
        ("a.x", Kind.A): hosts("10.0.0.1"),
        ("b.x", Kind.AAAA): hosts("fd00::2"),
    }
    doors = Doors((), (f"srv+{SERVICE}", "node-1:8080", "node-1:8082"), 8070, FakeLookup(zone), VirtualClock())
    assert doors.current() == ["node-1:8070"]
    assert await doors.find() == doors.current() == ["10.0.0.1:8070", "[fd00::2]:8070", "node-1:8070"]


@virtually
async def test_a_door_that_is_named_is_the_only_one_and_keeps_its_port() -> None:
    zone: dict[tuple[str, Kind], Any] = {(SERVICE, Kind.SRV): Found((Record("10.0.0.9", 7777),), 60)}
    doors = Doors((f"srv+{SERVICE}",), ("10.0.0.1:8080",), 8070, FakeLookup(zone), VirtualClock())
    assert await doors.find() == ["10.0.0.9:7777"]


async def test_a_resolver_of_the_machine_that_hangs_holds_up_nobody_and_is_asked_once() -> None:
    release, calls = threading.Event(), list[str]()

    def hang(name: str, *_: object, **__: object) -> list[Any]:
        calls.append(name)
        release.wait(30)
        return [(0, 0, 0, "", ("10.0.0.1", 0)), (0, 0, 0, "", ("10.0.0.1", 0))]

    machine = MachineResolver(hang)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await machine.ask("node-1")
    last = asyncio.create_task(machine.ask("node-1"))
    await asyncio.sleep(0)
    release.set()
    assert (await last).records == (Record("10.0.0.1"),)
    assert calls == ["node-1"]


async def test_a_name_the_machine_does_not_know_is_said_so() -> None:
    def fail(*_: object, **__: object) -> list[Any]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(LookupFailed, match="Name or service not known"):
        await MachineResolver(fail).ask("node-1")
