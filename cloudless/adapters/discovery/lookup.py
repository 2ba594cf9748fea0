"""One question to DNS or to this machine's own resolver, and its answer with the time it may be kept.

`dns+` and `srv+` seeds ask DNS itself, through dnspython, because only that tells TTLs and SRV records; the servers
are those of the settings or of /etc/resolv.conf, which is read anew for each question (hosts move between networks).
Plain names ask the machine's resolver, so that its hosts file counts. That one blocks for as long as it likes: it gets
a daemon thread for each name, never one of the pool that disk writes wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

# Of one question: to one server, and over all servers and tries.
SERVER_TIMEOUT_S = 1.0
LOOKUP_TIMEOUT_S = 3.0
# The machine's resolver does not say how long an answer holds.
MACHINE_TTL_S = 30.0


class Kind(Enum):
    """What is asked for; `MACHINE` is whatever addresses this machine's resolver gives."""

    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Record:
    """One answer: an address, or the target name of an SRV record with its port."""

    host: str
    port: int = 0
    priority: int = 0
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """All answers to one question; none if the name exists without such records."""

    records: tuple[Record, ...]
    ttl_s: float


class LookupFailed(Exception):
    """There is no answer; the message says why, in words."""


class Lookup(Protocol):
    async def ask(self, name: str, kind: Kind) -> Found:
        """Return the answer within `LOOKUP_TIMEOUT_S`. Raises LookupFailed."""
        ...


class NetworkLookup:
    """Asks the world. `servers` are (address, port) of DNS servers; none: those of /etc/resolv.conf."""

    def __init__(self, servers: tuple[tuple[str, int], ...] = ()) -> None:
        self._servers = servers
        self._machine = MachineResolver()

    async def ask(self, name: str, kind: Kind) -> Found:
        """See Lookup."""
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                return await (self._machine.ask(name) if kind is Kind.MACHINE else self._ask_dns(name, kind))
        except TimeoutError:
            raise LookupFailed(f"no answer within {LOOKUP_TIMEOUT_S:g} s") from None

    async def _ask_dns(self, name: str, kind: Kind) -> Found:
        import dns.exception
        import dns.resolver

        try:
            resolver = self._resolver()
            # One's own servers were named for the very names asked: no domain of this machine's is tried behind them.
            answer = await resolver.resolve(name, kind.value, search=not self._servers, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            raise LookupFailed("there is no such name") from None
        except dns.resolver.NoNameservers:
            raise LookupFailed("no DNS server could answer") from None
        except dns.exception.Timeout:
            raise LookupFailed("no DNS server answers") from None
        except dns.resolver.NoResolverConfiguration:
            raise LookupFailed("this machine names no DNS server in /etc/resolv.conf") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupFailed(str(error) or type(error).__name__) from error
        read: Callable[[Any], Record] = _read_service if kind is Kind.SRV else lambda data: Record(data.address)
        records = tuple(read(data) for data in answer.rrset or ())
        return Found(tuple(r for r in records if r.host), float(answer.chaining_result.minimum_ttl))

    def _resolver(self) -> Any:
        import dns.asyncresolver
        import dns.nameserver

        resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in self._servers]
        resolver.timeout, resolver.lifetime = SERVER_TIMEOUT_S, LOOKUP_TIMEOUT_S - 0.1
        return resolver


def _read_service(data: Any) -> Record:
    """Return an SRV record; its target "." says that the service is not offered (RFC 2782)."""
    return Record(data.target.to_text(omit_final_dot=True).strip("."), data.port, data.priority, data.weight)


class MachineResolver:
    """Asks getaddrinfo, for one name once at a time."""

    def __init__(self, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._pending: dict[str, asyncio.Future[Found]] = {}

    async def ask(self, name: str) -> Found:
        """Return the addresses as soon as they are known. Raises LookupFailed."""
        if name not in self._pending:
            loop = asyncio.get_running_loop()
            pending = self._pending[name] = loop.create_future()
            pending.add_done_callback(lambda done: done.cancelled() or done.exception())
            threading.Thread(target=self._look, args=(name, loop, pending), daemon=True, name=f"resolve-{name}").start()
        # Who asks may give up; the thread cannot, and the next to ask waits for the same answer.
        return await asyncio.shield(self._pending[name])

    def _look(self, name: str, loop: asyncio.AbstractEventLoop, pending: asyncio.Future[Found]) -> None:
        found: Found | LookupFailed
        try:
            answers = self._getaddrinfo(name, None, type=socket.SOCK_STREAM)
            addresses = dict.fromkeys(str(answer[4][0]) for answer in answers)
            found = Found(tuple(Record(address) for address in addresses), MACHINE_TTL_S)
        except (OSError, UnicodeError) as error:
            found = LookupFailed(getattr(error, "strerror", None) or str(error))
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._settle, name, pending, found)

    def _settle(self, name: str, pending: asyncio.Future[Found], found: Found | LookupFailed) -> None:
        self._pending.pop(name, None)
        if isinstance(found, Found):
            pending.set_result(found)
        else:
            pending.set_exception(found)
