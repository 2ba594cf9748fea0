"""What is asked of a real DNS server, and what its answers, errors and silences are made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from cloudless.adapters.discovery.lookup import LOOKUP_TIMEOUT_S, Found, Kind, LookupFailed, NetworkLookup, Record
from cloudless.adapters.discovery.resolver import SeedResolver
from cloudless.adapters.system import SystemClock
from cloudless.core.discovery.endpoints import Endpoint
from cloudless.core.discovery.seeds import parse_seeds
from tests.integration.dns_server import HOST, DnsServer

pytestmark = pytest.mark.integration

NAME = "c.example.org"
SERVICE = "_cloudless._tcp.example.org"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    made = DnsServer(ttl_s=60)
    made.start()
    yield made
    made.stop()


def lookup_of(*servers: DnsServer) -> NetworkLookup:
    return NetworkLookup(tuple((HOST, one.port) for one in servers))


async def test_all_addresses_of_both_families_are_found_with_their_ttl(server: DnsServer) -> None:
    server.hold(NAME, "A", "10.0.0.1", "10.0.0.2")
    server.hold(NAME, "AAAA", "fd00::1")
    lookup = lookup_of(server)
    found = await lookup.ask(NAME, Kind.A)
    assert (sorted(record.host for record in found.records), found.ttl_s) == (["10.0.0.1", "10.0.0.2"], 60)
    assert await lookup.ask(NAME, Kind.AAAA) == Found((Record("fd00::1"),), 60)


async def test_an_alias_is_followed_and_holds_as_long_as_the_shorter_of_both(server: DnsServer) -> None:
    server.hold("alias.example.org", "CNAME", NAME)
    server.hold(NAME, "A", "10.0.0.1")
    assert await lookup_of(server).ask("alias.example.org", Kind.A) == Found((Record("10.0.0.1"),), 60)


async def test_services_are_found_with_port_priority_and_weight_and_a_dot_means_none(server: DnsServer) -> None:
    server.hold(SERVICE, "SRV", "10 60 8080 a.example.org.", "20 40 9090 b.example.org.")
    found = await lookup_of(server).ask(SERVICE, Kind.SRV)
    assert sorted(found.records, key=lambda record: record.priority) == [
        Record("a.example.org", 8080, 10, 60),
        Record("b.example.org", 9090, 20, 40),
    ]
    server.hold(SERVICE, "SRV", "0 0 0 .")
    assert (await lookup_of(server).ask(SERVICE, Kind.SRV)).records == ()


async def test_a_name_without_such_records_is_an_empty_answer_and_no_name_is_said_so(server: DnsServer) -> None:
    server.hold(NAME, "A", "10.0.0.1")
    assert (await lookup_of(server).ask(NAME, Kind.AAAA)).records == ()
    with pytest.raises(LookupFailed, match="there is no such name"):
        await lookup_of(server).ask("other.example.org", Kind.A)


async def test_a_server_that_errs_is_said_so(server: DnsServer) -> None:
    for rcode in ("SERVFAIL", "REFUSED"):
        server.rcode = rcode
        with pytest.raises(LookupFailed, match="no DNS server could answer"):
            await lookup_of(server).ask(NAME, Kind.A)


async def test_silence_is_given_up_in_time(server: DnsServer) -> None:
    server.silent = True
    began_s = time.monotonic()
    with pytest.raises(LookupFailed, match="no DNS server answers"):
        await lookup_of(server).ask(NAME, Kind.A)
    assert time.monotonic() - began_s < LOOKUP_TIMEOUT_S + 0.5


async def test_the_second_server_is_asked_when_the_first_errs(server: DnsServer) -> None:
    first = DnsServer(rcode="SERVFAIL")
    first.start()
    server.hold(NAME, "A", "10.0.0.1")
    try:
        assert (await lookup_of(first, server).ask(NAME, Kind.A)).records == (Record("10.0.0.1"),)
    finally:
        first.stop()


async def test_a_name_that_cannot_be_a_name_is_a_failed_lookup(server: DnsServer) -> None:
    with pytest.raises(LookupFailed):
        await lookup_of(server).ask("a" * 64 + ".example.org", Kind.A)


async def test_this_machines_own_names_are_found_without_dns(server: DnsServer) -> None:
    found = await lookup_of(server).ask("localhost", Kind.MACHINE)
    assert Record("127.0.0.1") in found.records
    assert not server.asked


async def test_a_service_changes_and_an_outage_takes_nothing_away(server: DnsServer) -> None:
    server.ttl_s = 0
    server.hold(SERVICE, "SRV", "10 1 8080 a.example.org.")
    server.hold("a.example.org", "A", "10.0.0.1")
    server.hold("b.example.org", "AAAA", "fd00::2")
    clock = _Hasty()
    resolver = SeedResolver(parse_seeds(f"srv+{SERVICE}"), lookup_of(server), clock)
    await resolver.refresh()
    assert resolver.current() == (Endpoint("10.0.0.1:8080", 10, 1),)
    server.hold(SERVICE, "SRV", "10 1 8080 a.example.org.", "20 1 9090 b.example.org.")
    clock.ahead_s += 10
    await resolver.refresh()
    assert resolver.current() == (Endpoint("10.0.0.1:8080", 10, 1), Endpoint("[fd00::2]:9090", 20, 1))
    server.rcode = "SERVFAIL"
    clock.ahead_s += 10
    assert not await resolver.refresh()
    assert len(resolver.current()) == 2
    assert "no DNS server could answer" in str(resolver.problems())


class _Hasty(SystemClock):
    """A clock that a test puts ahead, so that answers run out without waiting for them."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


async def test_many_lookups_at_once_are_answered(server: DnsServer) -> None:
    for number in range(50):
        server.hold(f"n{number}.example.org", "A", f"10.0.0.{number}")
    lookup = lookup_of(server)
    found = await asyncio.gather(*(lookup.ask(f"n{number}.example.org", Kind.A) for number in range(50)))
    assert [one.records[0].host for one in found] == [f"10.0.0.{number}" for number in range(50)]
