"""What the cluster's domain answers to a question of DNS.

::

    <workload>.<namespace>.svc.<domain>                  A, AAAA   the addresses of its endpoints, near ones first
    _<port>._<tcp|udp>.<workload>.<namespace>.svc.…      SRV       port and name of each, the nearer the better priority
    <task>.<workload>.<namespace>.svc.…                  A, AAAA   the address of one task: what SRV answers point to
    <domain>                                             SOA, NS   so that resolvers are content
    dns.<domain>                                         A, AAAA   the coordinators

A name that exists but has nothing of the type asked for is answered with nothing and the SOA (NODATA), one that does
not exist with NXDOMAIN, one outside the domain is refused. A workload exists as long as its record does, with or
without endpoints. An endpoint whose host is a name and no address is answered with that name: by SRV as its target, by
A and AAAA as CNAME, if the workload has no endpoint with an address.

Names of namespaces and workloads may hold dots: of all ways to read such a name the first is taken that leads to a
workload, the one with the shortest namespace. Pure; names are without the last dot and in lower case.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from cloudless.core.discovery.addresses import split_address
from cloudless.core.naming.endpoints import Asker, Distance, Endpoint, find_endpoints, usable_endpoints
from cloudless.core.state.view import View

ADDRESSES_MAX, SERVICES_MAX = 16, 64
"""Told of at once, the best ones: so many addresses fit the smallest datagram, long lists of services need TCP."""
LABELS_MAX = 40
"""Names of more labels do not exist: bounds how many ways there are to read one."""
SERVICES, SERVERS = "svc", "dns"
_PROTOCOLS = ("_tcp", "_udp")
_PRIORITY_STEP = 10


class RecordType(Enum):
    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"
    CNAME = "CNAME"
    NS = "NS"
    SOA = "SOA"
    ANY = "ANY"
    OTHER = "OTHER"


class Outcome(Enum):
    OK = "OK"
    NO_SUCH_NAME = "NO_SUCH_NAME"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    type: RecordType


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """What an SRV record says."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Record:
    """`value`: an address, a name, or a `ServiceAddress`. Of the SOA only the serial, as text."""

    name: str
    type: RecordType
    value: str | ServiceAddress


@dataclass(frozen=True, slots=True)
class Reply:
    """`authority`: the SOA that goes with an answer of nothing."""

    outcome: Outcome
    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Zone:
    """`domain` under which the cluster answers."""

    domain: str

    def under(self, *labels: str) -> str:
        return ".".join((*labels, self.domain))


def answer(view: View, zone: Zone, question: Question, asker: Asker) -> Reply:
    """Return what the domain answers."""
    if question.name != zone.domain and not question.name.endswith(f".{zone.domain}"):
        return Reply(Outcome.REFUSED)
    records = _find_records(view, zone, question.name.removesuffix(zone.domain).rstrip("."), asker)
    soa = Record(zone.domain, RecordType.SOA, str(view.revision % 2**32))
    if records is None:
        return Reply(Outcome.NO_SUCH_NAME, authority=(soa,))
    wanted = tuple(
        Record(question.name, record.type, record.value)
        for record in records
        if question.type in (record.type, RecordType.ANY)
        or (record.type is RecordType.CNAME and question.type in (RecordType.A, RecordType.AAAA))
    )
    if not wanted:
        return Reply(Outcome.OK, authority=(soa,))
    return Reply(Outcome.OK, wanted, tuple(_additional(view, zone, wanted, asker)))


def _find_records(view: View, zone: Zone, relative: str, asker: Asker) -> list[Record] | None:
    """Return all records of a name under the domain, None for one that does not exist."""
    labels = tuple(relative.split(".")) if relative else ()
    if not labels:
        return [
            Record(zone.domain, RecordType.SOA, str(view.revision % 2**32)),
            Record(zone.domain, RecordType.NS, zone.under(SERVERS)),
        ]
    if labels == (SERVERS,):
        hosts = sorted({split_address(one.api_address)[0] for one in view.coordinators.values() if one.api_address})
        return list(_addresses(hosts))
    if labels[-1] != SERVICES or len(labels) > LABELS_MAX:
        return None
    return _find_service(view, zone, labels[:-1], asker)


def _find_service(view: View, zone: Zone, labels: tuple[str, ...], asker: Asker) -> list[Record] | None:
    if len(labels) > 1 and labels[0].startswith("_") and labels[1] in _PROTOCOLS:
        return _find_port(view, zone, labels, asker)
    if (ref := _find_workload(view, labels)) is not None:
        endpoints = usable_endpoints(find_endpoints(view, *ref, asker))
        return list(_addresses(dict.fromkeys(endpoint.host for endpoint in endpoints)))[:ADDRESSES_MAX]
    for size in range(1, len(labels) - 1):
        if (ref := _find_workload(view, labels[size:])) is not None:
            task_id = ".".join(labels[:size])
            hosts = {one.host: None for one in find_endpoints(view, *ref, asker) if one.task_id == task_id}
            if hosts:
                return list(_addresses(hosts))
    return [] if _is_above_something(view, labels) else None


def _is_above_something(view: View, labels: tuple[str, ...]) -> bool:
    """Return whether a longer name exists: a resolver that hears of no such name asks for nothing under it any more."""
    if labels and labels[0] in _PROTOCOLS:
        ref = _find_workload(view, labels[1:])
        protocols = [f"_{port.protocol.value}" for port in view.workloads[ref].record.spec.ports] if ref else []
        return labels[0] in protocols
    name = "." + ".".join(labels)
    return not labels or any(f".{workload}.{namespace}".endswith(name) for namespace, workload in view.workloads)


def _find_port(view: View, zone: Zone, labels: tuple[str, ...], asker: Asker) -> list[Record] | None:
    ref = _find_workload(view, labels[2:])
    if ref is None:
        return None
    name, protocol = labels[0][1:], labels[1][1:]
    endpoints = [
        endpoint
        for endpoint in usable_endpoints(find_endpoints(view, *ref, asker))
        if endpoint.port_name == name and endpoint.protocol.value == protocol
    ]
    declared = any(
        port.name == name and port.protocol.value == protocol for port in view.workloads[ref].record.spec.ports
    )
    if not endpoints and not declared:
        return None
    return [_service(zone, endpoint) for endpoint in endpoints[:SERVICES_MAX]]


def _find_workload(view: View, labels: tuple[str, ...]) -> tuple[str, str] | None:
    """Return namespace and name of the workload that the labels name."""
    for size in range(len(labels) - 1, 0, -1):
        ref = ".".join(labels[size:]), ".".join(labels[:size])
        if ref in view.workloads:
            return ref
    return None


def _service(zone: Zone, endpoint: Endpoint) -> Record:
    target = endpoint.host if not _is_address(endpoint.host) else _task_name(zone, endpoint)
    priority = _PRIORITY_STEP * (int(endpoint.distance) + (endpoint.doubtful * len(Distance)))
    return Record("", RecordType.SRV, ServiceAddress(priority, 1, endpoint.port, target))


def _task_name(zone: Zone, endpoint: Endpoint) -> str:
    return zone.under(endpoint.task_id, endpoint.workload, endpoint.namespace, SERVICES)


def _additional(view: View, zone: Zone, answers: tuple[Record, ...], asker: Asker) -> Iterator[Record]:
    """Give the addresses of the names that the answers point to, as far as they are ours."""
    named = [record.value.target for record in answers if isinstance(record.value, ServiceAddress)]
    named += [str(record.value) for record in answers if record.type is RecordType.NS]
    for name in dict.fromkeys(named):
        if name.endswith(f".{zone.domain}"):
            for record in _find_records(view, zone, name.removesuffix(f".{zone.domain}"), asker) or ():
                if record.type in (RecordType.A, RecordType.AAAA):
                    yield Record(name, record.type, record.value)


def _addresses(hosts: Iterable[str]) -> Iterator[Record]:
    """Give the records of hosts: of addresses, or of the first name if there is no address."""
    known = list(hosts)
    plain = [host for host in known if _is_address(host)]
    for host in plain:
        address = ipaddress.ip_address(host.strip("[]"))
        yield Record("", RecordType.A if address.version == 4 else RecordType.AAAA, str(address))
    if known and not plain:
        yield Record("", RecordType.CNAME, known[0].lower().rstrip("."))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
