"""What is asked over HTTP and what is answered, as plain values: who answers knows nothing of the server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

JSON = "application/json"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: its address, and the certificate it proved to hold the key of as PEM, empty without one."""

    address: str
    certificate_pem: bytes

    @classmethod
    def of(cls, address: str, certificate_der: bytes | None) -> Caller:
        return cls(address, ssl.DER_cert_to_PEM_cert(certificate_der).encode() if certificate_der else b"")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `path` and `query` are as they were sent, percent-encoded; names in `headers` are lower case.

    `read` returns the body once it is wanted. Raises TooLarge, and InvalidSpec if it does not come in time.
    """

    verb: str
    path: str
    query: str
    headers: Mapping[str, str]
    caller: Caller
    read: Callable[[], Awaitable[bytes]]
    secure: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is there as a whole. `text` as bytes is sent as it is, as text in UTF-8."""

    status: int
    text: str | bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that comes piece by piece. `close` is called in any case: at the end, or when the caller goes."""

    content_type: str
    pieces: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    headers: Mapping[str, str] = field(default_factory=dict)


Answering: TypeAlias = Callable[[Asked], Awaitable["Answer | Stream"]]
