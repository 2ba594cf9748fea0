"""Seeds: what a person writes to say where the first coordinators are found, and how that text is read.

::

    written                             kind      stands for
    ──────────────────────────────────  ────────  ───────────────────────────────────────────────────────────────
    10.0.0.5:8080, [fd00::5]:8080       ADDRESS   that address
    node-1:8080                         NAME      every address this machine's resolver (its hosts file too) gives
    dns+cloudless.example.org:8080      DNS       every A and AAAA record of the name
    srv+_cloudless._tcp.example.org     SRV       the targets and ports of its SRV records, by priority and weight

The same text is taken by coordinators, agents and the command line. The port may be left out where a default is
known. A faulty entry is refused with its place in the list, what is wrong, and what would be right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from cloudless.core.discovery.addresses import is_ip, join_address, read_host, split_address

SEEDS_MAX = 32
_SERVICE_NAME = re.compile(r"_[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\._(?:tcp|udp)\.(.+)\Z", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9]*)\+(.*)\Z")


class SeedKind(Enum):
    ADDRESS = "address"
    NAME = "name"
    DNS = "dns"
    SRV = "srv"


@dataclass(frozen=True, slots=True, order=True)
class Seed:
    """One entry. `host` is without brackets; `port` is 0 for SRV, whose records have ports of their own."""

    host: str
    port: int
    kind: SeedKind

    def __str__(self) -> str:
        match self.kind:
            case SeedKind.SRV:
                return f"srv+{self.host}"
            case SeedKind.DNS:
                return f"dns+{join_address(self.host, self.port)}"
            case _:
                return join_address(self.host, self.port)


class BadSeed(ValueError):
    """An entry that stands for nothing; the message says which one and what would be right."""


def parse_seeds(text: str, default_port: int = 8080) -> tuple[Seed, ...]:
    """Return the seeds of a list separated by commas, each once. Raises BadSeed."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if len(entries) > SEEDS_MAX:
        raise BadSeed(f"must list at most {SEEDS_MAX} entries; one name may stand for many (dns+NAME:PORT)")
    seeds = []
    for number, entry in enumerate(entries, 1):
        try:
            seeds.append(parse_seed(entry, default_port))
        except ValueError as error:
            place = f"entry {number} ({entry}) " if len(entries) > 1 else ""
            raise BadSeed(f"{place}{error}") from error
    return tuple(dict.fromkeys(seeds))


def parse_seed(text: str, default_port: int = 8080) -> Seed:
    """Return one seed. Raises BadSeed."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        host, port = _host_and_port(text, default_port)
        return Seed(host, port, SeedKind.ADDRESS if is_ip(host) else SeedKind.NAME)
    rest = scheme[2]
    match scheme[1].lower():
        case "dns":
            host, port = _host_and_port(rest, default_port)
            if is_ip(host):
                raise BadSeed(
                    f"must have a name after dns+; an address is written as it is: {join_address(host, port)}"
                )
            return Seed(host.lower(), port, SeedKind.DNS)
        case "srv":
            return _parse_srv(rest)
        case other:
            raise BadSeed(f"must be host:port, dns+NAME:PORT or srv+_SERVICE._tcp.DOMAIN; {other}+ is not known")


def _parse_srv(name: str) -> Seed:
    match = _SERVICE_NAME.match(name)
    if match is None or is_ip(match[1]):
        raise BadSeed("must have the name of an SRV record after srv+, such as srv+_cloudless._tcp.example.org")
    if ":" in name:
        raise BadSeed("must have no port after srv+: SRV records have their own")
    try:
        read_host(match[1])
    except ValueError as error:
        raise BadSeed("must have a domain after srv+_SERVICE._tcp., such as example.org") from error
    return Seed(name.lower(), 0, SeedKind.SRV)


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    try:
        host, port = split_address(text if re.search(r"(?:\A|[^:]):\d*\Z", text) else f"{text}:{default_port}")
    except ValueError as error:
        raise BadSeed(str(error)) from error
    if not host:
        raise BadSeed("must name a host before the port, such as 10.0.0.5:8080")
    if port == 0:
        raise BadSeed("must have a port from 1 to 65535")
    return host, port


def parse_dns_servers(text: str) -> tuple[tuple[str, int], ...]:
    """Return (address, port) of each DNS server in a list separated by commas; port 53 if none is given.

    Raises BadSeed: a DNS server's name could not be looked up without one.
    """
    servers = []
    for entry in (part.strip() for part in text.split(",")):
        host, port = _host_and_port(entry, 53)
        if not is_ip(host):
            raise BadSeed("must be addresses of DNS servers, such as 10.0.0.2 or [fd00::2]:5353")
        servers.append((host, port))
    return tuple(dict.fromkeys(servers))
