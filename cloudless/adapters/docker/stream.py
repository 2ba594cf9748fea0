"""A long answer of the engine (events, logs, a pull's progress), read by a thread, consumed by a coroutine.

The thread stops reading while the consumer is slow, so memory is bounded; `close` ends it by closing the connection
under it, wherever it waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

ITEMS_MAX = 16


class Closed(Exception):
    """Nobody listens any longer."""


class Pump:
    """See the module. Create it in the event loop; `run` is for the thread, everything else for the loop."""

    def __init__(
        self,
        ask: Callable[[Any], Any],
        parse: Callable[[Any], Iterable[Any]],
        translate: Callable[[BaseException], BaseException],
    ) -> None:
        self._ask, self._parse, self._translate = ask, parse, translate
        self._loop = asyncio.get_running_loop()
        # (item,) or, at the end, the error or None
        self._queue: asyncio.Queue[tuple[Any] | BaseException | None] = asyncio.Queue(ITEMS_MAX)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._lock = threading.Lock()
        self._response: Any = None
        self._closed = False

    # --- in the loop ----------------------------------------------------------------------------

    async def opened(self) -> None:
        """Return when the engine has begun to answer. Raises what kept it from that."""
        await self._opened

    async def items(self) -> AsyncGenerator[Any, None]:
        while (entry := await self._queue.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            response = self._response
        if response is not None:
            _cut(response)
        # Whoever is stuck handing over an item goes on, and sees that it is closed.
        while not self._queue.empty():
            self._queue.get_nowait()
        if self._opened.done() and not self._opened.cancelled():
            self._opened.exception()
        self._opened.cancel()

    # --- in the thread --------------------------------------------------------------------------

    def run(self, client: Any) -> None:
        end: BaseException | None = None
        try:
            response = self._ask(client)
            with self._lock:
                self._response = response
            with response:
                self._loop.call_soon_threadsafe(self._open, None)
                for item in self._parse(response):
                    self._put((item,))
        except Closed:
            return
        except Exception as error:
            end = self._translate(error)
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._open, end)
        with suppress(Closed):
            self._put(end)

    def _put(self, entry: tuple[Any] | BaseException | None) -> None:
        if self._closed:
            raise Closed
        putting = self._queue.put(entry)
        try:
            handed = asyncio.run_coroutine_threadsafe(putting, self._loop)
        except RuntimeError as error:  # the loop is closed
            putting.close()
            raise Closed from error
        handed.result()

    def _open(self, error: BaseException | None) -> None:
        if self._opened.done():
            return
        if error is None:
            self._opened.set_result(None)
        else:
            self._opened.set_exception(error)


def ask_stream(
    client: Any,
    method: str,
    path: str,
    *,
    params: Mapping[str, object],
    headers: Mapping[str, str] | None = None,
    silence_s: float | None = None,
) -> Any:
    """Return the response to a request whose answer is long; `silence_s` without a byte end it (None: never)."""
    import docker.errors
    import requests.exceptions

    response = client.request(
        method,
        f"{client.base_url}/v{client.api_version}{path}",
        params=params,
        headers=headers,
        stream=True,
        timeout=(client.timeout, silence_s),
    )
    try:
        response.raise_for_status()
    except requests.exceptions.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
    return response


def json_lines(response: Any) -> Iterator[dict[str, Any]]:
    """Yield the documents of an answer that has one a line."""
    for line in response.iter_lines():
        if line:
            yield json.loads(line)


def _cut(response: Any) -> None:
    """End the connection under a reader in another thread."""
    with suppress(OSError, ValueError, AttributeError), socket.socket(fileno=os.dup(response.raw.fileno())) as handle:
        handle.shutdown(socket.SHUT_RDWR)
