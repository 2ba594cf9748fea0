"""A DNS server for tests, UDP on loopback: answers from a zone that a test changes, errs or keeps silent when told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

HOST = "127.0.0.1"


@dataclass
class DnsServer:
    """`zone` is (name, type) → lines of data; a name without any entry does not exist.

    `rcode` (such as "SERVFAIL") answers everything with that; `silent` answers nothing. `asked` counts questions.
    """

    ttl_s: int = 0
    zone: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    rcode: str = ""
    silent: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    _transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def hold(self, name: str, kind: str, *data: str) -> None:
        self.zone[name, kind] = list(data)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Protocol(self), local_addr=(HOST, self.port))
        self.port = self._transport.get_extra_info("sockname")[1]

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def answer(self, query: bytes) -> bytes | None:
        """Return the answer to one packet, None for silence."""
        message = dns.message.from_wire(query)
        question = message.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.silent:
            return None
        reply = dns.message.make_response(message)
        reply.flags |= dns.flags.RA
        if self.rcode:
            reply.set_rcode(dns.rcode.from_text(self.rcode))
        elif (name, "CNAME") in self.zone:
            target = self.zone[name, "CNAME"][0]
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", "CNAME", f"{target}."))
            data = self.zone.get((target, kind), [])
            reply.answer.extend([dns.rrset.from_text(f"{target}.", self.ttl_s, "IN", kind, *data)] if data else [])
        elif data := self.zone.get((name, kind)):
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", kind, *data))
        elif not any(held == name for held, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self._server.answer(data)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, address)
