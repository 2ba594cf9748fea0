"""Let only so many simulated agents connect at once.

Every real agent has a processor for its handshake; thousands in one process would take so long for theirs, all at
once, that none ended in time. Who waits for its turn has not knocked yet; its patience runs all the same.
"""

from __future__ import annotations

import asyncio

from cloudless.agent.dialling import Dial, SessionStream, StreamBroken
from cloudless.rpc.v1 import agent_pb2

AT_ONCE = 48


class Turns:
    """Shared by all agents of a process."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(AT_ONCE)

    def dial(self, dial: Dial, address: str) -> SessionStream:
        return _InTurn(self, dial, address)


class _InTurn:
    """A SessionStream that is opened with its first message, and holds its place until the first answer."""

    def __init__(self, turns: Turns, dial: Dial, address: str) -> None:
        self._turns, self._dial, self._address = turns, dial, address
        self._stream: SessionStream | None = None
        self._holds = self._over = False

    async def write(self, message: agent_pb2.AgentMessage) -> None:
        if self._stream is None:
            await self._turns.free.acquire()
            self._holds = True
            if self._over:
                self._release()
                raise StreamBroken("cancelled here")
            self._stream = self._dial(self._address)
        await self._stream.write(message)

    async def read(self) -> agent_pb2.CoordinatorMessage:
        assert self._stream is not None, "the first word is the agent's"
        try:
            return await self._stream.read()
        finally:
            self._release()

    def cancel(self) -> None:
        self._over = True
        if self._stream is not None:
            self._stream.cancel()

    async def close(self) -> None:
        try:
            if self._stream is not None:
                await self._stream.close()
        finally:
            self._release()

    async def knock(self) -> bool:
        return self._stream is None or await self._stream.knock()

    def _release(self) -> None:
        if self._holds:
            self._holds = False
            self._turns.free.release()
