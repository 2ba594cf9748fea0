"""A collector of traces: takes OTLP over HTTP as a real one does, and keeps what it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Seen:
    """One span. `service` is the process that recorded it, as kind and id; ids are hexadecimal, "" for no parent."""

    name: str
    service: tuple[str, str]
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any] = field(hash=False)


class Receiver:
    """What was received so far, from whom whenever. Read it from any thread."""

    def __init__(self) -> None:
        self._spans: list[Seen] = []
        self.url = ""

    def spans(self) -> list[Seen]:
        return list(self._spans)

    def trace(self, trace_id: str) -> list[Seen]:
        """Return the spans of one trace, in the order in which they began."""
        return sorted((span for span in self.spans() if span.trace_id == trace_id), key=lambda span: span.start_ns)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans() if span.name == name]

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        message = ExportTraceServiceRequest.FromString(await request.read())
        for part in message.resource_spans:
            about = _plain(part.resource.attributes)
            service = (about["service.name"].removeprefix("cloudless-"), about["service.instance.id"])
            self._spans += [_seen(span, service) for scope in part.scope_spans for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def _seen(span: Any, service: tuple[str, str]) -> Seen:
    return Seen(
        span.name,
        service,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _plain(span.attributes),
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive traces on a port of loopback, in a thread of its own."""
    receiver, loop, began = Receiver(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/v1/traces", receiver.take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        port = runner.addresses[0][1]
        receiver.url = f"http://{HOST}:{port}"
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    serving = loop.create_task(serve())
    thread = threading.Thread(target=_run, args=(loop, serving), name="otlp-receiver", daemon=True)
    thread.start()
    assert began.wait(10)
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(10)
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(serving)
    except asyncio.CancelledError:
        return
