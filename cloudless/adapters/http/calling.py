"""Ask servers over HTTP and hand on what they answer, as the values that a server of ours gives.

Who could not be reached, or broke off before it answered, is told from who answered badly: only the former is a reason
to ask somebody else. Nothing is followed, kept or decoded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType

import aiohttp
from yarl import URL

from cloudless.adapters.http.exchange import Answer, Stream

CONNECT_MAX_S = 1.0
ANSWER_BYTES_MAX = 64 << 20
EVENT_STREAM = "text/event-stream"
SHOWN_HEADERS = ("ETag", "Retry-After", "Cache-Control", "Allow")


class Unreached(Exception):
    """There was no answer. `sent`: the request may have arrived all the same."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class HttpCalls:
    """Connections to servers. `tls` None: plain; else every server is known by `server_name`."""

    def __init__(self, tls: ssl.SSLContext | None, server_name: str) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15.0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MAX_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        self._tls, self._server_name = tls, server_name

    async def __aenter__(self) -> HttpCalls:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Show another certificate from the next connection on."""
        self._tls = tls

    async def ask(
        self, address: str, verb: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer | Stream:
        """Return what `address` (host:port) answers. `target` is path and query, as they are sent. Raises Unreached."""
        url = URL(f"{'https' if self._tls else 'http'}://{address}{target}", encoded=True)
        try:
            answer = await self._session.request(
                verb, url, headers=dict(headers or {}), data=body or None, allow_redirects=False, ssl=self._tls or True,
                server_hostname=self._server_name if self._tls else None,
            )  # fmt: skip
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreached(address, error) from error
        if answer.content_type == EVENT_STREAM and answer.status == 200:
            return Stream(EVENT_STREAM, _pieces(answer), _closing(answer), _shown(answer))
        try:
            content = await _read(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreached(address, error) from error
        finally:
            answer.release()  # closes the connection if something is left on it
        return Answer(answer.status, content, answer.content_type, _shown(answer))


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body. Raises aiohttp.ClientPayloadError for one that is too large."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {ANSWER_BYTES_MAX >> 20} MiB")
    return b"".join(pieces)


def _unreached(address: str, error: Exception) -> Unreached:
    sent = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError)
    return Unreached(f"{address}: {error or type(error).__name__}", sent=sent)


def _shown(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: answer.headers[name] for name in SHOWN_HEADERS if name in answer.headers}


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield what comes until it ends or breaks off: who reads it finds out from the last event which it was."""
    try:
        async for piece in answer.content.iter_any():
            yield piece
    except (aiohttp.ClientError, OSError, TimeoutError):
        return


class _closing:
    """Ends a stream: by closing its connection, which is of no use to anybody else."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __call__(self) -> None:
        self._answer.close()
        await asyncio.sleep(0)
