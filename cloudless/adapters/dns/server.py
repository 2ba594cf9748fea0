"""The sockets of the DNS responder: UDP and TCP on one address.

Each question is answered at once, from memory, so nothing waits and nothing is queued. A client that asks too much is
not answered over UDP and disconnected over TCP; when all together ask too much, datagrams are left in the kernel's
buffer for a moment, whose size bounds them. Over TCP a client has a few connections, each closed when it is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Callable

from loguru import logger

from cloudless.adapters.dns.limits import DnsLimits, Questions
from cloudless.core.discovery.addresses import split_address
from cloudless.errors import PortInUse
from cloudless.ports import Clock

Respond = Callable[[bytes, str, bool], bytes | None]
"""Returns the answer to a question of a client at an address; the last argument: whether it came as a datagram."""

_AT_ONCE = 32
_DATAGRAM_BYTES_MAX = 4_096


class DnsServer:
    """Listens on one address (`host:port`) once started."""

    def __init__(self, address: str, respond: Respond, clock: Clock, limits: DnsLimits | None = None) -> None:
        self._address, self._respond, self._clock = address, respond, clock
        self._limits = limits or DnsLimits()
        self._questions = Questions(self._limits)
        self._datagrams: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._connections: Counter[str] = Counter()
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; return the port. Raises PortInUse."""
        host, port = split_address(self._address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = await asyncio.start_server(self._serve, host, port, family=family, limit=1 << 16)
            port = self._server.sockets[0].getsockname()[1]
            self._datagrams = socket.socket(family, socket.SOCK_DGRAM)
            self._datagrams.setblocking(False)
            self._datagrams.bind((host, port))
        except OSError as error:
            await self.stop()
            hint = "set CLOUDLESS_DNS_ADDR to a free address; ports below 1024 need the right to bind them"
            raise PortInUse(f"cannot answer DNS on {self._address}: {error.strerror or error}", hint=hint) from error
        asyncio.get_running_loop().add_reader(self._datagrams, self._on_datagrams)
        return int(port)

    async def stop(self) -> None:
        if self._datagrams is not None:
            asyncio.get_running_loop().remove_reader(self._datagrams)
            self._datagrams.close()
            self._datagrams = None
        if self._server is not None:
            self._server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _answer(self, raw: bytes, client: str, *, datagram: bool) -> bytes | None:
        began_s = time.thread_time()
        answer = self._respond(raw, client, datagram)
        self._questions.charge(client, time.thread_time() - began_s)
        return answer

    # --- datagrams ---

    def _on_datagrams(self) -> None:
        """Answer some of what has come; the loop calls again while there is more."""
        for _ in range(_AT_ONCE):
            if self._datagrams is None:
                return
            if self._questions.exhausted(self._clock.monotonic_s()):
                self._pause()
                return
            try:
                raw, sender = self._datagrams.recvfrom(_DATAGRAM_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # an earlier answer found nobody: nothing to do with the next question
                logger.debug("DNS: {}", error)
                continue
            self._answer_datagram(raw, sender)

    def _answer_datagram(self, raw: bytes, sender: tuple[str, int]) -> None:
        client = _plain(sender[0])
        # From port 0 nobody asks; answering a port of small services makes two of them talk for ever.
        if not sender[1] or not self._questions.take_one(client, self._clock.monotonic_s()):
            return
        answer = self._answer(raw, client, datagram=True)
        if answer is not None and self._datagrams is not None:
            with contextlib.suppress(OSError):  # UDP promises nothing: who asked asks again
                self._datagrams.sendto(answer, sender)

    def _pause(self) -> None:
        assert self._datagrams is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._datagrams)
        loop.call_later(self._limits.full_pause_s, self._go_on)

    def _go_on(self) -> None:
        if self._datagrams is not None:
            asyncio.get_running_loop().add_reader(self._datagrams, self._on_datagrams)

    # --- connections ---

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        client = _plain(writer.get_extra_info("peername")[0])
        full = self._connections.total() >= self._limits.connections_max
        try:
            if full or self._connections[client] >= self._limits.connections_client_max:
                return
            self._connections[client] += 1
            self._serving.add(task)
            try:
                await self._answer_all(reader, writer, client)
            finally:
                self._serving.discard(task)
                self._connections[client] -= 1
                self._connections += Counter()  # forgets who has none
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> None:
        while True:
            async with asyncio.timeout(self._limits.idle_s):
                size = int.from_bytes(await reader.readexactly(2))
                if size > self._limits.question_bytes_max:
                    return
                raw = await reader.readexactly(size)
            if not self._questions.take_one(client, self._clock.monotonic_s()):
                return
            answer = self._answer(raw, client, datagram=False)
            if answer is None:
                return
            writer.write(len(answer).to_bytes(2) + answer)
            async with asyncio.timeout(self._limits.write_s):
                await writer.drain()


def _plain(host: str) -> str:
    """Return an address as agents write it: IPv4 within IPv6 as IPv4, without a zone."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
