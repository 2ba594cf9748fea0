"""The DNS responder over real sockets, asked by dnspython's own client and by those who mean no good."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import dns.asyncquery
import dns.asyncresolver
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.nameserver
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.resolver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.adapters.dns.limits import DnsLimits
from cloudless.adapters.dns.server import DnsServer
from cloudless.adapters.dns.wire import DATAGRAM_BYTES_PLAIN, Terms, respond
from cloudless.adapters.system import SystemClock
from cloudless.core.naming import Asker, Question, Reply, Zone, answer
from cloudless.errors import PortInUse, Unavailable
from cloudless.testing.builders import TestCluster
from tests.unit.naming.cluster import add_task, build_cluster

TERMS = Terms("cloudless", 5)
WEB = "web.default.svc.cloudless."
HTTP = f"_http._tcp.{WEB}"
CLUSTER = build_cluster()


def answer_of(raw: bytes, *, datagram: bool = True, cluster: TestCluster = CLUSTER) -> bytes | None:
    def decide(question: Question) -> Reply:
        return answer(cluster.machine, Zone("cloudless"), question, Asker())

    return respond(raw, decide, TERMS, datagram=datagram)


def ask(query: dns.message.Message, **how: object) -> dns.message.Message:
    found = answer_of(query.to_wire(), **how)  # type: ignore[arg-type]
    assert found is not None
    return dns.message.from_wire(found)


class Responder:
    """A listening server on a free port."""

    def __init__(self, limits: DnsLimits | None = None, cluster: TestCluster = CLUSTER) -> None:
        self.cluster = cluster
        self.server = DnsServer("127.0.0.1:0", self._respond, SystemClock(), limits)
        self.port = 0

    def _respond(self, raw: bytes, client: str, datagram: bool) -> bytes | None:
        return answer_of(raw, datagram=datagram, cluster=self.cluster)

    async def udp(self, query: dns.message.Message, timeout_s: float = 5.0) -> dns.message.Message:
        return await dns.asyncquery.udp(query, "127.0.0.1", timeout_s, self.port, ignore_unexpected=True)

    async def tcp(self, query: dns.message.Message) -> dns.message.Message:
        return await dns.asyncquery.tcp(query, "127.0.0.1", 5.0, self.port)

    def resolver(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [dns.nameserver.Do53Nameserver("127.0.0.1", self.port)]
        resolver.lifetime = 5.0
        return resolver


@pytest.fixture
async def responder() -> AsyncIterator[Responder]:
    made = Responder()
    made.port = await made.server.start()
    yield made
    await made.server.stop()


# --- asked as it should be ---


async def test_a_resolver_finds_addresses_services_and_the_lack_of_them(responder: Responder) -> None:
    resolver = responder.resolver()
    found = await resolver.resolve(WEB, "A")
    assert {record.address for record in found} == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}
    assert found.rrset is not None
    assert found.rrset.ttl == TERMS.ttl_s
    services = await resolver.resolve(HTTP, "SRV")
    assert sorted(record.port for record in services) == [20_001, 20_002, 20_003, 20_004]
    target = sorted(services, key=lambda record: record.port)[0].target
    assert [record.address for record in await resolver.resolve(target, "A")] == ["10.0.0.1"]
    with pytest.raises(dns.resolver.NoAnswer):
        await resolver.resolve(WEB, "AAAA")
    with pytest.raises(dns.resolver.NXDOMAIN):
        await resolver.resolve(f"no-{WEB}", "A")


async def test_udp_and_tcp_say_the_same_with_authority_and_the_question_as_it_was_spelled(responder: Responder) -> None:
    query = dns.message.make_query("wEb.Default.sVc.cloudless.", "A")
    for response in (await responder.udp(query), await responder.tcp(query)):
        assert response.flags & dns.flags.AA
        assert not response.flags & (dns.flags.RA | dns.flags.TC)
        assert response.question[0].name.to_text() == "wEb.Default.sVc.cloudless."
        assert response.answer[0].name.to_text() == "wEb.Default.sVc.cloudless."


async def test_what_does_not_fit_a_datagram_is_marked_and_whole_over_tcp() -> None:
    cluster = build_cluster()
    for number in range(60):
        add_task(cluster, f"web-{number:03d}", "n1", http=21_000 + number)
    made = Responder(cluster=cluster)
    made.port = await made.server.start()
    try:
        query = dns.message.make_query(HTTP, "SRV")
        cut = await made.udp(query)
        assert cut.flags & dns.flags.TC
        whole = await made.tcp(query)
        assert not whole.flags & dns.flags.TC
        assert len(whole.answer[0]) == 64
        assert len(await made.resolver().resolve(HTTP, "SRV")) == 64, "a resolver comes again over TCP by itself"
        raw = answer_of(query.to_wire(), cluster=cluster)
        assert raw is not None
        assert len(raw) <= DATAGRAM_BYTES_PLAIN
    finally:
        await made.server.stop()


def test_addresses_always_fit_the_smallest_datagram() -> None:
    cluster = build_cluster()
    for number in range(60):
        add_task(cluster, f"web-{number:03d}", "n1")
        cluster.report(f"web-{number:03d}", cluster.machine.tasks["web-n1"].state, host=f"10.1.0.{number}")  # type: ignore[arg-type]
    response = ask(dns.message.make_query(WEB, "A"), cluster=cluster)
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 16


def test_edns_is_answered_in_kind_and_an_unknown_version_refused() -> None:
    response = ask(dns.message.make_query(WEB, "A", use_edns=0, payload=4096))
    assert (response.edns, response.payload) == (0, 1232)
    query = dns.message.make_query(WEB, "A")
    query.use_edns(1)
    assert ask(query).rcode() == dns.rcode.BADVERS
    assert ask(dns.message.make_query(WEB, "A")).edns == -1


def test_nothing_and_no_such_name_carry_the_soa_whose_minimum_is_how_long_that_may_be_kept() -> None:
    for name, rcode in ((WEB, dns.rcode.NOERROR), (f"no-{WEB}", dns.rcode.NXDOMAIN)):
        response = ask(dns.message.make_query(name, "AAAA"))
        assert response.rcode() == rcode
        (soa,) = response.authority
        assert (soa.rdtype, soa[0].minimum, soa.ttl) == (dns.rdatatype.SOA, TERMS.ttl_s, TERMS.ttl_s)


@pytest.mark.parametrize(
    ("query", "rcode"),
    [
        (dns.message.make_query("example.org.", "A"), dns.rcode.REFUSED),
        (dns.message.make_query(WEB, "A", "CH"), dns.rcode.REFUSED),
        (dns.message.make_query("cloudless.", "AXFR"), dns.rcode.REFUSED),
        (dns.message.make_query("cloudless.", "IXFR"), dns.rcode.REFUSED),
    ],
)
def test_what_is_none_of_our_business_is_refused(query: dns.message.Message, rcode: int) -> None:
    assert ask(query).rcode() == rcode
    assert not ask(query).flags & dns.flags.AA


def test_who_cannot_tell_says_so() -> None:
    def cannot(question: Question) -> Reply:
        raise Unavailable("the state is old")

    raw = respond(dns.message.make_query(WEB, "A").to_wire(), cannot, TERMS, datagram=True)
    assert raw is not None
    assert dns.message.from_wire(raw).rcode() == dns.rcode.SERVFAIL


# --- asked as it should not be ---


def header(flags: int, questions: int = 0) -> bytes:
    return struct.pack("!HHHHHH", 0x1234, flags, questions, 0, 0, 0)


@pytest.mark.parametrize(
    ("raw", "rcode"),
    [
        (b"", None),
        (b"x" * 11, None),
        (header(0x8000), None),
        (header(0x0000), dns.rcode.FORMERR),
        (header(0x0000, 1), dns.rcode.FORMERR),
        (header(0x2800), dns.rcode.NOTIMP),
        (header(0x2000), dns.rcode.NOTIMP),
        (header(0, 1) + b"\xc0\x0c\x00\x01\x00\x01", dns.rcode.FORMERR),
        (header(0, 2) + 2 * b"\x01a\x00\x00\x01\x00\x01", dns.rcode.FORMERR),
    ],
)
def test_what_is_no_question_is_dropped_or_refused(raw: bytes, rcode: int | None) -> None:
    found = answer_of(raw)
    if rcode is None:
        assert found is None
        return
    assert found is not None
    assert found[:2] == b"\x12\x34"
    assert dns.message.from_wire(found).rcode() == rcode


@given(st.binary(max_size=600), st.booleans())
def test_no_bytes_whatever_break_it(raw: bytes, datagram: bool) -> None:
    found = answer_of(raw, datagram=datagram)
    assert found is None or (found[:2] == raw[:2] and found[2] & 0x80)


@given(st.data())
def test_no_damaged_question_breaks_it(data: st.DataObject) -> None:
    query = dns.message.make_query(data.draw(st.sampled_from([WEB, HTTP, "cloudless."])), "ANY", use_edns=0)
    raw = bytearray(query.to_wire())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    found = answer_of(cut)
    assert found is None or found[:2] == cut[:2]


async def test_one_that_asks_too_much_is_not_answered_and_keeps_nobody_else_waiting() -> None:
    limits = DnsLimits(client_per_s=1.0, client_burst=5.0, all_per_s=1_000.0, all_burst=1_000.0, question_s=1.0)
    made = Responder(limits)
    made.port = await made.server.start()
    query = dns.message.make_query(WEB, "A")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.bind(("127.0.0.2", 0))
            for _ in range(200):
                flood.sendto(query.to_wire(), ("127.0.0.1", made.port))
            assert (await made.udp(query)).rcode() == dns.rcode.NOERROR
            flood.setblocking(False)
            answered = 0
            while True:
                try:
                    flood.recv(2_000)
                    answered += 1
                except BlockingIOError:
                    break
            assert 5 <= answered <= 7
    finally:
        await made.server.stop()


async def test_all_together_get_no_more_than_the_bound_and_it_goes_on_afterwards() -> None:
    limits = replace(DnsLimits(), all_per_s=100.0, all_burst=10.0, full_pause_s=0.01, question_s=1.0)
    made = Responder(limits)
    made.port = await made.server.start()
    query = dns.message.make_query(WEB, "A")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            for _ in range(100):
                flood.sendto(query.to_wire(), ("127.0.0.1", made.port))
            response = await made.udp(query, timeout_s=20.0)
            assert response.rcode() == dns.rcode.NOERROR
    finally:
        await made.server.stop()


async def test_a_question_that_takes_long_counts_as_several() -> None:
    made = Responder(DnsLimits(client_per_s=1.0))
    answer = made.server._respond

    def slowly(raw: bytes, client: str, datagram: bool) -> bytes | None:
        ends_s = time.thread_time() + 0.03
        while time.thread_time() < ends_s:
            pass
        return answer(raw, client, datagram)

    made.server._respond = slowly
    made.port = await made.server.start()
    query = dns.message.make_query(WEB, "A")
    try:
        answered = 0
        with suppress(dns.exception.Timeout):
            for _ in range(40):
                await made.udp(query, timeout_s=2.0)
                answered += 1
        assert 2 <= answered < 20, "of four hundred short ones"
    finally:
        await made.server.stop()


async def test_a_client_gets_a_few_connections_and_an_idle_one_is_closed() -> None:
    limits = replace(DnsLimits(), connections_client_max=2, idle_s=0.2)
    made = Responder(limits)
    made.port = await made.server.start()
    try:
        opened = [await asyncio.open_connection("127.0.0.1", made.port) for _ in range(3)]
        async with asyncio.timeout(5.0):
            assert await opened[2][0].read() == b"", "one too many is closed at once"
            assert [await reader.read() for reader, _ in opened[:2]] == [b"", b""], "the others once they are idle"
        for _, writer in opened:
            writer.close()
        query = dns.message.make_query(WEB, "A")
        assert (await made.tcp(query)).rcode() == dns.rcode.NOERROR
    finally:
        await made.server.stop()


async def test_several_questions_on_one_connection_are_answered_and_a_huge_one_ends_it(responder: Responder) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", responder.port)
    raw = dns.message.make_query(WEB, "A").to_wire()
    async with asyncio.timeout(5.0):
        for _ in range(3):
            writer.write(len(raw).to_bytes(2) + raw)
            found = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            assert dns.message.from_wire(found).rcode() == dns.rcode.NOERROR
        writer.write(b"\xff\xff")
        assert await reader.read() == b""
    writer.close()


async def test_a_port_that_is_taken_is_said_with_the_setting_that_cures_it(responder: Responder) -> None:
    second = DnsServer(f"127.0.0.1:{responder.port}", lambda raw, client, datagram: None, SystemClock())
    with pytest.raises(PortInUse) as error:
        await second.start()
    assert "CLOUDLESS_DNS_ADDR" in error.value.hint
