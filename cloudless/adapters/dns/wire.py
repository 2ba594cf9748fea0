"""From the bytes of a question to those of an answer.

Whatever comes is answered or dropped, never an error: what is too short for a header or an answer itself is dropped,
what cannot be read gets FORMERR, what is no plain question NOTIMP. What does not fit a datagram is cut and marked so
(TC), and asked for again over TCP.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rrset

from cloudless.core.naming import Outcome, Question, Record, RecordType, Reply, ServiceAddress
from cloudless.errors import Unavailable

HEADER_BYTES = 12
DATAGRAM_BYTES_PLAIN, DATAGRAM_BYTES_MAX = 512, 1232
"""Without EDNS, and with: what passes everywhere without being taken apart."""
MESSAGE_BYTES_MAX = 65_535
_IN = dns.rdataclass.IN
_QR, _OPCODE, _RD = 0x8000, 0x7800, 0x0100
_REFRESH_S, _RETRY_S, _EXPIRE_S = 60, 10, 600
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
_RCODES = {
    Outcome.OK: dns.rcode.NOERROR,
    Outcome.NO_SUCH_NAME: dns.rcode.NXDOMAIN,
    Outcome.REFUSED: dns.rcode.REFUSED,
}
_TYPES = {getattr(dns.rdatatype, kind.value): kind for kind in RecordType if kind is not RecordType.OTHER}

Decide = Callable[[Question], Reply]
"""Answers a question. Raises Unavailable when it cannot be answered now."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How records are given out: under which domain, and for how long they may be kept."""

    domain: str
    ttl_s: int


def respond(raw: bytes, decide: Decide, terms: Terms, *, datagram: bool) -> bytes | None:
    """Return the answer to `raw`, None if it deserves none."""
    if len(raw) < HEADER_BYTES or _flags(raw) & _QR:
        return None
    if _flags(raw) & _OPCODE:
        return _refuse(raw, dns.rcode.NOTIMP)
    try:
        query = dns.message.from_wire(raw, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, LookupError, struct.error):
        return _refuse(raw, dns.rcode.FORMERR)
    if len(query.question) != 1:
        return _refuse(raw, dns.rcode.FORMERR)
    response = dns.message.make_response(query, our_payload=DATAGRAM_BYTES_MAX)
    if query.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
    else:
        _fill(response, decide, terms)
    size = _datagram_size(query) if datagram else MESSAGE_BYTES_MAX
    return response.to_wire(max_size=size, prefer_truncation=True, want_shuffle=False)


def _fill(response: Any, decide: Decide, terms: Terms) -> None:
    asked = response.question[0]
    if asked.rdclass != _IN or asked.rdtype in _TRANSFERS:
        response.set_rcode(dns.rcode.REFUSED)
        return
    name = asked.name.to_text(omit_final_dot=True).lower()
    try:
        reply = decide(Question(name, _TYPES.get(asked.rdtype, RecordType.OTHER)))
    except Unavailable:
        response.set_rcode(dns.rcode.SERVFAIL)
        return
    response.set_rcode(_RCODES[reply.outcome])
    if reply.outcome is not Outcome.REFUSED:
        response.flags |= dns.flags.AA
    # The name as it was asked, capitals and all: some resolvers check it.
    spelled = {name: asked.name}
    response.answer.extend(_to_rrsets(reply.answers, terms, spelled))
    response.authority.extend(_to_rrsets(reply.authority, terms, spelled))
    response.additional.extend(_to_rrsets(reply.additional, terms, spelled))


def _to_rrsets(records: Iterable[Record], terms: Terms, spelled: dict[str, Any]) -> Iterator[Any]:
    """Give the records as sets of one name and type each, in their order."""
    key = lambda record: (record.name, record.type.value)  # noqa: E731
    for (name, _), group in groupby(sorted(records, key=key), key):
        yield dns.rrset.from_rdata_list(
            spelled.get(name) or _to_name(name), terms.ttl_s, [_to_rdata(record, terms) for record in group]
        )


def _to_rdata(record: Record, terms: Terms) -> Any:
    value = record.value
    if isinstance(value, ServiceAddress):
        return dns.rdtypes.IN.SRV.SRV(
            _IN, dns.rdatatype.SRV, value.priority, value.weight, value.port, _to_name(value.target)
        )
    match record.type:
        case RecordType.A:
            return dns.rdtypes.IN.A.A(_IN, dns.rdatatype.A, value)
        case RecordType.AAAA:
            return dns.rdtypes.IN.AAAA.AAAA(_IN, dns.rdatatype.AAAA, value)
        case RecordType.NS:
            return dns.rdtypes.ANY.NS.NS(_IN, dns.rdatatype.NS, _to_name(value))
        case RecordType.CNAME:
            return dns.rdtypes.ANY.CNAME.CNAME(_IN, dns.rdatatype.CNAME, _to_name(value))
        case _:
            return dns.rdtypes.ANY.SOA.SOA(
                _IN, dns.rdatatype.SOA, _to_name(f"dns.{terms.domain}"), _to_name(f"hostmaster.{terms.domain}"),
                int(value), _REFRESH_S, _RETRY_S, _EXPIRE_S, terms.ttl_s,
            )  # fmt: skip


def _to_name(text: str) -> Any:
    return dns.name.from_text(text)


def _datagram_size(query: Any) -> int:
    if query.edns < 0:
        return DATAGRAM_BYTES_PLAIN
    return int(min(max(query.payload, DATAGRAM_BYTES_PLAIN), DATAGRAM_BYTES_MAX))


def _flags(raw: bytes) -> int:
    return int.from_bytes(raw[2:4])


def _refuse(raw: bytes, rcode: int) -> bytes:
    """Return an answer that repeats nothing but the id, what was wanted, and why not."""
    flags = _QR | (_flags(raw) & (_OPCODE | _RD)) | int(rcode)
    return raw[:2] + struct.pack("!HHHHH", flags, 0, 0, 0, 0)
