"""A stream of messages as server-sent events.

::

    retry: 1000               how soon a browser asks again
    id: 4711                  the revision up to which all is told: comes back as Last-Event-ID
    data: {"revision": …}     one message
    event: problem            why the stream ends, if it failed; the same document as in an answer
    :                         a comment, so that nobody in between takes the silence for death

What the handler yields is taken by a task of its own and waits in a bounded queue for the caller to read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from cloudless.errors import CloudlessError
from cloudless.rpc.json_answer import to_text

EVENT_STREAM = "text/event-stream"
RETRY_MS = 1_000
KEEP_ALIVE_S = 10.0
FIRST_S = 0.5
"""So long the first message may take to come; what fails before is an answer with a status of its own."""
QUEUE_LENGTH_MAX = 64


class Telling:
    """One stream. `check` judges the caller again before each message; `close` it, whether or not it was begun."""

    def __init__(
        self,
        messages: AsyncGenerator[Message, None],
        check: Callable[[], None],
        describe: Callable[[CloudlessError], dict[str, Any]],
        ended: Callable[[str], None],
        translate: Callable[[Exception], CloudlessError],
    ) -> None:
        """`ended` is told the outcome, once: "ok", "cancelled" or an error's code."""
        self._messages, self._check, self._describe = messages, check, describe
        self._ended, self._translate = ended, translate
        self._outcome = "cancelled"
        self._queue: asyncio.Queue[Message | CloudlessError | None] = asyncio.Queue(QUEUE_LENGTH_MAX)
        self._first: Message | CloudlessError | None = None
        self._taking = asyncio.create_task(self._take(), name="events-over-http")
        self._closed = False

    async def begin(self) -> None:
        """Wait a moment for the first message. Raises what the stream fails with before it."""
        try:
            async with asyncio.timeout(FIRST_S):
                self._first = await self._queue.get()
        except TimeoutError:
            return
        if isinstance(self._first, CloudlessError):
            raise self._first
        if self._first is None:
            self._queue.put_nowait(None)

    async def pieces(self) -> AsyncIterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        if isinstance(self._first, Message):
            yield _to_event(self._first)
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    item = await self._queue.get()
            except TimeoutError:
                yield b":\n\n"
                continue
            if isinstance(item, CloudlessError):
                yield f"event: problem\ndata: {json.dumps(self._describe(item), ensure_ascii=False)}\n\n".encode()
                return
            if item is None:
                return
            yield _to_event(item)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._taking.cancel()
        await asyncio.wait([self._taking])
        self._ended(self._outcome)

    async def _take(self) -> None:
        try:
            async with contextlib.aclosing(self._messages) as messages:
                async for message in messages:
                    self._check()
                    await self._queue.put(message)
        except Exception as error:  # told to the caller, as with every other call
            told = self._translate(error)
            self._outcome = told.code
            await self._queue.put(told)
        else:
            self._outcome = "ok"
            await self._queue.put(None)


def _to_event(message: Any) -> bytes:
    revision = getattr(message, "revision", 0)
    return (f"id: {revision}\n" if revision else "").encode() + f"data: {to_text(message)}\n\n".encode()
