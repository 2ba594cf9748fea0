"""A DNS server for tests, UDP on loopback: answers from a zone that a test changes, errs or keeps silent when told."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

HOST = "127.0.0.1"
PACKET_BYTES_MAX = 4096


@dataclass
class DnsServer:
    """`zone` is (name, type) → lines of data; a name without any entry does not exist.

    `rcode` (such as "SERVFAIL") answers everything with that; `silent` answers nothing. `asked` are all questions.
    """

    ttl_s: int = 0
    zone: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    rcode: str = ""
    silent: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    _socket: socket.socket | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def hold(self, name: str, kind: str, *data: str) -> None:
        self.zone[name, kind] = list(data)

    def start(self) -> None:
        self._socket = served = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        served.bind((HOST, self.port))
        self.port = served.getsockname()[1]
        threading.Thread(target=self._serve, args=(served,), daemon=True, name="dns-server").start()

    def stop(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a packet
            self._socket.close()
            self._socket = None

    def _serve(self, served: socket.socket) -> None:
        with suppress(OSError):
            while True:
                query, asker = served.recvfrom(PACKET_BYTES_MAX)
                if not query and self._socket is not served:
                    return
                with suppress(dns.exception.DNSException):
                    answer = self.answer(query)
                    if answer is not None:
                        served.sendto(answer, asker)

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
        held = self.zone.get((name, kind))
        alias = self.zone.get((name, "CNAME"))
        if self.rcode:
            reply.set_rcode(dns.rcode.from_text(self.rcode))
        elif alias:
            target = f"{alias[0]}."
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", "CNAME", target))
            if data := self.zone.get((alias[0], kind)):
                reply.answer.append(dns.rrset.from_text(target, self.ttl_s, "IN", kind, *data))
        elif held:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", kind, *held))
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()
