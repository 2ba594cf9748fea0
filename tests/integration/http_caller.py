"""Ask a coordinator's HTTP API as a program would: plain HTTP or TLS with an identity, JSON and server-sent events."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Told:
    """One answer. `json` is None where the body is none."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True)
class HttpCaller:
    """Asks at `address` (host:port), with what `tls` shows."""

    address: str
    tls: ssl.SSLContext | None = None

    def ask(self, verb: str, path: str, body: Any = None, **headers: str) -> Told:
        """`body` is sent as JSON, but text as it is; `If_Match` in `headers` is If-Match."""
        connection = self._connect()
        try:
            answer = _send(connection, verb, path, body, headers)
            return Told(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Any:
        """Return the JSON of an answer that must be good."""
        told = self.ask("GET", path, **headers)
        assert told.status == 200, told.body
        return told.json

    def watch(self, path: str, **headers: str) -> Watch:
        """Begin a stream; close it."""
        connection = self._connect()
        answer = _send(connection, "GET", path, None, headers)
        assert answer.status == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return Watch(connection, answer)

    def _connect(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(self.address, timeout=TIMEOUT_S, context=self.tls)


@dataclass
class Watch:
    """A stream of events; `last_id` is what a browser would come back with."""

    connection: http.client.HTTPConnection
    answer: http.client.HTTPResponse
    last_id: str = ""
    ended: bool = field(default=False, init=False)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *args: object) -> None:
        self.connection.close()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the data of each event until the stream ends. Raises TimeoutError if nothing comes."""
        data, seen = "", ""
        while line := self.answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data = value
            elif name == "id":
                seen = value
            elif not name and not value:
                self.last_id, seen = seen or self.last_id, ""
                if data:
                    yield json.loads(data)
                data = ""
        self.ended = True

    def until_key(self, key: str) -> dict[str, Any]:
        """Return the next change of a key that ends so."""
        for event in self.events():
            for change in event["changes"]:
                if change["key"].endswith(key):
                    return dict(change)
        raise AssertionError(f"the stream ended without a change of {key}")


def context_of(directory: Path, *, shown: bool = True) -> ssl.SSLContext:
    """Return what somebody asks with whose identity is in a directory; not `shown`: with nothing."""
    context = ssl.create_default_context(cafile=str(directory / "roots.pem"))
    context.check_hostname = False  # certificates carry no addresses
    if shown:
        context.load_cert_chain(directory / "identity.pem")
    return context


def _send(
    connection: http.client.HTTPConnection, verb: str, path: str, body: Any, headers: dict[str, str]
) -> http.client.HTTPResponse:
    content = body if body is None or isinstance(body, str) else json.dumps(body)
    connection.request(verb, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse()
