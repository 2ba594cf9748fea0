"""A crowd at the doors: connections that begin a TLS handshake and do not go on with it.

`python -m tests.faults.rig.crowd EACH ADDRESS…` holds so many at each address until stdin is closed. One half sends
nothing; the other sends a client's greeting, a byte a second. Who is thrown out comes again. Once a second it prints,
as a line of JSON, how many stand there, and how often one was thrown out.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

_BYTE_S = 1.0
_TELL_S = 1.0
_AGAIN_S = 0.5
_AT_ONCE = 200


def greeting() -> bytes:
    """Return the first message of a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    begun = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="door")
    with suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    return outgoing.read()


class Crowd:
    """All of them. `standing` counts who is connected now, by address."""

    def __init__(self) -> None:
        self.standing: Counter[str] = Counter()
        self.thrown_out = 0
        self._greeting = greeting()
        self._connecting = asyncio.Semaphore(_AT_ONCE)

    async def stand(self, address: str, *, slow: bool) -> None:
        host, _, port = address.rpartition(":")
        while True:
            try:
                async with self._connecting:
                    reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(_AGAIN_S)
                continue
            self.standing[address] += 1
            try:
                await self._wait(reader, writer, slow=slow)
            except OSError:
                pass
            finally:
                self.standing[address] -= 1
                self.thrown_out += 1
                writer.transport.abort()

    async def _wait(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        for byte in self._greeting if slow else b"":
            writer.write(bytes((byte,)))
            with suppress(TimeoutError):
                async with asyncio.timeout(_BYTE_S):
                    await reader.read(1)
                    return
        await reader.read(1)


async def _run(each: int, addresses: list[str]) -> None:
    crowd = Crowd()
    tasks = [
        asyncio.create_task(crowd.stand(address, slow=number % 2 == 1))
        for number in range(each)
        for address in addresses
    ]
    reader: Any = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ending = asyncio.create_task(reader.read())
    while not ending.done():
        told = {"standing": dict(crowd.standing), "thrown_out": crowd.thrown_out}
        print(json.dumps(told), flush=True)
        await asyncio.wait([ending], timeout=_TELL_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), sys.argv[2:]))
