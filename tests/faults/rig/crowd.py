"""A crowd at the doors: connections that begin a TLS handshake and do not go on with it.

`python -m tests.faults.rig.crowd EACH ADDRESS…` holds so many at each address until stdin is closed. One half sends
nothing; the other sends a client's greeting, a byte a second. Who is thrown out comes again soon. Once a second it
prints, as a line of JSON, how many stand there, how many have come, and how often one was thrown out.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from contextlib import suppress
from typing import Any, cast

_TICK_S = 1.0
_AGAIN_S = 3.0
_AT_ONCE = 100


def greeting() -> bytes:
    """Return the first message of a handshake."""
    outgoing = ssl.MemoryBIO()
    begun = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="door")
    with suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    return outgoing.read()


class _Stander(asyncio.Protocol):
    """One connection. `left` is what it will still say, a byte a tick."""

    def __init__(self, crowd: Crowd, left: bytes) -> None:
        self._crowd, self._left = crowd, left
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._crowd.standing.add(self)
        self._crowd.came += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.standing.discard(self)
        self._crowd.thrown_out += 1
        if not self.gone.done():
            self.gone.set_result(None)

    def tick(self) -> None:
        if self._left:
            self._transport.write(self._left[:1])
            self._left = self._left[1:]


class Crowd:
    """All of them."""

    def __init__(self) -> None:
        self.standing: set[_Stander] = set()
        self.came = self.thrown_out = 0
        self._greeting = greeting()
        self._connecting = asyncio.Semaphore(_AT_ONCE)

    async def stand(self, address: str, *, slow: bool) -> None:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with self._connecting:
                    _, stander = await loop.create_connection(
                        lambda: _Stander(self, self._greeting if slow else b""), host, int(port)
                    )
                await stander.gone
            except OSError:
                pass
            await asyncio.sleep(_AGAIN_S)

    def tick(self) -> None:
        for stander in tuple(self.standing):
            stander.tick()


async def _run(each: int, addresses: list[str]) -> None:
    crowd = Crowd()
    tasks = [asyncio.create_task(crowd.stand(at, slow=n % 2 == 1)) for n in range(each) for at in addresses]
    reader: Any = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ending = asyncio.create_task(reader.read())
    while not ending.done():
        crowd.tick()
        print(
            json.dumps({"standing": len(crowd.standing), "came": crowd.came, "thrown_out": crowd.thrown_out}),
            flush=True,
        )
        await asyncio.wait([ending], timeout=_TICK_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), sys.argv[2:]))
